"""Every layout that an annotation tool writes is read as it is, with the same objects."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tools
from forms import BOXES, CLASSES
from test_detection import written

from rfaconv.data.detection import convert_detection, load_detection
from rfaconv.data.segmentation import IGNORE, load_segmentation


@pytest.mark.parametrize("writer", tools.BOXES_OF_TOOLS)
def test_boxes_as_tools_write_them(writer: str, tmp_path: Path) -> None:
    root = tools.BOXES_OF_TOOLS[writer](tmp_path / "source")
    before = sorted(path.relative_to(root) for path in root.rglob("*"))
    done = convert_detection(root, tmp_path / "out")
    assert not done.issues.items
    assert (done.issues.found, sum(done.boxes.values()), done.classes) == (BOXES, BOXES, CLASSES)
    both = {**written(done, "train"), **written(done, "val")}
    plain = {name.removeprefix("a1b2c3d4-").removeprefix("two words "): boxes for name, boxes in both.items()}
    assert plain == tools.ALL
    data = load_detection(root)  # without a conversion
    assert sum(len(image.boxes) for image in (*data.train, *data.val)) == BOXES
    assert sorted(path.relative_to(root) for path in root.rglob("*")) == before


def masks(source: Any) -> dict[str, np.ndarray]:
    return {Path(source.name(i)).name.partition(".")[0]: source.mask(i).numpy() for i in range(len(source))}


@pytest.mark.parametrize(
    ("writer", "classes", "parts", "wanted"),
    [
        (tools.roboflow_masks, tools.NAMES, (5, 2, 2), tools.ids),
        (tools.cvat_masks, tools.NAMES, (7, 2, 0), tools.ids),
        (tools.mmsegmentation, ("0", "1", "2"), (5, 2, 2), tools.ids),
        (tools.carvana, ("background", "foreground"), (4, 1, 0), lambda i: tools.ids(i, 2)),
        (tools.black_and_white, ("background", "foreground"), (7, 2, 0), lambda i: tools.ids(i, 2)),
        (tools.camvid, 11, (5, 2, 2), lambda i: np.where(tools.ids(i, 12) == 11, IGNORE, tools.ids(i, 12))),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_masks_as_tools_write_them(
    writer: Callable[[Path], Path],
    classes: Any,
    parts: tuple[int, int, int],
    wanted: Callable[[int], np.ndarray],
    tmp_path: Path,
) -> None:
    data = load_segmentation(writer(tmp_path / "source"))
    assert classes in (data.classes, len(data.classes)), data.classes
    assert (len(data.train), len(data.val), len(data.test or ())) == parts
    for source in (data.train, data.val, data.test):
        for name, mask in masks(source).items() if source else ():
            assert np.array_equal(mask, wanted(int(name.partition("_")[0]))), name


def test_camvids_classes(tmp_path: Path) -> None:
    data = load_segmentation(tools.camvid(tmp_path))
    assert (data.classes[0], data.classes[5], data.classes[10]) == ("Sky", "Tree", "Bicyclist")


def test_polygons_in_yolos_labels_are_masks(tmp_path: Path) -> None:
    data = load_segmentation(tools.ultralytics_polygons(tmp_path))
    assert data.classes == ("background", "cat", "dog")
    wanted = np.zeros((12, 16), np.uint8)
    wanted[:, :8] = 1
    wanted[6:, 8:] = 2
    assert np.array_equal(data.train.mask(0), wanted)
    assert (len(data.train), len(data.val)) == (3, 3)
