"""Boxes as annotations claim them, and what is left of the claims beside the image itself."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from rfaconv.data.decode import reason
from rfaconv.data.detection.findings import Findings
from rfaconv.errors import UserError

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?", re.ASCII)
_HUGE = 1e7
_ROUNDING = 0.5
"""Pixels beyond the edge that are taken as rounding."""
_TRANSPOSED = (5, 6, 7, 8)
"""EXIF orientations that exchange width and height."""


class MalformedError(ValueError):
    """An annotation that cannot be understood; the message is the reason alone."""


class Claim(NamedTuple):
    """One box of an annotation file."""

    where: str
    """"object 3", "line 2": for messages."""
    name: str
    """Its class."""
    corners: tuple[float, float, float, float]
    """left, top, right, bottom; in pixels, or in fractions of the image."""
    fractions: bool = False


@dataclass(frozen=True)
class Annotated:
    """An image and the boxes its annotation claims, unchecked.

    Attributes:
        source: the annotation file, relative to the root; where there is none, the image.
        image: the image file; None where it was not found.
        name: the image's name in the annotation.
        claims: readable boxes.
        size: (width, height) as the annotation has it; None where it has none.
    """

    source: str
    image: Path | None
    name: str
    claims: tuple[Claim, ...]
    size: tuple[int, int] | None = None


class Box(NamedTuple):
    """A class number and left, top, right, bottom in pixels, inside the image."""

    target: int
    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True)
class BoxedImage:
    """An image with its boxes, checked."""

    path: Path
    width: int
    height: int
    boxes: tuple[Box, ...]


def number(text: object) -> float:
    """A finite number of reasonable size; a MalformedError says what it is instead."""
    if isinstance(text, bool) or not isinstance(text, int | float | str):
        raise MalformedError(f"{text!r:.40} is no number")
    if isinstance(text, str) and not _NUMBER.fullmatch(text.strip()):
        raise MalformedError(f"{text.strip()!r:.40} is no number")
    try:
        value = float(text)
    except (OverflowError, ValueError):
        value = math.inf
    if not abs(value) < _HUGE:  # so written that nan is refused too
        raise MalformedError(f"{str(text).strip()!r:.40} is no coordinate")
    return value


def image_size(path: Path) -> tuple[int, int]:
    """Width and height as a viewer shows the image (EXIF's orientation applied), from its header.

    Raises:
        UserError: it cannot be read; the message is the reason alone.
    """
    try:
        with Image.open(path) as file:
            width, height = file.size
            orientation = file.getexif().get(0x0112) if file.format in ("JPEG", "MPO") else None
    except Exception as error:  # decoders raise nearly anything on damaged data
        raise UserError(reason(error)) from error
    return (height, width) if orientation in _TRANSPOSED else (width, height)


def settle(found: Annotated, targets: Mapping[str, int], findings: Findings) -> BoxedImage | None:
    """Hold the claims against the image and the classes; None where the image is of no use.

    Every claim is kept, or noted in `findings` with what became of it.
    """
    if found.image is None:
        detail = f"the image {found.name!r} is not there"
        findings.add("missing image", found.source, "", detail, boxes=len(found.claims))
        return None
    try:
        width, height = image_size(found.image)
    except UserError as error:
        detail = f"the image {found.name!r} cannot be read ({error})"
        findings.add("missing image", found.source, "", detail, boxes=len(found.claims))
        return None
    if found.size is not None and found.size != (width, height):
        detail = f"it is for {found.size[0]} x {found.size[1]} pixels and the image has {width} x {height}"
        findings.add("wrong size", found.source, "", detail)
    boxes: list[Box] = []
    for claim in found.claims:
        box = _inside(claim, targets, width, height, found.source, findings)
        if box is not None and box in boxes:
            findings.add("duplicate", found.source, claim.where, f"the box of {claim.name!r} is there twice", boxes=1)
        elif box is not None:
            boxes.append(box)
    return BoxedImage(found.image, width, height, tuple(boxes))


def _inside(
    claim: Claim, targets: Mapping[str, int], width: int, height: int, source: str, findings: Findings
) -> Box | None:
    if claim.name not in targets:
        findings.add("unknown class", source, claim.where, f"{claim.name!r:.60} is none of the classes", boxes=1)
        return None
    left, top, right, bottom = claim.corners
    if not (left < right and top < bottom):
        findings.add("no area", source, claim.where, f"the box {_shown(claim)} has no area", boxes=1)
        return None
    if claim.fractions:
        left, right, top, bottom = left * width, right * width, top * height, bottom * height
    over = max(-left, -top, right - width, bottom - height)
    clipped = (max(left, 0.0), max(top, 0.0), min(right, float(width)), min(bottom, float(height)))
    if not (clipped[0] < clipped[2] and clipped[1] < clipped[3]):
        detail = f"the box {_shown(claim)} is wholly outside of {width} x {height} pixels"
        findings.add("outside the image", source, claim.where, detail, boxes=1)
        return None
    if over > _ROUNDING:
        detail = f"the box {_shown(claim)} reaches beyond {width} x {height} pixels"
        findings.add("outside the image", source, claim.where, detail)
    elif over > 1e-5 * max(width, height):  # fractions are written with six digits
        findings.note("rounded")
    return Box(targets[claim.name], *clipped)


def _shown(claim: Claim) -> str:
    return f"({', '.join(f'{value:g}' for value in claim.corners)})"
