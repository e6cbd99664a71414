"""Average precision by COCO's definition: which detections are right, and what recall they reach at what precision.

Written from the definition (cocodataset.org/#detection-eval) and held against pycocotools in the tests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

THRESHOLDS = np.linspace(0.5, 0.95, 10)
"""Overlaps from which a detection may be right."""
RECALLS = np.linspace(0, 1, 101)
MOST_DETECTIONS = 100
"""Of a class and image, those with the highest confidence."""
SIZES = {"all": (0.0, 1e10), "small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}
"""Areas in pixels of what counts as small, medium and large."""


class Boxes(NamedTuple):
    """The true boxes of an image: corners [n, 4] in pixels, and class numbers [n]."""

    corners: Array
    classes: Array


class Detections(NamedTuple):
    """What a model found in an image: corners [n, 4] in pixels, confidences [n] and class numbers [n]."""

    corners: Array
    confidences: Array
    classes: Array


@dataclass(frozen=True)
class Scores:
    """What a detector reaches on a set of images; nan where there is no true box to be found.

    Attributes:
        metrics: map (mean over the overlaps 0.50 to 0.95), map50, map75, and map_small, map_medium, map_large.
        class_ap: [classes], map of each class.
        precision: [classes, 101], at the overlap 0.50 and each recall of `RECALLS`.
    """

    metrics: dict[str, float]
    class_ap: Array
    precision: Array


def score(truth: Sequence[Boxes], found: Sequence[Detections], classes: int) -> Scores:
    """The scores of `found` against `truth`, which are in the same order of images.

    Args:
        truth: no crowds among them; their areas are those of the boxes.
        found: in any order; beyond the 100 of highest confidence of a class and image none counts.
        classes: how many there are.
    """
    if len(truth) != len(found):
        raise ValueError(f"There are {len(truth)} images and detections for {len(found)}.")
    precision = {size: np.full((len(THRESHOLDS), len(RECALLS), classes), np.nan) for size in SIZES}
    for target in range(classes):
        pairs = [_of_class(boxes, detections, target) for boxes, detections in zip(truth, found, strict=True)]
        pairs = [pair for pair in pairs if len(pair[0]) or len(pair[1])]
        overlaps = [overlaps_of(corners, boxes) for boxes, corners, _ in pairs]
        for size, limits in SIZES.items():
            curve = _precision(pairs, overlaps, limits)
            if curve is not None:
                precision[size][:, :, target] = curve
    whole = precision["all"]
    metrics = {
        "map": _mean(whole),
        "map50": _mean(whole[0]),
        "map75": _mean(whole[5]),
        **{f"map_{size}": _mean(precision[size]) for size in ("small", "medium", "large")},
    }
    class_ap = np.array([_mean(whole[:, :, target]) for target in range(classes)])
    return Scores(metrics, class_ap, whole[0].T)


def _of_class(boxes: Boxes, detections: Detections, target: int) -> tuple[Array, Array, Array]:
    """True corners, found corners and confidences of one class, the most confident first."""
    chosen = np.flatnonzero(detections.classes == target)
    order = chosen[np.argsort(-detections.confidences[chosen], kind="mergesort")][:MOST_DETECTIONS]
    return boxes.corners[boxes.classes == target], detections.corners[order], detections.confidences[order]


def overlaps_of(first: Array, second: Array) -> Array:
    """[n, m]: intersection over union of each of `first` with each of `second`."""
    if not len(first) or not len(second):
        return np.zeros((len(first), len(second)))
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    shared = (high - low).clip(min=0).prod(axis=2)
    union = _area(first)[:, None] + _area(second)[None] - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def _area(corners: Array) -> Array:
    return (corners[:, 2:] - corners[:, :2]).prod(axis=1)


def _precision(
    pairs: Sequence[tuple[Array, Array, Array]], overlaps: Sequence[Array], limits: tuple[float, float]
) -> Array | None:
    """[thresholds, recalls]: the best precision at that recall or a higher one; None where nothing is to be found."""
    confidences, right, ignored, total = [], [], [], 0
    for (boxes, corners, confidence), overlap in zip(pairs, overlaps, strict=True):
        areas = _area(boxes)
        left_out = (areas < limits[0]) | (areas > limits[1])
        hit, hit_left_out = _match(overlap, left_out)
        own = _area(corners)
        outside = (own < limits[0]) | (own > limits[1])
        confidences.append(confidence)
        right.append(hit)
        ignored.append(hit_left_out | (~hit & outside))
        total += int((~left_out).sum())
    if not total:
        return None
    order = np.argsort(-np.concatenate(confidences), kind="mergesort")
    hits, passed = np.concatenate(right, axis=1)[:, order], np.concatenate(ignored, axis=1)[:, order]
    good, bad = np.cumsum(hits & ~passed, axis=1), np.cumsum(~hits & ~passed, axis=1)
    found = np.zeros((len(THRESHOLDS), len(RECALLS)))
    for place in range(len(THRESHOLDS)):
        recall = good[place] / total
        precision = good[place] / (good[place] + bad[place] + np.spacing(1))
        precision = np.maximum.accumulate(precision[::-1])[::-1]
        at = np.searchsorted(recall, RECALLS, side="left")
        reached = at < len(precision)
        found[place, reached] = precision[at[reached]]
    return found


def _match(overlap: Array, left_out: Array) -> tuple[Array, Array]:
    """[thresholds, detections]: which detections get a true box, and for which of them it is one that is left out.

    Each detection, the most confident first, takes the free box it overlaps most; a box that is left out only where
    it finds no other.
    """
    hit = np.zeros((len(THRESHOLDS), len(overlap)), bool)
    hit_left_out = np.zeros_like(hit)
    near = np.flatnonzero(overlap.max(axis=1, initial=0) >= THRESHOLDS[0])
    order = np.argsort(left_out, kind="mergesort")
    for place, threshold in enumerate(THRESHOLDS):
        free = np.ones(len(left_out), bool)
        for detection in near:
            best, chosen = min(threshold, 1 - 1e-10), -1
            for box in order:
                if not free[box]:
                    continue
                if chosen >= 0 and not left_out[chosen] and left_out[box]:
                    break
                if overlap[detection, box] >= best:
                    best, chosen = overlap[detection, box], int(box)
            if chosen >= 0:
                free[chosen] = False
                hit[place, detection] = True
                hit_left_out[place, detection] = left_out[chosen]
    return hit, hit_left_out


def _mean(values: Array) -> float:
    """The mean of what is not nan."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")
