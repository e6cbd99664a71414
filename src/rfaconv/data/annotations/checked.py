"""What is held against an image before its objects are used, whatever they are used for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from rfaconv.data.annotations.claims import Annotated, Claim
from rfaconv.data.annotations.issues import Issues
from rfaconv.data.decode import open_image, reason
from rfaconv.errors import UserError

_TRANSPOSED = (5, 6, 7, 8)
"""EXIF orientations that exchange width and height."""


def image_size(path: Path) -> tuple[int, int]:
    """Width and height as a viewer shows the image (EXIF's orientation applied), from its header.

    Raises:
        UserError: it cannot be read; the message is the reason alone.
    """
    try:
        with open_image(path) as file:
            width, height = file.size
            orientation = file.getexif().get(0x0112) if file.format in ("JPEG", "MPO") else None
    except Exception as error:  # decoders raise nearly anything on damaged data
        raise UserError(reason(error)) from error
    return (height, width) if orientation in _TRANSPOSED else (width, height)


def checked_size(found: Annotated, issues: Issues) -> tuple[int, int] | None:
    """The size of the image as it is shown; None, with an issue, where there is no image to be read."""
    detail = "is not there"
    if found.image is not None:
        try:
            width, height = image_size(found.image)
        except UserError as error:
            detail = f"cannot be read ({error})"
        else:
            if found.size not in (None, (width, height)):
                said = " x ".join(map(str, found.size or ()))
                detail = f"it is for {said} pixels and the image has {width} x {height}"
                issues.add("wrong size", found.source, "", detail)
            return width, height
    issues.add("missing image", found.source, "", f"the image {found.name!r} {detail}", boxes=len(found.claims))
    return None


def checked_class(claim: Claim, targets: Mapping[str, int], source: str, issues: Issues) -> int | None:
    """The number of its class; None, with an issue, where it is none of the classes."""
    if claim.name not in targets:
        issues.add("unknown class", source, claim.where, f"{claim.name!r:.60} is none of the classes", boxes=1)
    return targets.get(claim.name)
