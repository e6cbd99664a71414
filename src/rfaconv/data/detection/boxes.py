"""Boxes, and what is left of an annotation's claims beside the image itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from rfaconv.data.annotations.checked import checked_class, checked_size
from rfaconv.data.annotations.claims import Annotated, Claim
from rfaconv.data.annotations.issues import Issues

_ROUNDING = 0.5
"""Pixels beyond the edge that are taken as rounding."""


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


def settle(found: Annotated, targets: Mapping[str, int], issues: Issues) -> BoxedImage | None:
    """Hold the claims against the image and the classes; None where the image is of no use.

    Every claim is kept, or noted in `issues` with what became of it.
    """
    size = checked_size(found, issues)
    if size is None or found.image is None:
        return None
    boxes: list[Box] = []
    for claim in found.claims:
        if claim.crowd:
            issues.note("crowd", boxes=1)
            continue
        box = _inside(claim, targets, *size, found.source, issues)
        if box is not None and box in boxes:
            issues.add("duplicate", found.source, claim.where, f"the box of {claim.name!r} is there twice", boxes=1)
        elif box is not None:
            boxes.append(box)
            if claim.outlines or claim.runs:
                issues.note("outline as box")
    return BoxedImage(found.image, *size, tuple(boxes))


def _inside(
    claim: Claim, targets: Mapping[str, int], width: int, height: int, source: str, issues: Issues
) -> Box | None:
    target = checked_class(claim, targets, source, issues)
    if target is None:
        return None
    left, top, right, bottom = claim.corners
    if not (left < right and top < bottom):
        issues.add("no area", source, claim.where, f"the box {_shown(claim)} has no area", boxes=1)
        return None
    if claim.fractions:
        left, right, top, bottom = left * width, right * width, top * height, bottom * height
    over = max(-left, -top, right - width, bottom - height)
    clipped = (max(left, 0.0), max(top, 0.0), min(right, float(width)), min(bottom, float(height)))
    if not (clipped[0] < clipped[2] and clipped[1] < clipped[3]):
        detail = f"the box {_shown(claim)} is wholly outside of {width} x {height} pixels"
        issues.add("outside the image", source, claim.where, detail, boxes=1)
        return None
    if over > _ROUNDING:
        detail = f"the box {_shown(claim)} reaches beyond {width} x {height} pixels"
        issues.add("outside the image", source, claim.where, detail)
    elif over > 1e-5 * max(width, height):  # fractions are written with six digits
        issues.note("rounded")
    return Box(target, *clipped)


def _shown(claim: Claim) -> str:
    return f"({', '.join(f'{value:g}' for value in claim.corners)})"
