"""The sentences a reader meets first: whether a variant helps, what it costs, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rfaconv.comparison.statistics import ALPHA, MOST_SEEDS, Difference, Row, Verdict, sampling_error, seeds_needed
from rfaconv.profiling.numbers import points, times

if TYPE_CHECKING:
    from rfaconv.comparison.results import Comparison

_ORDER: tuple[Verdict, ...] = ("better", "within noise", "worse", "one seed")
"""Of the rows with a difference."""


def conclusion(comparison: Comparison) -> list[str]:
    """Plain sentences, the most important first: one on the whole, one a variant, then how far to trust them."""
    compared = [row for row in comparison.rows if row.difference is not None]
    variants = sorted(compared, key=lambda row: _rank(row, comparison))
    sentences = [_variant(comparison, row, len(variants)) for row in variants]
    if len(variants) > 1:
        sentences.insert(0, _headline(comparison, variants))
    elif variants:
        sentences[0] = f"{_seeds(comparison)}: {sentences[0]}"
    elif len(comparison.convs) == 1:
        sentences.append(f"Only {comparison.baseline} was run: there is nothing to compare it to.")
    sentences += _diverged(comparison)
    if len(comparison.seeds) == 1:
        sentences.append(
            "One seed: no statement about chance is possible. Run at least 3 seeds before you choose by these figures."
        )
    elif len(variants) > 1:
        sentences.append(
            f"{len(variants)} variants were compared, and the more there are the likelier one looks good by luck: "
            f"the verdicts are on p-values that are Holm-adjusted for it (below {ALPHA} counts), the intervals are not."
        )
    return sentences + _on_the_images(comparison) + _busy(comparison)


def _diverged(comparison: Comparison) -> list[str]:
    """What diverged, and what therefore has no figure."""
    found = []
    for row in comparison.rows:
        if row.interval is None:
            all_of_it = f"all {row.diverged} seeds" if row.diverged > 1 else "its only seed"
            found.append(f"{row.conv} diverged with {all_of_it}: it has no figure. Lower the learning rate.")
        elif row.diverged:
            found.append(
                f"{row.conv} diverged with {row.diverged} of {len(comparison.seeds)} seeds: its figures are of the "
                "others alone, which flatters it."
            )
    for row in comparison.rows:
        if row.verdict == "not compared":
            found.append(f"{row.conv} cannot be compared: no seed finished with both it and {comparison.baseline}.")
    return found


def _busy(comparison: Comparison) -> list[str]:
    if not comparison.busy:
        return []
    reason = next(iter(comparison.busy.values()))
    return [
        f"The costs of {', '.join(comparison.busy)} were measured on a busy machine ({reason}) and are not to be "
        "trusted: run again with --measure-again when nothing else runs."
    ]


def _headline(comparison: Comparison, variants: Sequence[Row]) -> str:
    if all(row.verdict == "one seed" for row in variants):
        return f"{_seeds(comparison)}, {len(variants)} variants against {comparison.baseline}:"
    count = {verdict: sum(row.verdict == verdict for row in variants) for verdict in _ORDER}
    texts: list[tuple[Verdict, str]] = [
        ("better", "better"),
        ("worse", "worse"),
        ("within noise", "within noise of it"),
    ]
    found = [
        f"{count[verdict] or 'none'} {'are' if count[verdict] > 1 else 'is'} {text}"
        for verdict, text in texts
        if count[verdict] or verdict == "better"
    ]
    listed = ", ".join(found[:-1]) + f" and {found[-1]}" if len(found) > 1 else found[0]
    return f"{_seeds(comparison)}, {len(variants)} variants against {comparison.baseline}: {listed}."


def _variant(comparison: Comparison, row: Row, variants: int) -> str:
    assert row.difference is not None
    text = {
        "better": _significant,
        "worse": _significant,
        "within noise": _within_noise,
        "one seed": _one_seed,
    }[row.verdict](comparison, row, row.difference, variants)
    cost = comparison.costs.get(row.conv)
    if cost is None:
        return f"{text}."
    busy = " (measured on a busy machine)" if cost.busy else ""
    return f"{text}; it costs {times(cost.inference)} the inference time{busy}."


def _significant(comparison: Comparison, row: Row, difference: Difference, variants: int) -> str:
    size = points(difference.mean, sign=False)
    return (
        f"{row.conv} is {size} points {row.verdict} than {comparison.baseline} "
        f"({_interval(difference)}{_lower_is_better(comparison)})"
    )


def _within_noise(comparison: Comparison, row: Row, difference: Difference, variants: int) -> str:
    if difference.low is None:
        if difference.p == 1:
            return f"{row.conv} scored the same as {comparison.baseline} with every seed"
        return (
            f"The difference of {row.conv} is {points(difference.mean)} points with every seed, "
            f"but {len(difference.per_seed)} seeds{_among(variants)} are too few to rule out chance"
        )
    # The threshold of Holm's first step, so that a verdict would follow in this very comparison.
    needed = seeds_needed(difference.per_seed, ALPHA / variants)
    # An effect that has just been missed here needs more seeds than it was missed with, whatever the estimate says.
    seeds = f"more than {MOST_SEEDS}"
    if needed is not None:
        seeds = f"about {max(needed, len(difference.per_seed) + 1)}"
    return (
        f"The difference of {row.conv} is within noise ({points(difference.mean)} points, {_interval(difference)}"
        f"{_alone(row, variants)}{_lower_is_better(comparison)}): {seeds} seeds would be needed to see a difference "
        f"of that size{_among(variants)}"
    )


def _one_seed(comparison: Comparison, row: Row, difference: Difference, variants: int) -> str:
    return (
        f"{row.conv} scored {points(difference.mean)} points against {comparison.baseline}"
        f"{_lower_is_better(comparison)}"
    )


def _on_the_images(comparison: Comparison) -> list[str]:
    """How far a single figure can be trusted, given how many images it is counted on."""
    if not comparison.metric.counts_images or not comparison.test_size:
        return []
    # The baseline's where it has one; they differ by little.
    means = [row.interval.mean for row in comparison.rows if row.interval is not None]
    if not means:
        return []
    error = points(sampling_error(means[0], comparison.test_size), sign=False)
    spread, scope = "on top of the chance in training", ""
    if len(comparison.seeds) > 1:
        spread, scope = (
            "on top of the spread between seeds",
            "; what is said of chance holds for other seeds on these images",
        )
    return [
        f"Every figure is counted on {comparison.test_size:,} images: the sampling error of one figure is about "
        f"±{error} points (95 %), {spread}. All models saw the same images, so part of it cancels in the "
        f"differences{scope}."
    ]


def _interval(difference: Difference) -> str:
    if difference.low is None or difference.high is None:
        return f"the same with each of {len(difference.per_seed)} seeds"
    return f"95 % interval {points(difference.low)} to {points(difference.high)}"


def _alone(row: Row, variants: int) -> str:
    """Why an interval without zero in it is no verdict; "" where it has zero in it."""
    assert row.difference is not None
    if row.difference.p is None or row.difference.p >= ALPHA or row.adjusted_p is None:
        return ""
    return f" without zero, but p = {row.adjusted_p:.2g} once adjusted for {variants} variants"


def _lower_is_better(comparison: Comparison) -> str:
    return "" if comparison.metric.higher_is_better else f"; a lower {comparison.metric.label} is better"


def _among(variants: int) -> str:
    return f" among {variants} variants" if variants > 1 else ""


def _seeds(comparison: Comparison) -> str:
    count = len(comparison.seeds)
    return "One seed" if count == 1 else f"{count} seeds"


def _rank(row: Row, comparison: Comparison) -> tuple[int, float]:
    assert row.difference is not None
    gain = row.difference.mean if comparison.metric.higher_is_better else -row.difference.mean
    return _ORDER.index(row.verdict), -gain
