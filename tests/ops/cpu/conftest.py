"""What the tests of the C++ kernels share: they need the kernels, and can run each instruction set the machine has."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from rfaconv.ops.cpu import library

SETS = ["AVX-512", "AVX2", "baseline"]


@pytest.fixture(autouse=True)
def _kernels() -> None:
    # Not a skip: `make test` builds them, so that their absence is a failure.
    assert library.MISSING is None, library.MISSING


@pytest.fixture(params=SETS)
def instruction_set(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each set of kernels in turn."""
    before = library.instruction_set()
    if not library.use_instruction_set(request.param):
        pytest.skip(f"this machine has no {request.param}")
    yield request.param
    library.use_instruction_set(before)
