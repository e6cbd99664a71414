"""How often the 95 % intervals of a comparison hold the truth, by simulation (docs/statistics.md has the table).

Every image has a difficulty and every seed an effect, both normal on the logit scale; whether a trained model is right
on an image is then a coin of that probability. The images are the same for all seeds, as in a comparison, so the truth
is the mean score over all seeds on these images. Differences are of two models on the same images, with seed effects
that correlate.

    python benchmarks/coverage.py [--tries 4000]
"""

from __future__ import annotations

import argparse
import itertools

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.special import expit

Array = NDArray[np.float64]
METHODS = ("t", "clipped t", "logit t")
ACCURACIES, IMAGES, SPREADS, SEEDS = (0.6, 0.9, 0.98), (200, 2000), (0.02, 0.1, 0.3), (3, 5, 10)
DIFFICULTY = 2.0
"""Standard deviation of the images on the logit scale: most are plain to every seed, some are hard for all."""


def draw_scores(
    rng: np.random.Generator, tries: int, accuracy: float, images: int, spread: float, seeds: int, gain: float = 0.0
) -> tuple[Array, Array]:
    """Scores [tries, seeds] of a model that is `gain` better on the logit scale, and the truth [tries]."""
    # The intercept that gives the accuracy over all images and seeds; a logistic of normals has no closed form.
    total = np.hypot(DIFFICULTY, spread)
    nodes, weights = np.polynomial.hermite_e.hermegauss(20)
    weights = weights / weights.sum()
    grid = np.linspace(-12, 12, 2001)
    centre = np.interp(accuracy, (expit(grid[:, None] + total * nodes) * weights).sum(1), grid) + gain
    few, few_weights = np.polynomial.hermite_e.hermegauss(6)  # the spread of the seeds is small: six are plenty
    few_weights = few_weights / few_weights.sum()
    scores, truth = np.empty((tries, seeds)), np.empty(tries)
    for index in range(tries):
        difficulty = centre + DIFFICULTY * rng.normal(size=images)
        effects = spread * rng.normal(size=(seeds, 1))
        scores[index] = (rng.random((seeds, images)) < expit(difficulty + effects)).mean(1)
        truth[index] = (expit(difficulty[:, None] + spread * few) * few_weights).sum(1).mean()
    return scores, truth


def covers(method: str, scores: Array, truth: Array) -> tuple[float, float]:
    """The share of intervals that hold the truth, among the tries whose seeds differ, and the share of the others."""
    seeds = scores.shape[1]
    differ = np.ptp(scores, axis=1) > 1e-6
    scores, truth = scores[differ], truth[differ]
    mean = scores.mean(1)
    half = stats.t.ppf(0.975, seeds - 1) * stats.sem(scores, axis=1)
    if method == "logit t":
        centre, half = np.log(mean / (1 - mean)), half / (mean * (1 - mean))
        low, high = expit(centre - half), expit(centre + half)
    else:
        low, high = mean - half, mean + half
        if method == "clipped t":
            low, high = low.clip(0, 1), high.clip(0, 1)
    return float(((low <= truth) & (truth <= high)).mean()), float(1 - differ.mean())


def paired_coverage(rng: np.random.Generator, tries: int, accuracy: float, images: int, seeds: int) -> float:
    """Coverage of the paired t-interval of the difference of two models, one 0.2 better on the logit scale."""
    hits = 0
    nodes, weights = np.polynomial.hermite_e.hermegauss(6)
    weights, spread = weights / weights.sum(), 0.1
    for _ in range(tries):
        difficulty = np.log(accuracy / (1 - accuracy)) + DIFFICULTY * rng.normal(size=images)
        shared = rng.normal(size=(seeds, 1))
        scores, truth = [], []
        for gain in (0.0, 0.2):
            effects = spread * (np.sqrt(0.5) * shared + np.sqrt(0.5) * rng.normal(size=(seeds, 1)))
            scores.append((rng.random((seeds, images)) < expit(difficulty + gain + effects)).mean(1))
            truth.append((expit(difficulty[:, None] + gain + spread * nodes) * weights).sum(1).mean())
        difference = scores[1] - scores[0]
        half = stats.t.ppf(0.975, seeds - 1) * stats.sem(difference)
        hits += abs(difference.mean() - (truth[1] - truth[0])) <= half + 1e-12
    return hits / tries


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tries", type=int, default=4000)
    tries = parser.parse_args().tries
    rng = np.random.default_rng(0)
    print(f"| accuracy | images | seed spread | seeds | {' | '.join(METHODS)} | no interval |")
    print("|---:|---:|---:|---:|" + "---:|" * (len(METHODS) + 1))
    for accuracy, images, spread, seeds in itertools.product(ACCURACIES, IMAGES, SPREADS, SEEDS):
        scores, truth = draw_scores(rng, tries, accuracy, images, spread, seeds)
        found = [covers(method, scores, truth) for method in METHODS]
        shares = " | ".join(f"{share:.1%}" for share, _ in found)
        print(f"| {accuracy} | {images} | {spread} | {seeds} | {shares} | {found[0][1]:.1%} |", flush=True)
    print("\n| accuracy | images | seeds | paired t |\n|---:|---:|---:|---:|")
    for accuracy, images, seeds in itertools.product(ACCURACIES, IMAGES, SEEDS):
        share = paired_coverage(rng, tries, accuracy, images, seeds)
        print(f"| {accuracy} | {images} | {seeds} | {share:.1%} |", flush=True)


if __name__ == "__main__":
    main()
