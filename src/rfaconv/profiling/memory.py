"""The peak memory of one call."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from rfaconv.errors import UserError


def peak_memory(function: Callable[[], object], device: torch.device | str = "cpu") -> int:
    """The most bytes of tensors that are alive at once during a call, above what was allocated at its start.

    `function` is called twice; the first call, which may set up caches and optimizer states, is not measured. What
    counts is what PyTorch's allocator gives out on `device`: every tensor, and the scratch of its own operators; not
    what a kernel gets from the system itself.

    On the CPU, memory that was there at the start and is released by the call is not subtracted, and what the call does
    on threads of its own is not seen (autograd's threads are).

    Raises:
        UserError: `device` is neither the CPU nor a CUDA device.
    """
    device = measurable(device)
    function()
    gc.collect()  # what the first call left in cycles is not to be freed, and reused, in the midst of the second
    return _peak_cuda(function, device) if device.type == "cuda" else _peak_cpu(function)


def measurable(device: torch.device | str) -> torch.device:
    """`device`, if its memory can be measured; else a UserError."""
    device = torch.device(device)
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"Memory can be measured on 'cpu' and 'cuda', not on '{device.type}'.")
    return device


def _peak_cuda(function: Callable[[], object], device: torch.device) -> int:
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    start = torch.cuda.memory_allocated(device)
    function()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - start


def _peak_cpu(function: Callable[[], object]) -> int:
    with _quiet(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        function()
    # The profiler's public tables add allocations up operator by operator; only its event tree has them in time.
    assert profiler.profiler is not None
    results: Any = profiler.profiler.kineto_results
    events = [event for event in _walk(results.experimental_event_tree()) if _is_allocation(event)]
    events.sort(key=lambda event: event.start_time_ns)
    return highest((event.extra_fields.ptr, event.extra_fields.alloc_size) for event in events)


def highest(changes: Iterable[tuple[int, int]]) -> int:
    """The highest sum of the blocks alive at once.

    Args:
        changes: (address, bytes) in order of time, bytes being negative where the block is released.
    """
    alive: dict[int, int] = {}
    now = peak = 0
    for address, size in changes:
        if size > 0:
            alive[address] = size
            now += size
            peak = max(peak, now)
        else:
            # A block from before the call, or one whose size the profiler remembers wrongly from an earlier session.
            now -= alive.pop(address, 0)
    return peak


def _is_allocation(event: Any) -> bool:
    # By name: the class and the enum of the kinds are private and not in every build's stubs.
    return type(event.extra_fields).__name__ == "_ExtraFields_Allocation" and event.extra_fields.device.type == "cpu"


def _walk(events: Iterable[Any]) -> Iterator[Any]:
    """All events of a tree, parents first; a loop, because a model's tree can be deeper than Python's stack."""
    waiting = list(events)[::-1]
    while waiting:
        event = waiting.pop()
        yield event
        waiting.extend(reversed(event.children))


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Kineto from greeting on stderr when it starts, unless the user has chosen its log level."""
    name = "KINETO_LOG_LEVEL"
    if name in os.environ:
        yield
        return
    os.environ[name] = "99"
    try:
        yield
    finally:
        del os.environ[name]
