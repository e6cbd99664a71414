"""Whether a machine was busy with other work while times were measured: such times are worth nothing."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import torch

MOST_SPREAD = 1.3
"""Quartiles of the paired ratios further apart than this factor mean that something else ran (docs/statistics.md)."""
MOST_CONTENTION = 0.25
"""Cores that other work and our threads together may lack."""


@dataclass(frozen=True)
class Conditions:
    """What else the machine did while times were measured; None where the system does not tell."""

    load_before: float | None = None
    """The load average over one minute; right after a training it is the training's own."""
    load_after: float | None = None
    other_cores: float | None = None
    """How many of the cores we may use other processes kept busy, on average (Linux)."""
    missing_cores: float | None = None
    """How many cores short other processes left us: other_cores + our threads - cores; below 0 there was room."""


class Watch:
    """Filled in at the end of `watching`."""

    conditions = Conditions()


@contextmanager
def watching() -> Iterator[Watch]:
    """Watch the machine during the block."""
    watch, load, busy, own, start = Watch(), _load(), _busy_seconds(), time.process_time(), time.perf_counter()
    yield watch
    now, elapsed = _busy_seconds(), time.perf_counter() - start
    other = missing = None
    # The kernel counts in hundredths of a second for each core: less than half a second says nothing.
    if busy is not None and now is not None and elapsed > 0.5:
        other = max(0.0, (now - busy - (time.process_time() - own)) / elapsed)
        missing = other + torch.get_num_threads() - len(os.sched_getaffinity(0))
    watch.conditions = Conditions(load, _load(), other, missing)


def _load() -> float | None:
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def _busy_seconds() -> float | None:
    """The time that the cores we may use have worked since the machine started, for anybody."""
    with suppress(OSError, ValueError, AttributeError):
        names = {f"cpu{index}" for index in os.sched_getaffinity(0)}
        lines = [line.split() for line in Path("/proc/stat").read_text().splitlines()]
        # user, nice, system, (idle, iowait), irq, softirq, steal
        ticks = [int(line[i]) for line in lines if line and line[0] in names for i in (1, 2, 3, 6, 7, 8)]
        return sum(ticks) / os.sysconf("SC_CLK_TCK") if ticks else None
    return None
