"""Objects as annotation files claim them, unchecked."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from rfaconv.data.annotations.runs import Runs

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?", re.ASCII)
_HUGE = 1e7
Corners = tuple[float, float, float, float]
Outline = tuple[float, ...]
"""x, y, x, y, ... of a polygon."""


class MalformedError(ValueError):
    """An annotation that cannot be understood; the message is the reason alone."""


class Claim(NamedTuple):
    """One object of an annotation file."""

    where: str
    """"object 3", "line 2": for messages."""
    name: str
    """Its class."""
    corners: Corners
    """left, top, right, bottom; in pixels, or in fractions of the image."""
    fractions: bool = False
    """Whether corners and outlines are fractions of the image."""
    outlines: tuple[Outline, ...] = ()
    """Polygons, if the file has them."""
    runs: Runs | None = None
    """A mask in run lengths, if the file has one."""
    crowd: bool = False
    """Whether it stands for many objects: no box, and its pixels count for nothing."""


@dataclass(frozen=True)
class Annotated:
    """An image and the objects its annotation claims, unchecked.

    Attributes:
        source: the annotation file, relative to the root; where there is none, the image.
        image: the image file; None where it was not found.
        name: the image's name in the annotation.
        claims: readable objects.
        size: (width, height) as the annotation has it; None where it has none.
    """

    source: str
    image: Path | None
    name: str
    claims: tuple[Claim, ...]
    size: tuple[int, int] | None = None


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


def outline(values: list[object]) -> Outline:
    """A polygon of x, y, x, y, ...: three points or more, or a MalformedError."""
    if len(values) < 6 or len(values) % 2:
        raise MalformedError(f"a polygon needs three points or more, and this one has {len(values)} numbers")
    return tuple(number(value) for value in values)


def around(outlines: tuple[Outline, ...]) -> Corners:
    """The smallest box around polygons."""
    across = [value for points in outlines for value in points[0::2]]
    down = [value for points in outlines for value in points[1::2]]
    return min(across), min(down), max(across), max(down)


def turned(left: float, top: float, width: float, height: float, degrees: float, pivot: tuple[float, float]) -> Outline:
    """The corners of a rectangle turned clockwise (as an image shows it) about a point."""
    angle = math.radians(degrees)
    cos, sin = math.cos(angle), math.sin(angle)
    points: list[float] = []
    for x, y in ((left, top), (left + width, top), (left + width, top + height), (left, top + height)):
        dx, dy = x - pivot[0], y - pivot[1]
        points += [pivot[0] + dx * cos - dy * sin, pivot[1] + dx * sin + dy * cos]
    return tuple(points)


def ellipse(x: float, y: float, across: float, down: float, degrees: float = 0.0, points: int = 72) -> Outline:
    """A polygon of an ellipse with centre, radii and a clockwise turn."""
    angle = math.radians(degrees)
    cos, sin = math.cos(angle), math.sin(angle)
    found: list[float] = []
    for index in range(points):
        step = 2 * math.pi * index / points
        dx, dy = across * math.cos(step), down * math.sin(step)
        found += [x + dx * cos - dy * sin, y + dx * sin + dy * cos]
    return tuple(found)
