"""Masks drawn from outlines and run lengths: COCO's, Ultralytics' polygons, CVAT's and Label Studio's."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rfaconv.data.annotations.checked import checked_class, checked_size
from rfaconv.data.annotations.claims import Annotated, Claim, Outline, around
from rfaconv.data.annotations.issues import Issues
from rfaconv.data.annotations.runs import Runs
from rfaconv.data.decode import read_image
from rfaconv.data.files import printable
from rfaconv.data.segmentation.masks import IGNORE
from rfaconv.data.segmentation.sources import readable_image

BACKGROUND = "background"


class Shape(NamedTuple):
    """One object: its class number (255 for crowds, whose pixels count for nothing), and outlines in pixels or runs."""

    target: int
    outlines: tuple[Outline, ...]
    runs: Runs | None


@dataclass(frozen=True)
class DrawnImage:
    """An image's file, relative to the root, its size and what is drawn on it, in that order."""

    name: str
    width: int
    height: int
    shapes: tuple[Shape, ...]


class DrawnImages:
    """Images with objects under a root; masks are drawn when they are asked for."""

    def __init__(self, root: Path, images: Sequence[DrawnImage]) -> None:
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
            mask[_pixels(shape, image.width, image.height)] = shape.target
        return torch.from_numpy(mask)

    def name(self, i: int) -> str:
        """Relative to the root."""
        return printable(self.images[i].name)

    def files(self, i: int) -> Sequence[str]:
        """The image, relative to the root."""
        return (self.images[i].name,)

    def without(self, names: Collection[str]) -> DrawnImages:
        """The same without the images of these files."""
        return DrawnImages(self.root, [image for image in self.images if image.name not in names])

    def check(self, i: int) -> None:
        """Decode the image; a BrokenImageError says what is wrong with it."""
        read_image(self.root / self.images[i].name, 3)


def settle_shapes(root: Path, found: Annotated, targets: Mapping[str, int], issues: Issues) -> DrawnImage | None:
    """Hold the claims against the image and the classes; None where the image is of no use.

    Every claim is kept, or noted in `issues` with what became of it.
    """
    size = checked_size(found, issues)
    if size is None or found.image is None:
        return None
    shapes = [
        shape for claim in found.claims if (shape := _shape(claim, targets, *size, found.source, issues)) is not None
    ]
    shapes.sort(key=lambda shape: (shape.target != IGNORE, -_area(shape)))
    return DrawnImage(found.image.relative_to(root).as_posix(), *size, tuple(shapes))


def _shape(
    claim: Claim, targets: Mapping[str, int], width: int, height: int, source: str, issues: Issues
) -> Shape | None:
    target = checked_class(claim, targets, source, issues)
    if target is None:
        return None
    if claim.runs is None and not claim.outlines:
        detail = f"this {claim.name!r:.60} is a box alone, and a mask needs an outline"
        issues.add("no outline", source, claim.where, detail, boxes=1)
        return None
    runs = claim.runs
    if runs is not None and (
        runs.left + runs.width > width or runs.top + runs.height > height or runs.left < 0 or runs.top < 0
    ):
        detail = f"its mask of {runs.width} x {runs.height} pixels does not fit into {width} x {height}"
        issues.add("outside the image", source, claim.where, detail, boxes=1)
        return None
    scale = (width, height) if claim.fractions else (1, 1)
    outlines = tuple(tuple(value * scale[i % 2] for i, value in enumerate(points)) for points in claim.outlines)
    if outlines:
        left, top, right, bottom = around(outlines)
        if right <= 0 or bottom <= 0 or left >= width or top >= height:
            detail = f"the outline is wholly outside of {width} x {height} pixels"
            issues.add("outside the image", source, claim.where, detail, boxes=1)
            return None
    if claim.crowd:
        issues.note("crowd ignored")
    return Shape(IGNORE if claim.crowd else target, outlines, runs)


def _area(shape: Shape) -> float:
    """In pixels; of polygons by the shoelace formula."""
    if shape.runs is not None:
        return float(sum(shape.runs.counts[1::2]))
    total = 0.0
    for points in shape.outlines:
        x, y = np.array(points[0::2]), np.array(points[1::2])
        total += abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2
    return total


def _pixels(shape: Shape, width: int, height: int) -> NDArray[np.bool_]:
    """The pixels whose centre is inside."""
    from matplotlib.path import Path as Polygon  # not needed for any other data

    inside = np.zeros((height, width), bool)
    if shape.runs is not None:
        runs = shape.runs
        inside[runs.top : runs.top + runs.height, runs.left : runs.left + runs.width] = runs.mask()
        return inside
    for values in shape.outlines:
        points = np.array(values).reshape(-1, 2)
        left, top = (max(0, int(value)) for value in np.floor(points.min(axis=0)))
        right, bottom = (int(value) for value in np.ceil(points.max(axis=0)))
        columns, rows = np.arange(left, min(right, width)), np.arange(top, min(bottom, height))
        if len(columns) and len(rows):
            centres = np.stack(np.meshgrid(columns + 0.5, rows + 0.5), axis=2).reshape(-1, 2)
            found = Polygon(points).contains_points(centres).reshape(len(rows), len(columns))
            inside[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] |= found
    return inside
