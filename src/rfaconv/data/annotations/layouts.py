"""From a folder to its annotated images: which format the annotations have."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rfaconv.data.annotations.boxtable import find_box_table, read_box_table
from rfaconv.data.annotations.coco import find_coco, read_coco_parts
from rfaconv.data.annotations.createml import find_createml, read_createml
from rfaconv.data.annotations.cvat import find_cvat, read_cvat
from rfaconv.data.annotations.issues import Issues
from rfaconv.data.annotations.kitti import find_kitti, read_kitti
from rfaconv.data.annotations.labelme import find_labelme, read_labelme
from rfaconv.data.annotations.labelstudio import find_label_studio, read_label_studio
from rfaconv.data.annotations.parts import Options, Reader, Source
from rfaconv.data.annotations.voc import find_voc, read_voc_parts
from rfaconv.data.annotations.yolo import find_yolo, read_yolo
from rfaconv.data.files import quoted
from rfaconv.data.unknown import unknown_layout
from rfaconv.errors import UserError, unknown_name

READERS = {
    reader.name: reader
    for reader in (
        Reader(
            "voc",
            "VOC (Annotations/, JPEGImages/ and ImageSets/Main/, in VOCdevkit/VOC20xx/ or not; or XML files beside "
            "their images or in Annotations/ beside images/)",
            find_voc,
            read_voc_parts,
        ),
        Reader(
            "coco",
            "COCO (annotations/instances_*.json; _annotations.coco.json in train/, valid/ and test/; or one JSON file "
            "beside images/)",
            find_coco,
            read_coco_parts,
        ),
        Reader(
            "yolo",
            "YOLO (a data.yaml; classes.txt with labels beside the images, or in labels/ beside images/; CVAT's "
            "obj.data and obj.names)",
            find_yolo,
            read_yolo,
        ),
        Reader("cvat", "CVAT's annotations.xml beside images/", find_cvat, read_cvat),
        Reader("labelstudio", "Label Studio's JSON or JSON_MIN beside images/", find_label_studio, read_label_studio),
        Reader("createml", "_annotations.createml.json beside the images", find_createml, read_createml),
        Reader("labelme", "LabelMe's JSON or XML files", find_labelme, read_labelme),
        Reader("kitti", "KITTI's image_2/ and label_2/", find_kitti, read_kitti),
        Reader("csv", "_annotations.csv beside the images", find_box_table, read_box_table),
    )
}
KNOWN_LAYOUTS = ", ".join(reader.layout for reader in READERS.values())


def find_annotations(root: Path, names: Sequence[str] = tuple(READERS)) -> dict[str, Any]:
    """The formats of these names that are there, each with what its reader needs."""
    found = {name: READERS[name].find(root) for name in names}
    return {name: what for name, what in found.items() if what}


def read_source(root: Path, issues: Issues, *, form: str = "auto", options: Options = Options()) -> Source:  # noqa: B008
    """Read all annotations under `root`.

    Args:
        root: the data set's folder.
        issues: what is wrong, file by file.
        form: a name of `READERS`, or auto for the format that is there.
        options: what a user says of them.

    Raises:
        UserError: no known format, several of them, or a file that the whole depends on cannot be read.
    """
    if form != "auto" and form not in READERS:
        unknown_name("format of annotations", form, [*READERS, "auto"])
    there = find_annotations(root) if form == "auto" else {form: READERS[form].find(root)}
    if len(there) > 1:
        raise UserError(f"{quoted(root)} has annotations of several forms ({', '.join(there)}): choose with --format.")
    if not there or not all(there.values()):
        raise unknown_layout(root, "annotations", KNOWN_LAYOUTS)
    [(name, found)] = there.items()
    source = READERS[name].read(root, found, issues, options)
    if options.classes:
        source.classes = options.classes
    if not source.classes:  # nothing could be read: that is what to say
        issues.refuse(root)
    _check_names(root, source.classes)
    return source


def _check_names(root: Path, classes: Sequence[str]) -> None:
    if not classes:
        raise UserError(f"{quoted(root)} has no class: its annotations hold no object.")
    for name in classes:
        if not name or not name.isprintable():
            raise UserError(f"{name!r:.60} is no name for a class ({quoted(root)}).")
    if len(set(classes)) != len(classes):
        twice = next(name for name in classes if list(classes).count(name) > 1)
        raise UserError(f"The class {twice!r:.60} of {quoted(root)} is named twice.")
