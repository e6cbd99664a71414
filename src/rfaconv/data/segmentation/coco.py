"""COCO's instance files: outlines rasterised to masks of classes."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rfaconv.data.decode import BrokenImageError, read_image
from rfaconv.data.files import quoted
from rfaconv.data.segmentation.masks import IGNORE
from rfaconv.data.segmentation.sources import readable_image
from rfaconv.errors import UserError

BACKGROUND = "background"


@dataclass(frozen=True)
class Shape:
    """One annotation: its class number, its outlines or runs, and whether it is a crowd (which counts for nothing)."""

    target: int
    polygons: tuple[tuple[float, ...], ...]
    runs: tuple[int, ...]
    crowd: bool
    area: float


@dataclass(frozen=True)
class CocoImage:
    """An image's file, relative to the root, its size and what is drawn on it, the largest first."""

    name: str
    width: int
    height: int
    shapes: tuple[Shape, ...]


class CocoImages:
    """Images of a COCO file under a root; masks are drawn when they are asked for."""

    def __init__(self, root: Path, images: Sequence[CocoImage]) -> None:
        self.root = root
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def image(self, i: int) -> Tensor:
        """uint8 [3, H, W]; a UserError names a file that cannot be read."""
        return readable_image(self.root / self.images[i].name)

    def mask(self, i: int) -> Tensor:
        """uint8 [H, W]: class numbers, 0 for background, 255 for crowds; smaller objects lie over larger ones."""
        image = self.images[i]
        mask = np.zeros((image.height, image.width), np.uint8)
        for shape in image.shapes:
            mask[_drawn(shape, image)] = IGNORE if shape.crowd else shape.target
        return torch.from_numpy(mask)

    def name(self, i: int) -> str:
        """Relative to the root."""
        return self.images[i].name

    def files(self, i: int) -> Sequence[str]:
        """The image, relative to the root."""
        return (self.images[i].name,)

    def without(self, names: Collection[str]) -> CocoImages:
        """The same without the images of these names."""
        return CocoImages(self.root, [image for image in self.images if image.name not in names])

    def check(self, i: int) -> None:
        """Decode the image; a BrokenImageError says what is wrong with it, its size among it."""
        found = tuple(read_image(self.root / self.images[i].name, 3).shape[1:])
        wanted = (self.images[i].height, self.images[i].width)
        if found != wanted:
            raise BrokenImageError(
                f"it has {found[1]} x {found[0]} pixels, and its annotations are for {wanted[1]} x {wanted[0]}"
            )


def read_coco(path: Path, folder: str) -> tuple[tuple[str, ...], list[CocoImage]]:
    """Classes (background first, then the file's categories by id) and images of an instances JSON.

    Args:
        path: the JSON file.
        folder: where its images lie, relative to the data set's root.

    Raises:
        UserError: not such a file; the message names the first entry that is wrong.
    """
    try:
        found = json.loads(path.read_text("utf-8"))
        categories = sorted((int(entry["id"]), str(entry["name"])) for entry in found["categories"])
        images = {entry["id"]: entry for entry in found["images"]}
        annotations = list(found["annotations"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{quoted(path)} is no COCO instances file ({type(error).__name__}: {error}).") from error
    targets = {number: target for target, (number, _) in enumerate(categories, 1)}
    if len(targets) != len(categories):
        raise UserError(f"{quoted(path)} has a category id twice.")
    shapes: dict[Any, list[Shape]] = {number: [] for number in images}
    for index, entry in enumerate(annotations):
        try:
            owner, shape = entry["image_id"], _shape(entry, targets)
        except (KeyError, TypeError, ValueError) as error:
            said = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
            raise UserError(f"Annotation {index} of {quoted(path)} cannot be used: {said}.") from error
        if owner not in shapes:
            raise UserError(f"Annotation {index} of {quoted(path)} is for image {owner!r}, which the file has not.")
        shapes[owner].append(shape)
    records = [_image(path, folder, entry, shapes[number]) for number, entry in images.items()]
    return (BACKGROUND, *(name for _, name in categories)), sorted(records, key=lambda image: image.name)


def _image(path: Path, folder: str, entry: dict[str, Any], shapes: list[Shape]) -> CocoImage:
    try:
        name, width, height = str(entry["file_name"]), int(entry["width"]), int(entry["height"])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"An image of {quoted(path)} lacks file_name, width or height: {entry!r:.80}.") from error
    if width < 1 or height < 1:
        raise UserError(f"Image {quoted(name)} of {quoted(path)} has the size {width} x {height}.")
    ordered = sorted(shapes, key=lambda shape: (not shape.crowd, -shape.area))
    return CocoImage(f"{folder}/{name}".lstrip("/"), width, height, tuple(ordered))


def _shape(entry: dict[str, Any], targets: dict[int, int]) -> Shape:
    category = entry["category_id"]
    if category not in targets:
        raise ValueError(f"its category {category!r} is not in the file")
    outline, crowd = entry["segmentation"], bool(entry.get("iscrowd", 0))
    area = float(entry.get("area", 0))
    if isinstance(outline, dict):
        counts = outline["counts"]
        if isinstance(counts, str):
            raise ValueError("its run lengths are compressed: convert them to polygons or to plain counts")
        return Shape(targets[category], (), tuple(int(count) for count in counts), crowd, area)
    polygons = tuple(tuple(float(value) for value in polygon) for polygon in outline)
    if not polygons or any(len(polygon) < 6 or len(polygon) % 2 for polygon in polygons):
        raise ValueError("a polygon needs three points or more")
    if not np.isfinite([value for polygon in polygons for value in polygon]).all():
        raise ValueError("a polygon has a coordinate that is no number")
    return Shape(targets[category], polygons, (), crowd, area)


def _drawn(shape: Shape, image: CocoImage) -> NDArray[np.bool_]:
    """The pixels whose centre is inside."""
    from matplotlib.path import Path  # not needed for any other data

    if shape.runs:
        values = np.repeat(np.arange(len(shape.runs)) % 2 == 1, shape.runs)
        if len(values) != image.width * image.height:
            raise UserError(f"The run lengths of an annotation of {quoted(image.name)} are not those of its size.")
        return values.reshape(image.width, image.height).T
    inside = np.zeros((image.height, image.width), bool)
    for polygon in shape.polygons:
        points = np.array(polygon).reshape(-1, 2)
        left, top = (max(0, int(value)) for value in np.floor(points.min(axis=0)))
        right, bottom = (int(value) for value in np.ceil(points.max(axis=0)))
        columns, rows = np.arange(left, min(right, image.width)), np.arange(top, min(bottom, image.height))
        if len(columns) and len(rows):
            centres = np.stack(np.meshgrid(columns + 0.5, rows + 0.5), axis=2).reshape(-1, 2)
            found = Path(points).contains_points(centres).reshape(len(rows), len(columns))
            inside[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] |= found
    return inside


def find_coco(root: Path) -> tuple[tuple[str, ...], CocoImages, CocoImages, list[str]] | None:
    """Classes, both parts and the annotation files' names under `root`; None where there is no COCO file.

    Raises:
        UserError: a part is missing, the two differ in their classes, or a file is wrong.
    """
    found = [_annotations(root, names) for names in (("train",), ("val", "valid", "test"))]
    if not any(found):
        return None
    if found[0] is None or found[1] is None:
        part = "training" if found[0] is None else "validation"
        raise UserError(f"{quoted(root)} has no COCO file of its {part} part.")
    classes, train = read_coco(root / found[0][0], found[0][1])
    others, val = read_coco(root / found[1][0], found[1][1])
    if classes != others:
        raise UserError(f"The categories of {quoted(found[0][0])} and {quoted(found[1][0])} in {quoted(root)} differ.")
    if len(classes) > 255:
        raise UserError(f"{quoted(root)} has {len(classes)} classes, and masks of bytes have 255 at most.")
    return classes, CocoImages(root, train), CocoImages(root, val), [found[0][0], found[1][0]]


def _annotations(root: Path, parts: tuple[str, ...]) -> tuple[str, str] | None:
    """An annotation file and the folder of its images, both relative to `root`."""
    for part in parts:
        if (root / part / "_annotations.coco.json").is_file():
            return f"{part}/_annotations.coco.json", part
        for path in sorted((root / "annotations").glob(f"instances_{part}*.json")):
            name = path.stem.removeprefix("instances_")
            folder = next((f for f in (name, f"images/{name}", part, f"images/{part}") if (root / f).is_dir()), "")
            return f"annotations/{path.name}", folder
    return None
