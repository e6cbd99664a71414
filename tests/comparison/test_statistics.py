"""The statistics against scipy's own tests, textbook figures, simulation, and cases where no figure exists."""

from __future__ import annotations

import itertools
import math
from dataclasses import asdict, replace

import numpy as np
import pytest
from scipy import stats

from rfaconv.comparison.results import Comparison, Metric, ModelCost, Ratio, RunResult
from rfaconv.comparison.statistics import (
    _power,
    holm,
    interval,
    paired_difference,
    sampling_error,
    seeds_needed,
)
from rfaconv.errors import UserError

CONV = [0.880, 0.884, 0.882]
CLEARLY_BETTER = [0.900, 0.9045, 0.902]
NOISY = [0.879, 0.889, 0.880]


def compared(scores: dict[str, list[float]], higher_is_better: bool = True, test_size: int = 2000) -> Comparison:
    """A comparison with these scores; the first convolution is the baseline, the others cost twice as much."""
    one, two = Ratio(1.0, 1.0, 1.0), Ratio(2.0, 1.9, 2.1)
    convs = list(scores)
    seeds = range(len(scores[convs[0]]))
    return Comparison(
        task="classify",
        title="resnet8 on something",
        metric=Metric("top1", "top-1 accuracy" if higher_is_better else "top-1 error", higher_is_better),
        baseline=convs[0],
        convs=convs,
        seeds=list(seeds),
        runs=[
            RunResult(conv, seed, {"top1": found[seed]}, {}, 1.0) for conv, found in scores.items() for seed in seeds
        ],
        costs={conv: ModelCost(1000, 2000, *[1.0, one if conv == convs[0] else two] * 2, 10.0, one) for conv in convs},
        test_size=test_size,
        facts={},
    )


def sentences(*args: object, **kwargs: object) -> list[str]:
    return compared(*args, **kwargs).conclusion


def test_interval_is_the_textbook_s() -> None:
    # Mean 0.5, s = 0.2, n = 4; t(0.975, 3) = 3.182, so 0.5 ± 3.182 * 0.2 / 2.
    scores = [0.5 - math.sqrt(0.06), 0.5, 0.5, 0.5 + math.sqrt(0.06)]
    found = interval(scores)
    assert found.mean == pytest.approx(0.5)
    assert (found.low, found.high) == (pytest.approx(0.1818, abs=5e-5), pytest.approx(0.8182, abs=5e-5))
    assert found.half_width == pytest.approx(0.3182, abs=5e-5)


def test_interval_covers_the_truth_95_times_in_100() -> None:
    draws = np.random.default_rng(0).normal(0.9, 0.01, size=(2000, 3))
    covered = [found.low <= 0.9 <= found.high for found in map(interval, draws.tolist())]
    # Three standard errors of the share of 2000.
    assert abs(np.mean(covered) - 0.95) < 3 * math.sqrt(0.95 * 0.05 / 2000)


@pytest.mark.parametrize("scores", [[0.9], [0.9, 0.9, 0.9]], ids=["one seed", "no spread"])
def test_interval_without_a_spread_has_no_bounds(scores: list[float]) -> None:
    found = interval(scores)
    assert (found.mean, found.low, found.high, found.half_width) == (pytest.approx(0.9), None, None, None)


def test_paired_difference_is_scipy_s_paired_t_test() -> None:
    rng = np.random.default_rng(1)
    for seeds in (2, 3, 10):
        base = rng.normal(0.88, 0.01, seeds)
        scores = base + rng.normal(0.003, 0.002, seeds)
        found = paired_difference(scores.tolist(), base.tolist())
        # A paired test is a one-sample test of the differences.
        expected = stats.ttest_1samp(scores - base, 0)
        assert found.p == pytest.approx(expected.pvalue)
        assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval()))
        assert found.mean == pytest.approx(np.mean(scores) - np.mean(base))
        assert found.per_seed == pytest.approx(scores - base)


def test_pairing_uses_the_order_of_the_seeds() -> None:
    base = [0.80, 0.85, 0.90]
    paired = paired_difference([0.81, 0.861, 0.91], base)
    shuffled = paired_difference([0.91, 0.861, 0.81], base)
    assert paired.p is not None
    assert shuffled.p is not None
    assert paired.p < 0.01
    assert shuffled.p > 0.5


@pytest.mark.parametrize(
    ("shift", "seeds", "p"), [(0.0, 3, 1.0), (0.005, 2, 0.5), (0.005, 3, 0.25), (-0.005, 6, 1 / 32)]
)
def test_equal_differences_get_the_sign_flip_test(shift: float, seeds: int, p: float) -> None:
    base = [0.8 + 0.01 * seed for seed in range(seeds)]
    found = paired_difference([score + shift for score in base], base)
    assert (found.low, found.high) == (None, None)
    assert found.mean == pytest.approx(shift)
    # The exact test by counting: how many of all sign flips give a mean at least as large?
    flips = [np.mean(signs) for signs in itertools.product([-shift, shift], repeat=seeds)]
    assert found.p == p == pytest.approx(np.mean([abs(mean) >= abs(shift) - 1e-12 for mean in flips]))


def test_noise_of_float32_is_no_spread() -> None:
    base = np.array([0.871, 0.884, 0.893], dtype=np.float32)
    found = paired_difference((base + np.float32(0.005)).tolist(), base.tolist())
    assert found.p == 0.25


def test_one_seed_has_no_p() -> None:
    found = paired_difference([0.9], [0.88])
    assert (found.low, found.high, found.p) == (None, None, None)


@pytest.mark.parametrize(("scores", "base"), [([], []), ([0.1], [0.1, 0.2])])
def test_unpaired_scores_are_refused(scores: list[float], base: list[float]) -> None:
    with pytest.raises(ValueError, match="as many"):
        paired_difference(scores, base)


def test_holm_by_hand() -> None:
    # Sorted 0.005 0.01 0.03 0.04 times 4 3 2 1 = 0.02 0.03 0.06 0.04; none may be below the one before it.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([0.04]) == [0.04]
    assert holm([]) == []


def test_holm_keeps_the_family_s_error() -> None:
    """Six variants that are all like the baseline: at most one comparison in 20 may call any of them different."""
    rng = np.random.default_rng(2)
    p_values = stats.ttest_1samp(rng.normal(size=(2000, 6, 3)), 0, axis=2).pvalue
    wrong = np.mean([min(holm(row)) < 0.05 for row in p_values.tolist()])
    assert wrong < 0.05 + 3 * math.sqrt(0.05 * 0.95 / 2000)


def test_seeds_needed_gives_the_power_it_promises() -> None:
    # Mean 1 and standard deviation 1: the well-known n = 10 for 80 % power.
    per_seed = [0.0, 1.0, 2.0]
    needed = seeds_needed(per_seed)
    assert needed == 10
    draws = np.random.default_rng(3).normal(1, 1, size=(4000, needed))
    power = np.mean(stats.ttest_1samp(draws, 0, axis=1).pvalue < 0.05)
    assert 0.8 - 0.02 < power < 0.85


@pytest.mark.parametrize(
    ("effect", "seeds", "alpha"), [(0.5, 3, 0.05), (1.0, 10, 0.05), (2.0, 5, 0.05 / 7), (0.2, 100, 0.05)]
)
def test_power_is_that_of_the_noncentral_t(effect: float, seeds: int, alpha: float) -> None:
    threshold, shift = stats.t.ppf(1 - alpha / 2, seeds - 1), effect * math.sqrt(seeds)
    expected = stats.nct.sf(threshold, seeds - 1, shift) + stats.nct.cdf(-threshold, seeds - 1, shift)
    assert _power(effect, seeds, alpha) == pytest.approx(expected, abs=1e-3)


def test_seeds_needed_at_the_ends() -> None:
    assert seeds_needed([-1.0, 1.0]) is None
    assert seeds_needed([0.5, 0.5001]) == 2
    assert seeds_needed([0.0, 1.0, 2.0], alpha=0.005) > seeds_needed([0.0, 1.0, 2.0])


@pytest.mark.parametrize(("fraction", "images"), [(0.88, 2000), (1.0, 50), (0.0, 50), (0.5, 1)])
def test_sampling_error_is_never_none_nor_more_than_all(fraction: float, images: int) -> None:
    assert 0 < sampling_error(fraction, images) < 0.5
    if images == 2000:
        assert sampling_error(fraction, images) == pytest.approx(1.96 * math.sqrt(0.88 * 0.12 / 2000), rel=0.01)


@pytest.mark.parametrize("higher_is_better", [True, False])
def test_verdicts_know_the_better_side(higher_is_better: bool) -> None:
    rows = compared({"conv": CONV, "rfa": CLEARLY_BETTER, "ca": NOISY}, higher_is_better).rows
    assert [row.conv for row in rows] == ["conv", "rfa", "ca"]
    assert [row.verdict for row in rows] == ["baseline", "better" if higher_is_better else "worse", "within noise"]
    assert rows[0].difference is None
    assert rows[0].adjusted_p is None
    assert [rows[1].adjusted_p, rows[2].adjusted_p] == holm([rows[1].difference.p, rows[2].difference.p])


def test_a_verdict_needs_the_adjusted_p() -> None:
    """What is significant alone is not among many, and the sentence says why although the interval has no zero."""
    scores = {"conv": CONV, "rf": [base + gain for base, gain in zip(CONV, (0.0055, 0.0065, 0.009), strict=True)]}
    assert [row.verdict for row in compared(scores).rows] == ["baseline", "better"]
    many = {**scores, **{f"x{i}": NOISY for i in range(5)}}
    comparison = compared(many)
    rows = comparison.rows
    assert rows[1].verdict == "within noise"
    assert rows[1].difference is not None
    assert rows[1].difference.p is not None
    assert rows[1].difference.p < 0.05 < rows[1].adjusted_p
    (sentence,) = [text for text in comparison.conclusion if "of rf " in text]
    assert "without zero, but p = " in sentence


@pytest.mark.parametrize("seeds", [1, 2, 3, 10])
@pytest.mark.parametrize("variants", [0, 1, 7])
@pytest.mark.parametrize("higher_is_better", [True, False])
@pytest.mark.parametrize("spread", [0.0, 1e-3])
def test_nothing_is_ever_infinite(seeds: int, variants: int, higher_is_better: bool, spread: float) -> None:
    rng = np.random.default_rng(4)
    scores = {f"c{i}": (0.9 + 0.002 * i + spread * rng.normal(size=seeds)).tolist() for i in range(variants + 1)}
    comparison = compared(scores, higher_is_better)
    rows = comparison.rows
    for row in rows:
        flat = [*asdict(row.interval).values(), row.adjusted_p]
        if row.difference is not None:
            flat += [row.difference.mean, row.difference.low, row.difference.high, row.difference.p]
            assert (row.verdict == "one seed") == (seeds == 1)
        assert all(value is None or math.isfinite(value) for value in flat)
    text = " ".join(comparison.conclusion)
    assert not any(word in text for word in ("nan", "inf ", "None"))


def test_sentences_of_a_clear_case() -> None:
    found = sentences({"conv": CONV, "rfa": CLEARLY_BETTER})
    assert found[0] == (
        "3 seeds: rfa is 2.02 points better than conv (95 % interval +1.94 to +2.09); "
        "it costs 2.00x the inference time."
    )
    assert found[1].startswith("Every figure is counted on 2,000 images")
    assert "±1.41 points" in found[1]
    assert len(found) == 2


def test_sentences_of_noise_say_how_many_seeds() -> None:
    (first, *_) = sentences({"conv": CONV, "ca": NOISY})
    assert first.startswith("3 seeds: The difference of ca is within noise (+0.07 points, 95 % interval -0.")
    assert "more than 100 seeds would be needed" in first


def test_more_variants_need_more_seeds() -> None:
    """The number is for a verdict in this very comparison, whose p-values are adjusted."""
    scores = {"conv": CONV, "ca": [base + gain for base, gain in zip(CONV, (0.001, 0.003, 0.004), strict=True)]}
    alone, among = (" ".join(sentences({**scores, **{f"x{i}": NOISY for i in range(others)}})) for others in (0, 5))
    per_seed = [0.001, 0.003, 0.004]
    assert f"about {seeds_needed(per_seed)} seeds would" in alone
    assert f"about {seeds_needed(per_seed, 0.05 / 6)} seeds would" in among
    assert seeds_needed(per_seed) != seeds_needed(per_seed, 0.05 / 6)


def test_the_seeds_asked_for_are_more_than_those_run() -> None:
    rng = np.random.default_rng(5)
    for _ in range(100):
        scores = (np.array(CONV) + rng.normal(0.003, 0.002, 3)).tolist()
        found = " ".join(sentences({"conv": CONV, "ca": scores, "cam": NOISY}))
        for words in found.split("about ")[1:]:
            count = words.split()[0]
            assert not count.isdigit() or int(count) > 3


def test_sentences_put_the_best_first_and_count() -> None:
    worse = [score - 0.02 + 0.001 * i for i, score in enumerate(CONV)]
    found = sentences({"conv": CONV, "cam": worse, "ca": NOISY, "rfa": CLEARLY_BETTER})
    assert found[0] == "3 seeds, 3 variants against conv: 1 is better, 1 is worse and 1 is within noise of it."
    assert [text.split(" is ")[0] for text in found[1:4]] == ["rfa", "The difference of ca", "cam"]
    assert "cam is 1.90 points worse than conv" in found[3]
    assert any("Holm" in text for text in found)


def test_sentences_when_lower_is_better() -> None:
    found = sentences({"conv": [1 - s for s in CONV], "rfa": [1 - s for s in CLEARLY_BETTER]}, False)
    assert found[0].startswith(
        "3 seeds: rfa is 2.02 points better than conv (95 % interval -2.09 to -1.94; a lower top-1 error is better)"
    )


def test_sentences_of_one_seed_claim_nothing() -> None:
    found = sentences({"conv": [0.88], "rfa": [0.90], "ca": [0.87]})
    assert any(text.startswith("One seed: no statement about chance is possible") for text in found)
    assert not any(word in " ".join(found) for word in ("better", "worse", "noise", "interval", "Holm"))


def test_sentences_of_equal_differences() -> None:
    (same, *_) = sentences({"conv": CONV, "ca": CONV})
    assert "ca scored the same as conv with every seed" in same
    (shifted, *_) = sentences({"conv": CONV, "ca": [score + 0.005 for score in CONV]})
    assert "+0.50 points with every seed, but 3 seeds are too few" in shifted


def test_the_images_are_not_mentioned_where_the_metric_counts_none() -> None:
    comparison = compared({"conv": CONV, "rfa": CLEARLY_BETTER})
    comparison = replace(comparison, metric=replace(comparison.metric, counts_images=False))
    assert not any("images" in text for text in comparison.conclusion)


def test_a_cost_that_is_missing_is_left_out() -> None:
    comparison = replace(compared({"conv": CONV, "rfa": CLEARLY_BETTER}), costs={})
    assert "costs" not in comparison.conclusion[0]


def with_diverged(scores: dict[str, list[float]], *diverged: tuple[str, int]) -> Comparison:
    """`compared`, but these (conv, seed) ended as nan in epoch 2, with whatever score argmax of nan gives."""
    comparison = compared(scores)
    runs = [
        replace(run, diverged=2, metrics={"top1": 0.3333, "loss": math.nan}, curves={"train_loss": [1.0, math.nan]})
        if (run.conv, run.seed) in diverged
        else run
        for run in comparison.runs
    ]
    return replace(comparison, runs=runs)


def test_a_diverged_run_is_counted_and_never_averaged_in() -> None:
    scores = {"conv": [0.88, 0.884, 0.882, 0.881], "rfa": [0.9, 0.9045, 0.902, 0.903]}
    comparison = with_diverged(scores, ("conv", 0), ("rfa", 1))
    base, variant = comparison.rows
    assert (base.finished, base.diverged, base.seeds) == (3, 1, "3 of 4 seeds; 1 diverged")
    assert base.interval == interval([0.884, 0.882, 0.881])
    assert variant.interval == interval([0.9, 0.902, 0.903])
    # Paired over the seeds where both finished.
    assert variant.difference == paired_difference([0.902, 0.903], [0.882, 0.881])
    text = " ".join(comparison.conclusion)
    assert "rfa diverged with 1 of 4 seeds" in text
    assert "conv diverged with 1 of 4 seeds" in text
    assert comparison.failed == []


@pytest.mark.parametrize("who", ["conv", "rfa"])
def test_what_always_diverged_has_no_figure(who: str) -> None:
    comparison = with_diverged({"conv": CONV, "rfa": CLEARLY_BETTER, "ca": NOISY}, *((who, seed) for seed in range(3)))
    rows = {row.conv: row for row in comparison.rows}
    assert (rows[who].interval, rows[who].difference, rows[who].adjusted_p) == (None, None, None)
    assert comparison.failed == [who]
    assert f"{who} diverged with all 3 seeds: it has no figure" in " ".join(comparison.conclusion)
    if who == "conv":
        assert [row.verdict for row in comparison.rows] == ["baseline", "not compared", "not compared"]
    else:
        assert rows["rfa"].verdict == "diverged"
        assert rows["ca"].difference is not None
    assert "nan" not in " ".join(comparison.conclusion)


def test_a_score_that_is_nan_without_divergence_is_the_data_s() -> None:
    comparison = compared({"conv": CONV, "rfa": [0.9, math.nan, 0.9]})
    with pytest.raises(UserError, match=r"'rfa' with seed 1 has no figure .* anything to be counted"):
        _ = comparison.rows
    with pytest.raises(UserError, match="'rfa' are not complete"):
        _ = replace(comparison, runs=comparison.runs[:3]).rows


@pytest.mark.parametrize("scores", [[0.5, 1.0], [0.99, 1.0, 1.0], [0.0, 0.01, 0.2]])
def test_intervals_of_shares_stay_shares(scores: list[float]) -> None:
    found = interval(scores)
    assert found.low is not None
    assert found.high is not None
    assert 0 <= found.low <= found.mean <= found.high <= 1
    assert found.half_width is None
    assert "±" not in str(found)
    difference = paired_difference(scores, [1 - score for score in scores])
    assert -1 <= difference.low <= difference.high <= 1


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_intervals_cover_under_seeds_and_images(seeds: int) -> None:
    """A quick version of benchmarks/coverage.py, of the function itself: images drawn for each seed, and near 100 %."""
    rng = np.random.default_rng(seeds)
    tries, accuracy, images = 4000, 0.95, 500
    chance = accuracy + 0.01 * rng.uniform(-1, 1, size=(tries, seeds))
    scores = rng.binomial(images, chance) / images
    found = [interval(row) for row in scores.tolist() if np.ptp(row) > 0]
    assert 0.93 <= np.mean([one.low <= accuracy <= one.high for one in found]) <= 0.97


def test_everything_is_computed_once() -> None:
    comparison = compared({"conv": CONV, "rfa": CLEARLY_BETTER})
    assert comparison.rows is comparison.rows
    assert comparison.conclusion is comparison.conclusion


def test_a_busy_machine_is_said() -> None:
    comparison = compared({"conv": CONV, "rfa": CLEARLY_BETTER})
    assert not comparison.busy
    costs = {**comparison.costs, "rfa": replace(comparison.costs["rfa"], inference=Ratio(0.84, 0.6, 1.9))}
    found = replace(comparison, costs=costs)
    assert list(found.busy) == ["rfa"]
    assert "0.84x the inference time (measured on a busy machine)" in found.conclusion[0]
    assert "--measure-again" in found.conclusion[-1]
