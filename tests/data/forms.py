"""The same six images with eight boxes, written in every form that is read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

SIZE = (64, 48)
CLASSES = ("cat", "dog")
# name: (class, left, top, right, bottom) in pixels
TRAIN: dict[str, list[tuple[str, int, int, int, int]]] = {
    "a": [("cat", 4, 8, 20, 30), ("dog", 30, 10, 64, 48)],
    "b": [("dog", 0, 0, 32, 24)],
    "c": [("cat", 10, 10, 12, 12), ("cat", 40, 5, 50, 40), ("dog", 1, 2, 3, 4)],
    "d": [],
}
VAL: dict[str, list[tuple[str, int, int, int, int]]] = {"e": [("cat", 5, 5, 60, 40)], "f": [("dog", 2, 3, 40, 44)]}
PARTS = {"train": TRAIN, "valid": VAL}
BOXES = 8


def image(path: Path, size: tuple[int, int] = SIZE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (sum(map(ord, path.stem)) % 255, 90, 30)).save(path)


def xml(name: str, boxes: Sequence[tuple[str, int, int, int, int]], first_pixel: int = 0, extra: str = "") -> str:
    objects = "".join(
        f"<object><name>{label}</name><difficult>0</difficult><bndbox><xmin>{left + first_pixel}</xmin>"
        f"<ymin>{top + first_pixel}</ymin><xmax>{right}</xmax><ymax>{bottom}</ymax></bndbox></object>\n"
        for label, left, top, right, bottom in boxes
    )
    size = f"<size><width>{SIZE[0]}</width><height>{SIZE[1]}</height><depth>3</depth></size>"
    return f"<annotation>\n<folder>x</folder><filename>{name}.jpg</filename>{size}\n{objects}{extra}</annotation>\n"


def lines(boxes: Sequence[tuple[str, int, int, int, int]]) -> str:
    width, height = SIZE
    return "".join(
        f"{CLASSES.index(label)} {(left + right) / 2 / width:.6f} {(top + bottom) / 2 / height:.6f} "
        f"{(right - left) / width:.6f} {(bottom - top) / height:.6f}\n"
        for label, left, top, right, bottom in boxes
    )


def coco(part: dict[str, list[tuple[str, int, int, int, int]]], group: bool = False) -> dict[str, object]:
    above = "pets" if group else "none"
    categories = [{"id": i + 1, "name": name, "supercategory": above} for i, name in enumerate(CLASSES)]
    if group:
        categories.insert(0, {"id": 0, "name": "pets", "supercategory": "none"})
    images = [{"id": i, "file_name": f"{name}.jpg", "width": SIZE[0], "height": SIZE[1]} for i, name in enumerate(part)]
    boxes = [(i, box) for i, found in enumerate(part.values()) for box in found]
    annotations = [
        {
            "id": index,
            "image_id": owner,
            "category_id": CLASSES.index(label) + 1,
            "bbox": [left, top, right - left, bottom - top],
            "area": (right - left) * (bottom - top),
            "iscrowd": 0,
        }
        for index, (owner, (label, left, top, right, bottom)) in enumerate(boxes)
    ]
    return {"images": images, "annotations": annotations, "categories": categories}


def write_yolo(root: Path) -> Path:
    """Roboflow's YOLO export: paths that begin with a '../' too many."""
    for part, images in PARTS.items():
        for name, boxes in images.items():
            image(root / part / "images" / f"{name}.jpg")
            (root / part / "labels").mkdir(parents=True, exist_ok=True)
            (root / part / "labels" / f"{name}.txt").write_text(lines(boxes))
    (root / "data.yaml").write_text(
        "train: ../train/images\nval: ../valid/images\n\nnc: 2\nnames: ['cat', 'dog']\n\nroboflow:\n  version: 3\n"
    )
    (root / "README.roboflow.txt").write_text("pets\n")
    return root


def write_coco(root: Path, group: bool = True) -> Path:
    """Roboflow's COCO export: a category 0 that stands for all the others."""
    for part, images in PARTS.items():
        for name in images:
            image(root / part / f"{name}.jpg")
        (root / part / "_annotations.coco.json").write_text(json.dumps(coco(images, group)))
    return root


def write_voc(root: Path) -> Path:
    """Roboflow's VOC export: XML files beside their images."""
    for part, images in PARTS.items():
        for name, boxes in images.items():
            image(root / part / f"{name}.jpg")
            (root / part / f"{name}.xml").write_text(xml(name, boxes))
    return root


def write_devkit(root: Path) -> Path:
    """PASCAL's own: a year's folders and lists; boxes counted from 1."""
    for year, part, listed in (("VOC2007", TRAIN, "trainval"), ("VOC2007", VAL, "test")):
        for name, boxes in part.items():
            image(root / "VOCdevkit" / year / "JPEGImages" / f"{name}.jpg")
            annotation = root / "VOCdevkit" / year / "Annotations" / f"{name}.xml"
            annotation.parent.mkdir(parents=True, exist_ok=True)
            annotation.write_text(xml(name, boxes, first_pixel=1))
        lists = root / "VOCdevkit" / year / "ImageSets" / "Main"
        lists.mkdir(parents=True, exist_ok=True)
        (lists / f"{listed}.txt").write_text("".join(f"{name}\n" for name in part))
    return root


WRITERS = {"yolo": write_yolo, "coco": write_coco, "voc": write_voc, "devkit": write_devkit}
