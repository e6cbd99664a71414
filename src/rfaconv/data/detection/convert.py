"""`convert_detection`: a data set with boxes, in any form, as Ultralytics' data.yaml with images and labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rfaconv.data.annotations.issues import Issues
from rfaconv.data.annotations.layouts import read_source
from rfaconv.data.annotations.parts import Options
from rfaconv.data.detection.parts import checked_parts, with_validation
from rfaconv.data.detection.write import write_all
from rfaconv.data.files import existing_folder, quoted
from rfaconv.data.newfolder import free_folder
from rfaconv.errors import UserError


@dataclass(frozen=True)
class Converted:
    """A data set that was converted.

    Attributes:
        path: the data.yaml that was written.
        form: what it was made of: a name of `READERS`.
        classes: in the order of their numbers.
        images, boxes: kept ones, by part.
        per_class: kept boxes by class, over all parts.
        issues: what was wrong or left out.
    """

    path: Path
    form: str
    classes: tuple[str, ...]
    images: Mapping[str, int]
    boxes: Mapping[str, int]
    per_class: Mapping[str, int]
    issues: Issues


def convert_detection(
    root: str | Path,
    out: str | Path,
    *,
    form: str = "auto",
    classes: Sequence[str] = (),
    lenient: bool = False,
    keep_difficult: bool = False,
    crowds: str | None = None,
    copy: bool = False,
    val_fraction: float = 0.2,
    seed: int = 0,
) -> Converted:
    """Write `root` as images/, labels/ and data.yaml into the new folder `out`. Nothing is written under `root`.

    Args:
        root: a data set in one of the layouts of `rfaconv.data.annotations.layouts.READERS`, or an archive of one.
        out: a folder that does not exist yet, or is empty.
        form: a name of `READERS`; auto takes what is there.
        classes: the only ones that may occur, in their order; for VOC, whose files have no list. Without it VOC's own
            twenty, or what the training part has.
        lenient: repair and count what is wrong instead of refusing it (see `issues.REPAIRS`).
        keep_difficult: keep objects that VOC marks as difficult; its protocol leaves them out.
        crowds: keep or drop COCO's objects with iscrowd 1; None keeps them where datumaro or CVAT wrote the file.
        copy: copy the images; else they are hard links where the file system can, which take no room.
        val_fraction: images to hold out for validation where the data set has no such part.
        seed: of that choice.

    Raises:
        RefusedError: something is wrong with the annotations (and not `lenient`); has them all as `issues`.
        UserError: no known layout, a file on which the whole depends cannot be read, or `out` is taken.
    """
    root, out = existing_folder(root), free_folder(out)
    if crowds not in (None, "keep", "drop"):
        raise UserError(f"crowds must be keep or drop, got {crowds!r}.")
    if not 0 < val_fraction < 1:
        raise UserError(f"val_fraction must be between 0 and 1, got {val_fraction}.")
    issues = Issues()
    options = Options(tuple(classes), keep_difficult, crowds)
    source = read_source(root, issues, form=form, options=options)
    parts = checked_parts(root, source, issues)
    if not lenient:
        issues.refuse(root)
    kept = sum(len(image.boxes) for images in parts.values() for image in images)
    assert issues.found == kept + sum(issues.dropped.values()), "a box went missing"
    if not kept:
        raise UserError(f"{quoted(root)} has no box that can be used.")
    parts = with_validation(root, parts, val_fraction, seed, issues)
    write_all(out, parts, source.classes, issues, copy)
    counted = Counter(
        source.classes[box.target] for images in parts.values() for image in images for box in image.boxes
    )
    return Converted(
        out / "data.yaml",
        source.form,
        source.classes,
        {part: len(images) for part, images in parts.items()},
        {part: sum(len(image.boxes) for image in images) for part, images in parts.items()},
        {name: counted[name] for name in source.classes},
        issues,
    )


def told(converted: Converted) -> list[str]:
    """What was kept and what was not, in lines for people."""
    issues = converted.issues
    kept = sum(converted.boxes.values())
    parts = ", ".join(
        f"{part} {count:,} images with {converted.boxes[part]:,} boxes" for part, count in converted.images.items()
    )
    lines = [f"{converted.form}: {parts}; {len(converted.classes)} classes"]
    lines.append(f"boxes: {issues.found:,} found, {kept:,} kept, {issues.found - kept:,} left out")
    lines += [f"  {note}" for note in issues.told()]
    lines += [f"  {line}" for line in issues.repaired()]
    empty = [name for name, count in converted.per_class.items() if not count]
    if empty:
        lines.append(f"  without a box: {', '.join(empty)}")
    return lines
