"""Average precision, held against pycocotools on the same boxes."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from rfaconv.tasks.detect.scores import Boxes, Detections, score

NAMES = ["map", "map50", "map75", "map_small", "map_medium", "map_large"]


def scenes(seed: int, images: int, classes: int, ties: bool = False) -> tuple[list[Boxes], list[Detections]]:
    """True boxes of all sizes, and detections: most of them near, some wrong, doubled or of another class."""
    rng = np.random.default_rng(seed)
    truth, found = [], []
    for _ in range(images):
        count = int(rng.integers(0, 9))
        size = np.exp(rng.uniform(np.log(6), np.log(180), (count, 2)))
        place = rng.uniform(0, 300, (count, 2))
        corners = np.concatenate([place, place + size], axis=1)
        labels = rng.integers(0, classes, count)
        truth.append(Boxes(corners, labels))
        near = corners.repeat(2, axis=0) + rng.normal(0, 0.03, (2 * count, 4)) * size.repeat(2, axis=0)[:, [0, 1, 0, 1]]
        near = near[rng.random(len(near)) < 0.7]
        near_labels = labels.repeat(2)[: len(near)]
        wrong = rng.uniform(0, 300, (int(rng.integers(0, 150)), 2))
        wrong = np.concatenate([wrong, wrong + rng.uniform(4, 150, wrong.shape)], axis=1)
        boxes = np.concatenate([near, wrong])
        confidence = rng.random(len(boxes))
        if ties:
            confidence = np.round(confidence, 1)
        kinds = np.concatenate([near_labels, rng.integers(0, classes, len(wrong))])
        found.append(Detections(boxes, confidence, kinds))
    return truth, found


def by_pycocotools(truth: list[Boxes], found: list[Detections], classes: int) -> tuple[dict[str, float], Any]:
    annotations, results = [], []
    for image, (boxes, detections) in enumerate(zip(truth, found, strict=True)):
        for corners, label in zip(boxes.corners, boxes.classes, strict=True):
            left, top, right, bottom = (float(value) for value in corners)
            box = [left, top, right - left, bottom - top]
            record = {"id": len(annotations) + 1, "image_id": image, "category_id": int(label), "bbox": box}
            annotations.append({**record, "area": box[2] * box[3], "iscrowd": 0})
        for corners, confidence, label in zip(*detections, strict=True):
            left, top, right, bottom = (float(value) for value in corners)
            box = [left, top, right - left, bottom - top]
            results.append({"image_id": image, "category_id": int(label), "bbox": box, "score": float(confidence)})
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "images": [{"id": image} for image in range(len(truth))],
            "annotations": annotations,
            "categories": [{"id": label} for label in range(classes)],
        }
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    figures = [float("nan") if value == -1 else value for value in evaluation.stats[:6]]
    return dict(zip(NAMES, figures, strict=True)), evaluation.eval["precision"]


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(("seed", "images", "classes"), [(0, 40, 3), (1, 25, 1), (2, 60, 10), (3, 3, 20)])
def test_as_pycocotools(seed: int, images: int, classes: int, ties: bool) -> None:
    truth, found = scenes(seed, images, classes, ties)
    ours = score(truth, found, classes)
    theirs, precision = by_pycocotools(truth, found, classes)
    assert ours.metrics == pytest.approx(theirs, abs=1e-9, nan_ok=True)
    assert 0.01 < ours.metrics["map"] < 0.9
    at_half = np.where(precision[0, :, :, 0, 2] == -1, np.nan, precision[0, :, :, 0, 2])
    assert np.allclose(ours.precision, at_half.T, atol=1e-9, equal_nan=True)


def test_more_than_a_hundred_of_a_class_do_not_count() -> None:
    rng = np.random.default_rng(0)
    boxes = np.array([[10.0, 10.0, 60.0, 60.0]])
    wrong = rng.uniform(100, 200, (150, 2))
    corners = np.concatenate([np.concatenate([wrong, wrong + 20], axis=1), boxes])
    confidence = np.concatenate([rng.uniform(0.5, 1, 150), [0.1]])
    truth, found = [Boxes(boxes, np.array([0]))], [Detections(corners, confidence, np.zeros(151, int))]
    assert score(truth, found, 1).metrics["map"] == 0
    assert by_pycocotools(truth, found, 1)[0]["map"] == 0


def test_perfect_empty_and_nothing_to_find() -> None:
    truth, _ = scenes(0, 10, 3)
    perfect = [Detections(boxes.corners, np.ones(len(boxes.classes)), boxes.classes) for boxes in truth]
    assert score(truth, perfect, 3).metrics["map"] == pytest.approx(1)
    nothing = Detections(np.zeros((0, 4)), np.zeros(0), np.zeros(0, int))
    assert score(truth, [nothing] * 10, 3).metrics["map"] == 0
    bare = [Boxes(np.zeros((0, 4)), np.zeros(0, int))] * 2
    assert np.isnan(score(bare, perfect[:2], 3).metrics["map"])
    with pytest.raises(ValueError, match="10 images and detections for 9"):
        score(truth, perfect[:9], 3)
