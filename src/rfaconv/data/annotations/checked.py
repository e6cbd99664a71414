"""What is held against an image before its objects are used, whatever they are used for."""

from __future__ import annotations

from collections.abc import Mapping

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
