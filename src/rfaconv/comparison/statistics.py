"""What the scores of a comparison say, and how surely.

Every variant is trained with the baseline's seeds, so it is judged by its paired differences to the baseline: a
paired t-test, Holm-adjusted over the variants. Scores and differences are fractions of one, as in `RunResult`; a run
that diverged has no score. docs/statistics.md says why these methods.
No figure here is ever NaN or infinite: what cannot be known is None.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from scipy import stats

from rfaconv.profiling.numbers import points

CONFIDENCE = 0.95
ALPHA = 0.05
POWER = 0.8
MOST_SEEDS = 100
"""`seeds_needed` looks no further than this."""

# Scores nearer than this are one score: some metrics are computed in float32, whose noise is no spread.
_SAME = 1e-6

Verdict: TypeAlias = Literal["baseline", "better", "worse", "within noise", "one seed", "diverged", "not compared"]


@dataclass(frozen=True)
class Interval:
    """A mean and its 95 % t-interval; no bounds where nothing shows the spread (one value, or all the same)."""

    mean: float
    low: float | None
    high: float | None

    @property
    def half_width(self) -> float | None:
        """What stands behind the ±; None without bounds, or where one was clipped and ± would go beyond it."""
        if self.low is None or self.high is None or not math.isclose(self.mean - self.low, self.high - self.mean):
            return None
        return (self.high - self.low) / 2

    def __str__(self) -> str:
        """What stands behind the mean, in points: "±0.25", or "0.00 to 91.20" where it was clipped; "" if unknown."""
        if self.half_width is not None:
            return f"±{points(self.half_width, sign=False)}"
        if self.low is None or self.high is None:
            return ""
        return f"{points(self.low, sign=False)} to {points(self.high, sign=False)}"


@dataclass(frozen=True)
class Difference(Interval):
    """A variant's scores minus the baseline's, seed by seed: their mean, its interval, and a two-sided p-value."""

    p: float | None
    per_seed: tuple[float, ...]


@dataclass(frozen=True)
class Row:
    """One convolution's line of the table. The baseline has neither a difference nor a p-value.

    `interval` is None if every run diverged, `difference` also if no seed finished with both it and the baseline.
    """

    conv: str
    finished: int
    """How many of its seeds have a score."""
    diverged: int
    interval: Interval | None
    difference: Difference | None
    adjusted_p: float | None
    verdict: Verdict

    @property
    def seeds(self) -> str:
        """ "2 of 3 seeds; 1 diverged"; "" if none did."""
        if not self.diverged:
            return ""
        return f"{self.finished} of {self.finished + self.diverged} seeds; {self.diverged} diverged"


def interval(scores: Sequence[float]) -> Interval:
    """The mean of `scores` (fractions, one a seed) and its 95 % t-interval, clipped to 0 and 1."""
    mean = float(np.mean(scores))
    if len(scores) < 2 or _all_the_same(scores):
        return Interval(mean, None, None)
    low, high = stats.t.interval(CONFIDENCE, len(scores) - 1, loc=mean, scale=stats.sem(scores))
    return Interval(mean, max(0.0, float(low)), min(1.0, float(high)))


def paired_difference(scores: Sequence[float], baseline_scores: Sequence[float]) -> Difference:
    """`scores` minus `baseline_scores`, which are in the same order of seeds.

    With one seed there is no p-value. Where every seed shows the same difference a t-test is not defined: its p-value
    is then that of the exact sign-flip test, 2 / 2^seeds (1 if the difference is none), and there is no interval.

    Raises:
        ValueError: the two have different lengths, or none.
    """
    if not scores or len(scores) != len(baseline_scores):
        raise ValueError(f"Paired scores must be as many: {len(scores)} and {len(baseline_scores)}.")
    per_seed = tuple(float(a) - float(b) for a, b in zip(scores, baseline_scores, strict=True))
    mean = float(np.mean(per_seed))
    if len(per_seed) == 1:
        return Difference(mean, None, None, None, per_seed)
    if _all_the_same(per_seed):
        p = 1.0 if abs(mean) <= _SAME else 2.0 ** (1 - len(per_seed))
        return Difference(mean, None, None, p, per_seed)
    test = stats.ttest_rel(scores, baseline_scores)
    bounds = test.confidence_interval(CONFIDENCE)
    return Difference(mean, max(-1.0, float(bounds.low)), min(1.0, float(bounds.high)), float(test.pvalue), per_seed)


def holm(p_values: Sequence[float]) -> list[float]:
    """`p_values` adjusted by Holm's step-down method, in their own order.

    Calling those below 0.05 different is wrong for any of them with a probability of at most 0.05.
    """
    adjusted = [0.0] * len(p_values)
    least = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        least = max(least, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = least
    return adjusted


def seeds_needed(per_seed: Sequence[float], alpha: float = ALPHA) -> int | None:
    """The fewest seeds with which a paired t-test would show a true difference like this one's in 80 % of cases.

    The mean and the spread of `per_seed` are taken for the true ones: with few seeds that is a rough guess.

    Args:
        per_seed: at least two differences, not all the same.
        alpha: the p-value the test must stay under.

    Returns:
        None if more than `MOST_SEEDS` would be needed.
    """
    effect = abs(float(np.mean(per_seed))) / float(np.std(per_seed, ddof=1))
    counts = range(2, MOST_SEEDS + 1)
    found = bisect_left(counts, POWER, key=lambda seeds: _power(effect, seeds, alpha))
    return counts[found] if found < len(counts) else None


def _power(effect: float, seeds: int, alpha: float) -> float:
    """The probability that a two-sided paired t-test shows an effect (mean by standard deviation) at level alpha.

    scipy.stats.nct gives the same, but takes seconds or fails to converge for the large effects of quiet runs.
    """
    threshold = stats.t.ppf(1 - alpha / 2, seeds - 1)
    # The mean over 1000 equally likely values of the observed spread, by the true one.
    likely = (np.arange(1000) + 0.5) / 1000
    spread = np.sqrt(stats.chi2.ppf(likely, seeds - 1) / (seeds - 1))
    shift = effect * np.sqrt(seeds)
    beyond = stats.norm.cdf(shift - threshold * spread) + stats.norm.cdf(-shift - threshold * spread)
    return float(np.mean(beyond))


def sampling_error(fraction: float, images: int) -> float:
    """Half the 95 % (Wilson) interval of a fraction of `images` that are each right or wrong."""
    found = stats.binomtest(round(fraction * images), images).proportion_ci(CONFIDENCE, method="wilson")
    return float(found.high - found.low) / 2


def summarise(
    scores: Mapping[str, Mapping[int, float]], baseline: str, seeds: int, higher_is_better: bool
) -> list[Row]:
    """One row per convolution, in the order of `scores`: its score by seed, for the seeds that did not diverge.

    Args:
        seeds: how many were run with each convolution.
    """
    differences = {}
    for conv, found in scores.items():
        pairs = [seed for seed in found if seed in scores[baseline]]
        if conv != baseline and pairs:
            base = scores[baseline]
            differences[conv] = paired_difference([found[seed] for seed in pairs], [base[seed] for seed in pairs])
    tested = {conv: difference.p for conv, difference in differences.items() if difference.p is not None}
    adjusted = dict(zip(tested, holm(list(tested.values())), strict=True))

    def verdict(conv: str) -> Verdict:
        if conv == baseline:
            return "baseline"
        if conv not in differences:
            return "not compared" if scores[conv] else "diverged"
        if conv not in adjusted:
            return "one seed"
        if adjusted[conv] >= ALPHA:
            return "within noise"
        return "better" if (differences[conv].mean > 0) == higher_is_better else "worse"

    return [
        Row(
            conv,
            len(found),
            seeds - len(found),
            interval(list(found.values())) if found else None,
            differences.get(conv),
            adjusted.get(conv),
            verdict(conv),
        )
        for conv, found in scores.items()
    ]


def _all_the_same(values: Sequence[float]) -> bool:
    return max(values) - min(values) <= _SAME
