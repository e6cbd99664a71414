"""Outlines, run lengths, brushes and turned rectangles: what is read is what was drawn."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tools
from forms import coco, image, write_coco
from pycocotools import mask as coco_mask
from scipy.io import savemat

from rfaconv.data.annotations.runs import brush_mask, checked_runs, coco_counts
from rfaconv.data.detection import RefusedError, convert_detection, load_detection
from rfaconv.data.segmentation import IGNORE, load_segmentation
from rfaconv.data.segmentation.layouts import VOC_CLASSES


def blobs(seed: int, height: int, width: int) -> np.ndarray:
    """A mask of large and small pieces."""
    rng = np.random.default_rng(seed)
    coarse = rng.random((-(-height // 5), -(-width // 7))) < 0.4
    return np.asarray(
        np.kron(coarse, np.ones((5, 7)))[:height, :width].astype(bool) ^ (rng.random((height, width)) < 0.02)
    )


@pytest.mark.parametrize("seed", range(20))
def test_cocos_run_lengths_are_pycocotools(seed: int) -> None:
    height, width = 3 + seed * 13, 5 + seed * 29
    mask = blobs(seed, height, width)
    coded = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    counts = coco_counts(coded["counts"].decode())
    runs = checked_runs(counts, height, width)
    assert np.array_equal(runs.mask(), mask)
    left, top, across, down = coco_mask.toBbox(coded)
    assert runs.corners() == (left, top, left + across, top + down)


@pytest.mark.parametrize("text", ["", "5", "~~~~", "0o", "ooooooooooooooooo", "\n", "é", "0" * 1000])
def test_damaged_run_lengths_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="run length"):
        checked_runs(coco_counts(text), 4, 5)


def brush(mask: np.ndarray) -> list[int]:
    """A mask as Label Studio writes it: RGBA values, packed; see `brush_mask` for the format."""
    values = np.repeat(np.where(mask, 255, 0).astype(np.uint8).reshape(-1), 4)
    bits = f"{len(values):032b}" + f"{7:05b}" + "".join(f"{size - 1:04b}" for size in (3, 4, 8, 16))
    edges = np.flatnonzero(np.diff(values)) + 1
    for part in np.split(values, edges):
        for start in range(0, len(part), 65536):
            length = len(part[start : start + 65536])
            size = next(i for i, size in enumerate((3, 4, 8, 16)) if length <= 1 << size)
            bits += f"1{size:02b}{length - 1:0{(3, 4, 8, 16)[size]}b}{part[start]:08b}"
    bits += "0" * (-len(bits) % 8)
    return [int(bits[i : i + 8], 2) for i in range(0, len(bits), 8)]


@pytest.mark.parametrize("seed", range(5))
def test_label_studios_brush(seed: int) -> None:
    mask = blobs(seed, 20 + seed, 30 + seed)
    data = brush(mask)
    assert np.array_equal(brush_mask(data, 20 + seed, 30 + seed).mask(), mask)
    for wrong in (data[:-3], data[:4], [], [300, *data[1:]], data[:20]):
        with pytest.raises(ValueError, match="brush"):
            brush_mask(wrong, 20 + seed, 30 + seed)
    with pytest.raises(ValueError, match=r"has .* values"):
        brush_mask(data, 20, 90)


# One object, in an image of 64 x 48 px: a rectangle of 20 x 10 about (30, 24), turned by 30 degrees.
TURN = math.radians(30)
ACROSS, DOWN = 10 * math.cos(TURN) + 5 * math.sin(TURN), 10 * math.sin(TURN) + 5 * math.cos(TURN)
WANTED = (30 - ACROSS, 24 - DOWN, 30 + ACROSS, 24 + DOWN)


def one_image(root: Path) -> None:
    image(root / "images" / "a.jpg")
    image(root / "images" / "b.jpg")


def task(name: str, results: list[dict[str, Any]]) -> dict[str, Any]:
    size = {"original_width": 64, "original_height": 48}
    annotation = {"id": 1, "result": [{**size, **entry} for entry in results], "was_cancelled": False, "lead_time": 1.0}
    return {"id": 1, "data": {"image": f"/data/upload/1/{name}.jpg"}, "annotations": [annotation]}


def rectangle(left: float, top: float, width: float, height: float, turn: float = 0.0) -> dict[str, Any]:
    place = {"x": left / 0.64, "y": top / 0.48, "width": width / 0.64, "height": height / 0.48, "rotation": turn}
    return {"type": "rectanglelabels", "value": {**place, "rectanglelabels": ["cat"]}}


def studio(root: Path, *tasks: dict[str, Any]) -> Path:
    one_image(root)
    tools.text(root / "project.json", json.dumps(tasks))
    return root


def boxes(root: Path) -> list[tuple[float, ...]]:
    data = load_detection(root)
    return [box[1:] for found in (*data.train, *data.val) for box in found.boxes]


def test_label_studios_turned_rectangles(tmp_path: Path) -> None:
    """It turns about the upper left corner, in pixels."""
    left = 30 - (10 * math.cos(TURN) - 5 * math.sin(TURN))
    top = 24 - (10 * math.sin(TURN) + 5 * math.cos(TURN))
    other = task("b", [rectangle(1, 2, 20, 10)])
    found = boxes(studio(tmp_path, task("a", [rectangle(left, top, 20, 10, 30)]), other))
    assert sorted(found) == [pytest.approx((1, 2, 21, 12)), pytest.approx(WANTED)]


def test_cvats_turned_boxes_ellipses_and_masks(tmp_path: Path) -> None:
    """It turns about the middle."""
    one_image(tmp_path)
    mask = blobs(0, 10, 12)
    edges = np.flatnonzero(np.diff(mask.reshape(-1).astype(int), prepend=0))
    counts = np.diff([0, *edges, mask.size]).tolist()
    shapes = (
        '<box label="cat" xtl="20" ytl="19" xbr="40" ybr="29" rotation="30.0"></box>'
        '<polygon label="cat" points="1.0,2.0;9.0,2.0;9.0,8.0"></polygon>'
        '<ellipse label="cat" cx="52" cy="12" rx="8" ry="4"></ellipse>'
        f'<mask label="cat" rle="{", ".join(map(str, counts))}" left="20" top="30" width="12" height="10"></mask>'
        '<points label="cat" points="1,1;2,2"></points>'
    )
    texts = [f'<image id="0" name="{name}.jpg" width="64" height="48">{shapes}</image>' for name in "ab"]
    tools.text(tmp_path / "annotations.xml", f"<annotations>{''.join(texts)}</annotations>")
    data = load_detection(tmp_path)
    found = [box[1:] for box in data.train[0].boxes]
    assert found[:3] == [pytest.approx(WANTED), (1, 2, 9, 8), pytest.approx((44, 8, 60, 16))]
    down, across = np.nonzero(mask)
    assert found[3] == (20 + across.min(), 30 + down.min(), 21 + across.max(), 31 + down.max())
    assert any(line.startswith("2 points, lines") for line in data.notes)
    drawn = load_segmentation(tmp_path).train.mask(0).numpy()
    assert np.array_equal(drawn[30:40, 20:32] == 1, mask)
    y, x = np.mgrid[:48, 44:60] + 0.5
    ellipse = ((x - 52) / 8) ** 2 + ((y - 12) / 4) ** 2 <= 1
    assert (ellipse != (drawn[:, 44:60] == 1)).sum() <= 4


def test_the_first_annotator_of_several_is_taken_and_the_others_counted(tmp_path: Path) -> None:
    first = task("a", [rectangle(1, 2, 20, 10)])
    first["annotations"] += task("a", [rectangle(2, 2, 20, 10), rectangle(30, 30, 5, 5)])["annotations"]
    cancelled = task("b", [rectangle(9, 9, 9, 9)])["annotations"][0] | {"was_cancelled": True}
    second = task("b", [rectangle(5, 5, 20, 10)])
    second["annotations"].insert(0, cancelled)
    done = convert_detection(studio(tmp_path / "set", first, second), tmp_path / "out")
    assert (done.issues.found, sum(done.boxes.values()), done.issues.dropped) == (4, 2, {"other annotator": 2})


def crowded(root: Path, licences: list[dict[str, Any]]) -> Path:
    """Two images, each with a polygon and a mask of iscrowd 1."""
    record: dict[str, Any] = {**coco({"a": [], "b": []}), "licenses": licences}
    runs = {"counts": [0, 48, 48 * 63], "size": [48, 64]}
    for i in range(2):
        outline = {"segmentation": [[10, 10, 30, 10, 30, 40, 10, 40]], "bbox": [10, 10, 20, 30], "iscrowd": 0}
        crowd = {"segmentation": runs, "bbox": [0, 0, 1, 48], "iscrowd": 1}
        for number, shape in enumerate((outline, crowd)):
            record["annotations"].append({"id": 2 * i + number, "image_id": i, "category_id": 1, **shape})
    one_image(root)
    tools.text(root / "annotations" / "instances_default.json", json.dumps(record))
    return root


DATUMARO = [{"name": "", "id": 0, "url": ""}]


@pytest.mark.parametrize(
    ("licences", "crowds", "kept"),
    [(DATUMARO, None, True), (DATUMARO, "drop", False), ([], None, False), ([], "keep", True)],
)
def test_crowds(licences: list[dict[str, Any]], crowds: str | None, kept: bool, tmp_path: Path) -> None:
    root = crowded(tmp_path / "set", licences)
    done = convert_detection(root, tmp_path / "out", crowds=crowds)
    assert (done.issues.found, sum(done.boxes.values())) == (4, 4 if kept else 2)
    assert done.issues.notes["crowd kept" if kept else "crowd"] == 2
    data = load_segmentation(root, crowds=crowds)
    mask = data.train.mask(0)
    assert mask[20, 20] == 1
    assert (mask[:, 0] == (1 if kept else IGNORE)).all()
    assert any("iscrowd 1" in line for line in data.notes)


def test_two_images_of_one_id_share_no_boxes(tmp_path: Path) -> None:
    """Whose boxes they are is not to be known: neither image is used."""
    root = write_coco(tmp_path / "set")
    path = root / "train" / "_annotations.coco.json"
    record = json.loads(path.read_text())
    record["images"][1]["id"] = record["images"][2]["id"]  # b takes the id of c, which has three boxes
    path.write_text(json.dumps(record))
    with pytest.raises(RefusedError, match=r"its id 2 is that of 'b.jpg' and of 'c.jpg'"):
        convert_detection(root, tmp_path / "out")
    done = convert_detection(root, tmp_path / "out", lenient=True)
    assert done.issues.dropped == {"ambiguous": 3, "missing image": 1}
    assert sorted(path.stem for path in (tmp_path / "out" / "images").rglob("*.jpg")) == ["a", "d", "e", "f"]


def test_sbds_mat_files(tmp_path: Path) -> None:
    base = tmp_path / "benchmark_RELEASE" / "dataset"
    for name, seed in (("2008_000001", 1), ("2008_000002", 2), ("2008_000003", 3)):
        image(base / "img" / f"{name}.jpg", tools.MASK_SIZE)
        (base / "cls").mkdir(exist_ok=True)
        record = {
            "GTcls": {"Boundaries": np.zeros((2, 1)), "Segmentation": tools.ids(seed, 21), "CategoriesPresent": [1]}
        }
        savemat(base / "cls" / f"{name}.mat", record)
    tools.text(base / "train.txt", "2008_000001\n2008_000002\n")
    tools.text(base / "val.txt", "2008_000003\n")
    data = load_segmentation(tmp_path)
    assert data.classes == VOC_CLASSES
    assert np.array_equal(data.val.mask(0).numpy(), tools.ids(3, 21))
