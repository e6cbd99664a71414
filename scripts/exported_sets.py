"""One small set as datumaro and label-studio-sdk export it, read back: objects in, objects out, largest deviation.

    python scripts/exported_sets.py export OUT    # where datumaro and label-studio-sdk are installed
    python scripts/exported_sets.py read OUT      # where rfaconv is

The set: two boxes, a polygon, a mask with a hole, a box turned by 30 degrees, a crowd, an image without objects, one in
a subfolder and one whose name has a space.
"""

from __future__ import annotations

import json
import math
import sys
import traceback
from pathlib import Path
from typing import Any

import numpy as np

WIDTH, HEIGHT = 80, 60
NAMES = ["cat", "dog"]
TURN = 30.0
# name: what is on it
OBJECTS: dict[str, list[tuple[str, int, list[float]]]] = {
    "boxes": [("box", 0, [4, 8, 16, 22]), ("box", 1, [30, 10, 34, 38])],
    "polygon": [("polygon", 0, [10, 10, 50, 12, 30, 48])],
    "mask": [("mask", 1, [20, 10, 30, 24])],
    "turned": [("turned", 0, [40, 30, 30, 12])],
    "crowd": [("crowd", 1, [8, 8, 40, 20])],
    "nothing": [],
    "sub/folder": [("box", 0, [5, 6, 20, 20])],
    "two words": [("box", 1, [10, 10, 20, 30])],
}


def ring(box: list[float]) -> np.ndarray:
    """A mask: a rectangle with a hole in it."""
    left, top, width, height = map(int, box)
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[top : top + height, left : left + width] = True
    mask[top + 6 : top + height - 6, left + 8 : left + width - 8] = False
    return mask


def truth(kind: str, box: list[float]) -> list[float]:
    """left, top, right, bottom of the object."""
    if kind == "polygon":
        return [min(box[::2]), min(box[1::2]), max(box[::2]), max(box[1::2])]
    left, top, width, height = box
    if kind != "turned":
        return [left, top, left + width, top + height]
    angle = math.radians(TURN)
    across = (width * math.cos(angle) + height * math.sin(angle)) / 2
    down = (width * math.sin(angle) + height * math.cos(angle)) / 2
    x, y = left + width / 2, top + height / 2
    return [x - across, y - down, x + across, y + down]


def pixels(name: str) -> np.ndarray:
    return np.full((HEIGHT, WIDTH, 3), sum(map(ord, name)) % 200, np.uint8)


def export_datumaro(out: Path) -> None:
    from datumaro.components.annotation import Bbox, Mask, Polygon, RotatedBbox  # type: ignore[import-not-found]
    from datumaro.components.dataset import Dataset  # type: ignore[import-not-found]
    from datumaro.components.dataset_base import DatasetItem  # type: ignore[import-not-found]
    from datumaro.components.media import Image  # type: ignore[import-not-found]

    def annotation(kind: str, label: int, box: list[float], number: int) -> Any:
        common = {"label": label, "id": number, "group": number}
        if kind == "polygon":
            return Polygon(box, **common)
        if kind in ("mask", "crowd"):
            return Mask(ring(box), attributes={"is_crowd": True} if kind == "crowd" else {}, **common)
        if kind == "turned":
            left, top, width, height = box
            return RotatedBbox(left + width / 2, top + height / 2, width, height, TURN, **common)
        return Bbox(*box, **common)

    number, items = 0, []
    for name, objects in OBJECTS.items():
        found = []
        for kind, label, box in objects:
            number += 1
            found.append(annotation(kind, label, box, number))
        media = Image.from_numpy(data=pixels(name), ext=".png")
        part = "val" if name in ("nothing", "two words") else "train"  # some formats must have both
        items.append(DatasetItem(id=name, subset=part, media=media, annotations=found))
    for form in ("coco", "voc", "yolo", "yolo_ultralytics", "cvat", "label_me", "kitti", "open_images", "datumaro"):
        try:
            dataset = Dataset.from_iterable(items, categories=NAMES)
            dataset.export(str(out / f"datumaro-{form}"), form, save_media=True)
        except Exception as error:
            print(f"datumaro-{form}: not exported ({type(error).__name__}: {str(error)[:200]})")


def export_label_studio(out: Path) -> None:
    from label_studio_sdk.converter import Converter  # type: ignore[import-not-found]
    from PIL import Image

    config = (
        "<View><Image name='image' value='$image'/><RectangleLabels name='r' toName='image'>"
        "<Label value='cat'/><Label value='dog'/></RectangleLabels><PolygonLabels name='p' toName='image'>"
        "<Label value='cat'/><Label value='dog'/></PolygonLabels></View>"
    )
    uploads = out / "uploads"
    tasks = []
    for index, (name, objects) in enumerate(OBJECTS.items(), 1):
        results = []
        for number, (kind, label, box) in enumerate(objects):
            if kind in ("mask", "crowd"):
                continue
            common = {
                "id": f"o{index}{number}", "to_name": "image", "original_width": WIDTH, "original_height": HEIGHT,
                "image_rotation": 0,
            }  # fmt: skip
            if kind == "polygon":
                points = [[100 * x / WIDTH, 100 * y / HEIGHT] for x, y in zip(box[::2], box[1::2], strict=True)]
                value: dict[str, Any] = {"points": points, "closed": True, "polygonlabels": [NAMES[label]]}
                results.append({**common, "type": "polygonlabels", "from_name": "p", "value": value})
                continue
            left, top, width, height = box
            turn = TURN if kind == "turned" else 0.0
            if turn:  # Label Studio turns about the corner: the corner that lands where the middle stays
                angle = math.radians(turn)
                x, y = left + width / 2, top + height / 2
                left = x - (width * math.cos(angle) - height * math.sin(angle)) / 2
                top = y - (width * math.sin(angle) + height * math.cos(angle)) / 2
            value = {
                "x": 100 * left / WIDTH, "y": 100 * top / HEIGHT, "width": 100 * width / WIDTH,
                "height": 100 * height / HEIGHT, "rotation": turn, "rectanglelabels": [NAMES[label]],
            }  # fmt: skip
            results.append({**common, "type": "rectanglelabels", "from_name": "r", "value": value})
        path = uploads / f"{index:08x}-{Path(name).name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels(name)).save(path)
        tasks.append({
            "id": index, "data": {"image": f"/data/upload/1/{path.name}"}, "file_upload": path.name,
            "annotations": [{"id": index, "result": results, "was_cancelled": False, "completed_by": {"id": 1},
                             "created_at": "2026-01-01T00:00:00Z", "lead_time": 1.5}],
        })  # fmt: skip
    (out / "tasks.json").write_text(json.dumps(tasks))
    for form in ("YOLO", "YOLO_OBB", "COCO", "VOC", "JSON", "JSON_MIN"):
        folder = out / f"labelstudio-{form}"
        try:
            converter = Converter(config=config, project_dir=str(out), upload_dir=str(uploads), download_resources=True)
            converter.convert(str(out / "tasks.json"), str(folder), form, is_dir=False)
        except Exception as error:
            print(f"labelstudio-{form}: not exported ({type(error).__name__}: {str(error)[:200]})")
            traceback.print_exc()
        if folder.is_dir():  # the server's images are not to be had here
            (folder / "images").mkdir(exist_ok=True)
            for path in uploads.iterdir():
                (folder / "images" / path.name).write_bytes(path.read_bytes())


def deviation(name: str, boxes: list[Any], classes: tuple[str, ...]) -> float:
    """The largest distance in pixels of a corner from the truth, over the objects in their order of position."""
    wanted = sorted((NAMES[label], *truth(kind, box)) for kind, label, box in OBJECTS[name])
    found = sorted((classes[box.target], *box[1:]) for box in boxes)
    worst = 0.0
    for one in found:
        near = [max(abs(a - b) for a, b in zip(one[1:], two[1:], strict=True)) for two in wanted if two[0] == one[0]]
        worst = max(worst, min(near, default=math.inf))
    return worst


def read(out: Path) -> None:
    from rfaconv.data.annotations.issues import Issues
    from rfaconv.data.annotations.layouts import read_source
    from rfaconv.data.detection.parts import checked_parts
    from rfaconv.errors import UserError

    for folder in sorted(path for path in out.iterdir() if path.is_dir() and path.name != "uploads"):
        objects = [kind for found in OBJECTS.values() for kind, _, _ in found]
        wanted = (
            sum(kind not in ("mask", "crowd") for kind in objects) if "labelstudio" in folder.name else len(objects)
        )
        try:
            issues = Issues()
            source = read_source(folder, issues)
            parts = checked_parts(folder, source, issues)
        except UserError as error:
            print(f"| {folder.name} | {wanted} | - | - | {error} |")
            continue
        images = [image for part in parts.values() for image in part]
        kept = sum(len(image.boxes) for image in images)
        assert issues.found == kept + sum(issues.dropped.values())
        worst = 0.0
        for image in images:
            stem = image.path.stem
            name = next(name for name in OBJECTS if Path(name).name == stem or stem.endswith(f"-{Path(name).name}"))
            worst = max(worst, deviation(name, list(image.boxes), source.classes))
        said = "; ".join([*issues.told(), *issues.repaired()])
        print(
            f"| {folder.name} ({source.form}) | {wanted} | {issues.found} | {kept} | {len(images)} | {worst:.3f} | {said} |"  # noqa: E501
        )


if __name__ == "__main__":
    place = Path(sys.argv[2])
    place.mkdir(parents=True, exist_ok=True)
    if sys.argv[1] == "export":
        export_datumaro(place)
        export_label_studio(place)
    else:
        read(place)
