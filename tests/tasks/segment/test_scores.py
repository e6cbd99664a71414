"""Figures against counts by hand, and the loss against its definition."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from rfaconv.data.segmentation import IGNORE
from rfaconv.tasks.segment.loss import SegmentationLoss
from rfaconv.tasks.segment.scores import Scores


def by_hand(found: np.ndarray, truth: np.ndarray, classes: int) -> tuple[float, float, list[float]]:
    """(mean IoU, pixel accuracy, IoU a class) from a confusion matrix counted pixel by pixel."""
    matrix = np.zeros((classes, classes), np.int64)
    for answer, right in zip(found.ravel().tolist(), truth.ravel().tolist(), strict=True):
        if right != IGNORE:
            matrix[right, answer] += 1
    ious = []
    for number in range(classes):
        union = matrix[number].sum() + matrix[:, number].sum() - matrix[number, number]
        ious.append(matrix[number, number] / union if union else math.nan)
    return float(np.nanmean(ious)), matrix.trace() / matrix.sum(), ious


@pytest.mark.parametrize("seed", range(4))
def test_figures_are_those_counted_by_hand(seed: int) -> None:
    dice = np.random.default_rng(seed)
    classes = 6
    truth = dice.integers(0, classes - 1, (5, 9, 7))  # class 5 is nowhere in the truth
    truth[dice.random(truth.shape) < 0.2] = IGNORE
    found = np.where(
        dice.random(truth.shape) < 0.6, np.where(truth == IGNORE, 0, truth), dice.integers(0, 5, truth.shape)
    )
    if seed % 2:
        found[0, 0, 0] = 5  # but in the answers
        truth[0, 0, 0] = 1
    scores = Scores(classes)
    for first in range(0, 5, 2):
        scores.update(torch.from_numpy(found[first : first + 2]), torch.from_numpy(truth[first : first + 2]))
    figures, ious = scores.compute()
    miou, accuracy, wanted = by_hand(found, truth, classes)
    assert figures["miou"] == pytest.approx(miou, abs=1e-6)
    assert figures["pixel_accuracy"] == pytest.approx(accuracy, abs=1e-6)
    assert ious == pytest.approx(wanted, abs=1e-6, nan_ok=True)
    assert math.isnan(ious[5]) == (seed % 2 == 0)


def test_an_image_of_which_nothing_counts() -> None:
    scores = Scores(3)
    scores.update(torch.zeros(1, 4, 4, dtype=torch.long), torch.full((1, 4, 4), IGNORE))
    scores.update(torch.ones(1, 4, 4, dtype=torch.long), torch.ones(1, 4, 4, dtype=torch.long))
    assert scores.compute()[0] == {"miou": 1.0, "pixel_accuracy": 1.0}


def test_the_loss_is_its_definition() -> None:
    logits = torch.randn(3, 4, 5, 6)
    masks = torch.randint(0, 3, (3, 5, 6))
    masks[:, 0] = IGNORE
    shares = logits.softmax(1)
    entropy, dices = [], []
    for image in range(3):
        counts = masks[image] != IGNORE
        for number in range(4):
            true = (masks[image] == number) & counts
            if true.any():
                entropy.append(-shares[image, number][true].log().sum())
                both = shares[image, number][true].sum()
                dices.append(1 - 2 * both / (shares[image, number][counts].sum() + true.sum()))
    wanted = sum(entropy) / (masks != IGNORE).sum()
    torch.testing.assert_close(SegmentationLoss()(logits, masks), wanted)
    torch.testing.assert_close(SegmentationLoss(0.7)(logits, masks), wanted + 0.7 * torch.stack(dices).mean())


def test_the_loss_of_halves_is_that_of_the_whole() -> None:
    """Each process divides by the counts of all: the mean of their losses is the loss of the whole batch."""
    logits = torch.randn(4, 3, 6, 6)
    masks = torch.randint(0, 3, (4, 6, 6))
    masks[2:, :4] = IGNORE
    masks[3] = 1
    loss = SegmentationLoss(0.5)
    seen: list[list[torch.Tensor]] = []
    for part in (slice(0, 2), slice(2, 4)):
        seen.append([])
        loss(logits[part], masks[part], lambda count: seen[-1].append(count) or count)
    means = [torch.stack(counts).mean() for counts in zip(*seen, strict=True)]
    halves = []
    for part in (slice(0, 2), slice(2, 4)):
        given = iter(means)
        halves.append(loss(logits[part], masks[part], lambda count, given=given: next(given)))
    torch.testing.assert_close(torch.stack(halves).mean(), loss(logits, masks))


def test_nothing_that_counts_is_no_loss_and_no_nan() -> None:
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    loss = SegmentationLoss(1.0)(logits, torch.full((2, 4, 4), IGNORE))
    loss.backward()
    assert loss.item() == 0
    assert torch.isfinite(logits.grad).all()
