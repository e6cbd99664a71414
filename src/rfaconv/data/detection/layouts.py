"""From a folder to its annotated images: which form the annotations have."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rfaconv.data.detection.coco import coco_files, read_coco_parts
from rfaconv.data.detection.findings import Findings
from rfaconv.data.detection.parts import Source
from rfaconv.data.detection.voc import find_voc, read_voc_parts
from rfaconv.data.detection.yolo import find_yaml, read_yolo
from rfaconv.data.files import quoted
from rfaconv.errors import UserError, unknown_name

FORMATS = ("voc", "coco", "yolo")
KNOWN_LAYOUTS = (
    "VOC (VOCdevkit/VOC20xx with Annotations/, JPEGImages/ and ImageSets/Main/, or XML files beside their images), "
    "COCO (annotations/instances_*.json, or _annotations.coco.json in train/, valid/ and test/), "
    "YOLO (a data.yaml; images/ and labels/)"
)


def read_source(
    root: Path, findings: Findings, *, form: str = "auto", classes: Sequence[str] = (), keep_difficult: bool = False
) -> Source:
    """Read all annotations under `root`.

    Args:
        root: the data set's folder.
        findings: what is wrong, file by file.
        form: voc, coco, yolo, or auto for the one that is there.
        classes: the only ones that may occur, in their order (VOC has no list of its own).
        keep_difficult: keep objects that VOC marks as difficult.

    Raises:
        UserError: no known form, several of them, or a file that the whole depends on cannot be read.
    """
    if form != "auto" and form not in FORMATS:
        unknown_name("form of annotations", form, [*FORMATS, "auto"])
    there: dict[str, Any] = {"yolo": find_yaml(root), "coco": coco_files(root), "voc": find_voc(root)}
    forms = [name for name, found in there.items() if found] if form == "auto" else [form]
    if len(forms) > 1:
        raise UserError(f"{quoted(root)} has annotations of several forms ({', '.join(forms)}): choose with --format.")
    if not forms or not there[forms[0]]:
        raise UserError(f"{quoted(root)} has annotations in no known layout; there are: {KNOWN_LAYOUTS}.")
    if forms[0] == "yolo":
        source = read_yolo(root, there["yolo"], findings)
    elif forms[0] == "coco":
        source = read_coco_parts(root, there["coco"], findings)
    else:
        source = read_voc_parts(root, there["voc"], findings, tuple(classes), keep_difficult)
    if classes:
        source.classes = tuple(classes)
    _check_names(root, source.classes)
    return source


def _check_names(root: Path, classes: Sequence[str]) -> None:
    if not classes:
        raise UserError(f"{quoted(root)} has no class.")
    for name in classes:
        if not name or not name.isprintable():
            raise UserError(f"{name!r:.60} is no name for a class ({quoted(root)}).")
    if len(set(classes)) != len(classes):
        twice = next(name for name in classes if list(classes).count(name) > 1)
        raise UserError(f"The class {twice!r:.60} of {quoted(root)} is named twice.")
