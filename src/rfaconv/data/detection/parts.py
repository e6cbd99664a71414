"""Any folder with boxes to checked parts: what training and conversion share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rfaconv.data.annotations.checked import once
from rfaconv.data.annotations.issues import Issues
from rfaconv.data.annotations.parts import Source, relative_name
from rfaconv.data.detection.boxes import BoxedImage, settle
from rfaconv.data.files import quoted
from rfaconv.data.sampling import split
from rfaconv.errors import UserError


def checked_parts(root: Path, source: Source, issues: Issues) -> dict[str, list[BoxedImage]]:
    """The images of each part with the boxes that can be used, each image in one part only."""
    targets = {name: target for target, name in enumerate(source.classes)}
    parts = {
        part: [image for record in records if (image := settle(record, targets, issues)) is not None]
        for part, records in source.parts.items()
    }
    return once(parts, lambda image: Path(relative_name(image.path, root)), lambda image: len(image.boxes), issues)


def with_validation(
    root: Path, parts: dict[str, list[BoxedImage]], fraction: float, seed: int, issues: Issues
) -> dict[str, list[BoxedImage]]:
    """The parts, a validation part among them: test where there is none, else a part of the training images."""
    parts = {part: images for part, images in parts.items() if images}
    if "val" not in parts and "test" in parts and "train" in parts:
        issues.note("test as val")
        parts["val"] = parts.pop("test")
    if "val" not in parts and len(parts.get("train", ())) > 1:
        images: Sequence[BoxedImage] = parts["train"]
        order, held_out = split(len(images), fraction, seed, "detection")
        issues.note("split", held_out)
        parts["val"] = [images[i] for i in sorted(order[:held_out])]
        parts["train"] = [images[i] for i in sorted(order[held_out:])]
    if "train" not in parts or "val" not in parts:
        raise UserError(f"{quoted(root)} has no images for {'validation' if 'train' in parts else 'training'}.")
    return {part: parts[part] for part in ("train", "val", "test") if part in parts}
