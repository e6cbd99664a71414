"""What is held against an image before its objects are used, whatever they are used for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from rfaconv.data.annotations.claims import Annotated, Claim
from rfaconv.data.annotations.issues import Issues
from rfaconv.data.decode import image_size
from rfaconv.errors import UserError


def checked_size(found: Annotated, issues: Issues) -> tuple[int, int] | None:
    """The size of the image as it is shown; None, with an issue, where there is no image to be read."""
    detail = "is not there"
    if found.image is not None:
        try:
            width, height = image_size(found.image)
        except UserError as error:
            detail = f"cannot be read ({error})"
        else:
            if found.size is not None and found.size != (width, height):
                detail = f"it is for {found.size[0]} x {found.size[1]} pixels and the image has {width} x {height}"
                issues.add("wrong size", found.source, "", detail)
            return width, height
    issues.add("missing image", found.source, "", f"the image {found.name!r} {detail}", boxes=len(found.claims))
    return None


def checked_class(claim: Claim, targets: Mapping[str, int], source: str, issues: Issues) -> int | None:
    """The number of its class; None, with an issue, where it is none of the classes."""
    if claim.name not in targets:
        issues.add("unknown class", source, claim.where, f"{claim.name!r:.60} is none of the classes", boxes=1)
    return targets.get(claim.name)


Item = TypeVar("Item")


def once(
    parts: Mapping[str, list[Item]], file: Callable[[Item], Path], objects: Callable[[Item], int], issues: Issues
) -> dict[str, list[Item]]:
    """Each image in one part only: validation on trained images would flatter."""
    owner: dict[Path, str] = {}
    kept: dict[str, list[Item]] = {}
    for part, images in parts.items():
        kept[part] = []
        for image in images:
            path = file(image)
            if path not in owner:
                owner[path] = part
                kept[part].append(image)
            else:
                detail = f"the image is in {owner[path]} already"
                issues.add("duplicate", path.as_posix(), "", detail, boxes=objects(image))
    return kept
