"""Other work is seen while times are measured."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from rfaconv.profiling import ModelCost, Ratio
from rfaconv.profiling.busy import Conditions, watching

ONE = Ratio(1, 1, 1)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/stat")
def test_another_process_is_seen() -> None:
    other = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        time.sleep(0.2)
        with watching() as watch:
            time.sleep(1.5)
    finally:
        other.kill()
        other.wait()
    found = watch.conditions
    assert found.other_cores is not None
    assert found.other_cores > 0.4
    assert found.load_before is not None
    assert found.load_after is not None


@pytest.mark.parametrize(
    ("ratio", "conditions", "words"),
    [
        (Ratio(1.2, 1.15, 1.25), Conditions(), ""),
        (Ratio(1.2, 1.0, 1.29), Conditions(8.0, 8.0, 1.0, 0.0), ""),
        (Ratio(1.2, 1.0, 1.31), Conditions(), "quartiles differ by 1.31x"),
        (ONE, Conditions(1.0, 2.0, 1.0, 0.26), "other processes kept 1.0 cores busy"),
    ],
)
def test_the_bounds(ratio: Ratio, conditions: Conditions, words: str) -> None:
    cost = ModelCost(1, 1, 1.0, ratio, 1.0, ONE, 1.0, ONE, conditions)
    assert words in cost.busy
    assert bool(cost.busy) == bool(words)
