"""A data set in Ultralytics' form: images/, labels/ and data.yaml."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

from rfaconv.data.detection.boxes import BoxedImage
from rfaconv.data.annotations.issues import Issues, issues_csv
from rfaconv.data.files import quoted
from rfaconv.errors import UserError

_READABLE = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
"""What Ultralytics reads of the images that we know; others are written as PNG."""


def write_all(
    out: Path, parts: Mapping[str, Sequence[BoxedImage]], classes: Sequence[str], issues: Issues, copy: bool
) -> None:
    """Everything into a folder beside `out`, which then takes its place: a kill leaves no half of a data set."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
    except OSError as error:
        raise UserError(f"{quoted(out)} cannot be written: {error.strerror}.") from error
    try:
        for part, images in parts.items():
            _write_part(made, part, images, copy)
        (made / "data.yaml").write_text(data_yaml(parts, classes), "utf-8")
        if issues.items:
            (made / "issues.csv").write_text(issues_csv(issues), "utf-8")
        made.chmod(0o755)
        if out.exists():
            out.rmdir()
        made.rename(out)
    except OSError as error:
        raise UserError(f"{quoted(out)} cannot be written: {error.strerror or error}.") from error
    finally:
        shutil.rmtree(made, ignore_errors=True)


def data_yaml(parts: Sequence[str] | Mapping[str, Any], classes: Sequence[str]) -> str:
    """Ultralytics' data.yaml; without `path` the folders are those beside the file, so it can be moved."""
    record = {**{part: f"images/{part}" for part in parts}, "names": dict(enumerate(classes))}
    return "# Written by rfaconv.\n" + yaml.safe_dump(record, sort_keys=False, allow_unicode=True)


def label_text(image: BoxedImage) -> str:
    """YOLO's lines of an image: class, centre, width and height in fractions."""
    lines = []
    for target, left, top, right, bottom in image.boxes:
        middle = (left + right) / 2 / image.width, (top + bottom) / 2 / image.height
        extent = (right - left) / image.width, (bottom - top) / image.height
        lines.append(f"{target} " + " ".join(f"{value:.8f}" for value in (*middle, *extent)) + "\n")
    return "".join(lines)


def _write_part(out: Path, part: str, images: Sequence[BoxedImage], copy: bool) -> None:
    (out / "images" / part).mkdir(parents=True)
    (out / "labels" / part).mkdir(parents=True)
    taken: set[str] = set()
    for image in images:
        stem, suffix = image.path.stem, image.path.suffix.lower()
        number = 1
        while stem.lower() in taken:  # of folders that do not tell a from A, too
            number += 1
            stem = f"{image.path.stem}-{number}"
        taken.add(stem.lower())
        target = out / "images" / part / f"{stem}{suffix if suffix in _READABLE else '.png'}"
        _place(image.path, target, copy)
        (out / "labels" / part / f"{stem}.txt").write_text(label_text(image), "utf-8")


def _place(source: Path, target: Path, copy: bool) -> None:
    if target.suffix != source.suffix.lower():
        with Image.open(source) as file:
            file.save(target)
        return
    if not copy:
        with suppress(OSError):
            os.link(source.resolve(), target)
            return
    shutil.copyfile(source, target)
