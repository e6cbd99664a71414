"""The order of the calls and the arithmetic of the ratios; no test looks at how fast anything is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from itertools import pairwise

import pytest

from rfaconv.profiling import Ratio, alternate, ratio, timing


def recorded(names: str, rounds: int, warmup: int = 0) -> list[str]:
    """What was called, round by round."""
    calls: list[str] = []
    alternate({name: partial(calls.append, name) for name in names}, rounds=rounds, warmup=warmup, device="cpu")
    return ["".join(calls[start : start + len(names)]) for start in range(0, len(calls), len(names))]


@pytest.mark.parametrize("names", ["a", "ab", "abc", "abcd", "abcde", "abcdefgh"])
def test_every_round_runs_everyone_once_and_everyone_follows_everyone_equally_often(names: str) -> None:
    rounds = recorded(names, 2 * len(names))
    assert all(sorted(order) == sorted(names) for order in rounds)
    pairs = Counter(pair for order in rounds for pair in pairwise(order))
    assert len(pairs) == len(names) * (len(names) - 1)
    assert all(times == 2 for times in pairs.values())
    # Nor is anyone always first, when what ran before the round may still be felt.
    assert Counter(order[0] for order in rounds) == dict.fromkeys(names, 2)


def test_warmup_is_not_timed() -> None:
    assert len(recorded("ab", rounds=3, warmup=2)) == 5
    times = alternate({"a": int, "b": int}, rounds=3, warmup=2, device="cpu")
    assert {name: len(seconds) for name, seconds in times.items()} == {"a": 3, "b": 3}


def test_times_are_seconds_in_the_order_of_the_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]

    def taking(*durations: float) -> Callable[[], None]:
        left = iter(durations)

        def call() -> None:
            now[0] += next(left)

        return call

    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])
    times = alternate({"a": taking(9, 1, 2, 4), "b": taking(9, 2, 6, 4)}, rounds=3, warmup=1, device="cpu")
    assert times == {"a": [1, 2, 4], "b": [2, 6, 4]}
    assert ratio(times["b"], times["a"]) == Ratio(2, 1.5, 2.5)


def test_progress_is_told_after_each_timed_round() -> None:
    told: list[int] = []
    alternate({"a": int}, rounds=3, warmup=2, device="cpu", after_round=told.append)
    assert told == [1, 2, 3]


def test_ratios_are_of_pairs() -> None:
    # A slow moment in round two hits both: the ratio does not see it.
    assert ratio([2, 200, 2, 2, 2], [1, 100, 1, 1, 1]) == Ratio(2, 2, 2)
    assert ratio([1, 2, 3, 4, 5], [1, 1, 1, 1, 1]) == Ratio(3, 2, 4)
    assert ratio([3], [2]) == Ratio(1.5, 1.5, 1.5)


@pytest.mark.parametrize(("times", "baseline"), [([], []), ([1.0], [1.0, 2.0])])
def test_times_that_are_no_pairs_are_refused(times: list[float], baseline: list[float]) -> None:
    with pytest.raises(ValueError, match="one length"):
        ratio(times, baseline)


def test_no_rounds_are_refused() -> None:
    with pytest.raises(ValueError, match="rounds=0"):
        alternate({"a": int}, rounds=0, device="cpu")
