"""Times that can be compared: everything runs in alternation in one process, so that a slow moment hits all alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Ratio:
    """A cost relative to the baseline, measured in alternation: median and quartiles of the paired ratios."""

    median: float
    low: float
    high: float


def alternate(
    functions: Mapping[str, Callable[[], object]],
    *,
    rounds: int,
    warmup: int = 2,
    device: torch.device | str = "cpu",
    after_round: Callable[[int], None] | None = None,
) -> dict[str, list[float]]:
    """Time the functions in turn; every round runs each of them once.

    The order changes from round to round so that, over 2n rounds of n functions, each follows every other one equally
    often: what one leaves in the caches, or the heat it makes, is not always the same neighbour's burden.

    Args:
        functions: what to time, by name.
        rounds: how many calls of each are timed.
        warmup: how many calls of each come first, untimed.
        device: where the functions compute; its queue is empty before a call, and a call ends when it is empty again.
        after_round: called with the number of timed rounds done, 1 to `rounds`, outside the timed part.

    Returns:
        The seconds of each call by name, in the order of the rounds: the i-th times of two names are a pair.

    Raises:
        ValueError: rounds is less than 1 or warmup less than 0.
    """
    if rounds < 1 or warmup < 0:
        raise ValueError(f"rounds must be at least 1 and warmup at least 0, got rounds={rounds}, warmup={warmup}")
    device = torch.device(device)
    names = list(functions)
    times: dict[str, list[float]] = {name: [] for name in names}
    for index in range(-warmup, rounds):
        for position in _order(len(names), index):
            seconds = _seconds(functions[names[position]], device)
            if index >= 0:
                times[names[position]].append(seconds)
        if index >= 0 and after_round is not None:
            after_round(index + 1)
    return times


def ratio(times: Sequence[float], baseline_times: Sequence[float]) -> Ratio:
    """The median and quartiles of times[i] / baseline_times[i], the calls of one round being a pair.

    Raises:
        ValueError: the two are not of one length, or empty.
    """
    if not times or len(times) != len(baseline_times):
        raise ValueError(f"Paired times must be of one length, at least 1: got {len(times)} and {len(baseline_times)}")
    pairs = [time / base for time, base in zip(times, baseline_times, strict=True)]
    if len(pairs) == 1:
        return Ratio(pairs[0], pairs[0], pairs[0])
    low, median, high = statistics.quantiles(pairs, n=4, method="inclusive")
    return Ratio(median, low, high)


def _order(count: int, index: int) -> list[int]:
    """Round `index` of Williams's design over `count` functions: 0, 1, n-1, 2, n-2, ... shifted, and every other time
    backwards.
    """
    zigzag = [(position + 1) // 2 if position % 2 else -(position // 2) for position in range(count)]
    order = [(place + index // 2) % count for place in zigzag]
    return order[::-1] if index % 2 else order


def _seconds(function: Callable[[], object], device: torch.device) -> float:
    """The duration of one call. On CUDA by events: the host's wait for the device does not count."""
    if device.type == "cpu":
        start = time.perf_counter()
        function()
        return time.perf_counter() - start
    if device.type == "cuda":
        with torch.cuda.device(device):
            begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            torch.cuda.synchronize()
            begin.record()
            function()
            end.record()
            end.synchronize()
        return begin.elapsed_time(end) / 1000
    torch.accelerator.synchronize(device)
    start = time.perf_counter()
    function()
    torch.accelerator.synchronize(device)
    return time.perf_counter() - start
