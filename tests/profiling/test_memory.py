"""Peak memory against sizes computed by hand."""

from __future__ import annotations

import os
import threading
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from rfaconv import UserError
from rfaconv.profiling import peak_memory
from rfaconv.profiling.memory import highest

MB = 2**20
SLACK = 4096
"""Scalars and other small blocks."""


def block(megabytes: int) -> Tensor:
    return torch.empty(megabytes * MB, dtype=torch.uint8)


def test_blocks_one_after_the_other() -> None:
    def function() -> None:
        first = block(10)
        del first
        block(5)

    assert peak_memory(function, "cpu") == 10 * MB


def test_blocks_beside_each_other() -> None:
    def function() -> tuple[Tensor, Tensor]:
        first, second = block(10), block(5)
        del first
        return second, block(7)

    assert peak_memory(function, "cpu") == 15 * MB


def test_what_is_there_at_the_start_and_the_first_call_do_not_count() -> None:
    kept = [block(30)]

    def function() -> None:
        if len(kept) == 1:  # as an optimizer makes its state in the first step
            kept.append(block(20))
        block(3)

    assert peak_memory(function, "cpu") == 3 * MB


def test_release_of_older_memory_is_not_subtracted() -> None:
    kept = [block(4)]

    def function() -> None:
        kept[0] = block(4)
        block(2)

    assert peak_memory(function, "cpu") == 6 * MB


def test_an_address_used_again_after_an_earlier_measurement() -> None:
    # The profiler remembers a block that outlives its session by address and size; the next block there may be smaller.
    kept: list[Tensor] = []
    for megabytes in (64, 32, 16):
        assert peak_memory(lambda size=megabytes: kept.append(block(size)), "cpu") == megabytes * MB
        kept.clear()
        older = [block(8)]

        def function(older: list[Tensor] = older) -> None:
            older.clear()
            block(2)

        assert peak_memory(function, "cpu") == 2 * MB


def test_a_layer_trained() -> None:
    x, layer = torch.randn(64, 512), nn.Linear(512, 1024)
    out, weight = 64 * 1024 * 4, 512 * 1024 * 4

    def step() -> None:
        # The gradient of a sum is one number seen as a whole tensor: nothing but out and the gradients is made.
        layer(x).sum().backward()
        layer.zero_grad(set_to_none=True)

    peaks = {peak_memory(step, "cpu") for _ in range(5)}
    assert len(peaks) == 1
    assert weight <= peaks.pop() <= weight + out + 2 * 1024 * 4 + SLACK


class Scratch(torch.autograd.Function):
    """Takes 64 MB in its backward pass; nested deep enough, autograd runs it on a thread of its own."""

    threads: ClassVar[set[int]] = set()

    @staticmethod
    def forward(ctx: Any, x: Tensor, depth: int) -> Tensor:
        ctx.depth = depth
        return x * 1

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        Scratch.threads.add(threading.get_ident())
        if ctx.depth == 0:
            block(64)
        else:
            with torch.enable_grad():
                inner = torch.ones(1, requires_grad=True)
                Scratch.apply(inner, ctx.depth - 1).backward()
        return gradient, None


@pytest.mark.parametrize(("depth", "threads"), [(0, 1), (70, 2)])
def test_the_backward_pass_counts_on_whatever_thread(depth: int, threads: int) -> None:
    Scratch.threads.clear()
    x = torch.ones(1, requires_grad=True)

    def step() -> None:
        Scratch.apply(x, depth).backward()
        x.grad = None

    assert 64 * MB <= peak_memory(step, "cpu") <= 64 * MB + 16 * SLACK
    assert len(Scratch.threads) == threads


def test_highest_sum_of_the_blocks_alive() -> None:
    assert highest([]) == 0
    assert highest([(1, 10), (1, -10), (1, 5), (2, 7)]) == 12
    assert highest([(9, -100), (1, 10)]) == 10  # released, but from before
    assert highest([(1, 10), (1, -99), (2, 10)]) == 10  # released with a size remembered wrongly


@pytest.mark.parametrize("level", [None, "3"])
def test_the_environment_is_left_as_it_was(level: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if level is None:
        monkeypatch.delenv("KINETO_LOG_LEVEL", raising=False)
    else:
        monkeypatch.setenv("KINETO_LOG_LEVEL", level)
    peak_memory(int, "cpu")
    assert os.environ.get("KINETO_LOG_LEVEL") == level


def test_other_devices_are_refused() -> None:
    with pytest.raises(UserError, match="not on 'meta'"):
        peak_memory(int, "meta")
