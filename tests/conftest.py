"""Shared by all tests: the same numbers on every run, and nothing compiled that an earlier test has left."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _nothing_compiled() -> Iterator[None]:
    """torch.compile stops recompiling a function after eight times, whoever asked."""
    yield
    if "torch._dynamo" in sys.modules:
        torch.compiler.reset()
