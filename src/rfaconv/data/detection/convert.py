"""`convert_detection`: a data set with boxes, in any form, as Ultralytics' data.yaml with images and labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rfaconv.data.detection.boxes import BoxedImage, settle
from rfaconv.data.detection.findings import NOTES, REPAIRS, Findings
from rfaconv.data.detection.layouts import read_source
from rfaconv.data.detection.write import write_all
from rfaconv.data.files import existing_folder, quoted
from rfaconv.data.sampling import split
from rfaconv.errors import UserError


@dataclass(frozen=True)
class Converted:
    """A data set that was converted.

    Attributes:
        path: the data.yaml that was written.
        form: what it was made of: voc, coco or yolo.
        classes: in the order of their numbers.
        images, boxes: kept ones, by part.
        per_class: kept boxes by class, over all parts.
        findings: what was wrong or left out.
    """

    path: Path
    form: str
    classes: tuple[str, ...]
    images: Mapping[str, int]
    boxes: Mapping[str, int]
    per_class: Mapping[str, int]
    findings: Findings


def convert_detection(
    root: str | Path,
    out: str | Path,
    *,
    form: str = "auto",
    classes: Sequence[str] = (),
    lenient: bool = False,
    keep_difficult: bool = False,
    copy: bool = False,
    val_fraction: float = 0.2,
    seed: int = 0,
) -> Converted:
    """Write `root` as images/, labels/ and data.yaml into the new folder `out`. Nothing is written under `root`.

    Args:
        root: a data set with PASCAL VOC's XML files (07+12 in VOCdevkit/, or beside their images), COCO's JSON files,
            or YOLO's labels; Roboflow's exports in these forms among them.
        out: a folder that does not exist yet, or is empty.
        form: voc, coco or yolo; auto takes what is there.
        classes: the only ones that may occur, in their order; for VOC, whose files have no list. Without it VOC's own
            twenty, or what the training part has.
        lenient: repair and count what is wrong instead of refusing it (see `findings.REPAIRS`).
        keep_difficult: keep objects that VOC marks as difficult; its protocol leaves them out.
        copy: copy the images; else they are hard links where the file system can, which take no room.
        val_fraction: images to hold out for validation where the data set has no such part.
        seed: of that choice.

    Raises:
        RefusedError: something is wrong with the annotations (and not `lenient`); has them all as `findings`.
        UserError: no known layout, a file on which the whole depends cannot be read, or `out` is taken.
    """
    root, out = existing_folder(root), Path(out).expanduser()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{quoted(out)} is not empty: choose another folder, or delete it.")
    if not 0 < val_fraction < 1:
        raise UserError(f"val_fraction must be between 0 and 1, got {val_fraction}.")
    findings = Findings()
    source = read_source(root, findings, form=form, classes=classes, keep_difficult=keep_difficult)
    targets = {name: target for target, name in enumerate(source.classes)}
    parts = {
        part: [image for record in records if (image := settle(record, targets, findings)) is not None]
        for part, records in source.parts.items()
    }
    parts = _once(root, parts, findings)
    if not lenient:
        findings.refuse(root)
    kept = sum(len(image.boxes) for images in parts.values() for image in images)
    assert findings.found == kept + sum(findings.dropped.values()), "a box went missing"
    if not kept:
        raise UserError(f"{quoted(root)} has no box that can be used.")
    parts = _with_validation(root, parts, val_fraction, seed, findings)
    write_all(out, parts, source.classes, findings, copy)
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
        findings,
    )


def _once(root: Path, parts: dict[str, list[BoxedImage]], findings: Findings) -> dict[str, list[BoxedImage]]:
    """Each image in one part only: validation on trained images would flatter."""
    owner: dict[Path, str] = {}
    kept: dict[str, list[BoxedImage]] = {}
    for part, images in parts.items():
        kept[part] = []
        for image in images:
            if image.path not in owner:
                owner[image.path] = part
                kept[part].append(image)
                continue
            name = image.path.relative_to(root).as_posix() if image.path.is_relative_to(root) else str(image.path)
            detail = f"the image is in {owner[image.path]} already"
            findings.add("duplicate", name, "", detail, boxes=len(image.boxes))
    return kept


def _with_validation(
    root: Path, parts: dict[str, list[BoxedImage]], fraction: float, seed: int, findings: Findings
) -> dict[str, list[BoxedImage]]:
    """The parts, a validation part among them: test where there is none, else a part of the training images."""
    parts = {part: images for part, images in parts.items() if images}
    if "val" not in parts and "test" in parts and "train" in parts:
        findings.note("test as val")
        parts["val"] = parts.pop("test")
    if "val" not in parts and len(parts.get("train", ())) > 1:
        images = parts["train"]
        order, held_out = split(len(images), fraction, seed, "detection")
        findings.note("split", held_out)
        parts["val"] = [images[i] for i in sorted(order[:held_out])]
        parts["train"] = [images[i] for i in sorted(order[held_out:])]
    if "train" not in parts or "val" not in parts:
        raise UserError(f"{quoted(root)} has no images for {'validation' if 'train' in parts else 'training'}.")
    return {part: parts[part] for part in ("train", "val", "test") if part in parts}


def told(converted: Converted) -> list[str]:
    """What was kept and what was not, in lines for people."""
    findings = converted.findings
    kept = sum(converted.boxes.values())
    parts = ", ".join(
        f"{part} {count:,} images with {converted.boxes[part]:,} boxes" for part, count in converted.images.items()
    )
    lines = [f"{converted.form}: {parts}; {len(converted.classes)} classes"]
    lines.append(f"boxes: {findings.found:,} found, {kept:,} kept, {findings.found - kept:,} left out")
    for kind, count in findings.notes.items():
        lines.append(f"  {count:,} {NOTES[kind]}")
    for kind, count in findings.counts().items():
        left_out = f" ({findings.dropped[kind]:,} boxes)" if findings.dropped[kind] else ""
        lines.append(f"  repaired: {count:,} x {kind}: {REPAIRS[kind]}{left_out}")
    empty = [name for name, count in converted.per_class.items() if not count]
    if empty:
        lines.append(f"  without a box: {', '.join(empty)}")
    return lines
