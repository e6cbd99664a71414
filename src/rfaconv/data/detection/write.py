"""A data set in Ultralytics' form: images/, labels/ and data.yaml."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from rfaconv.data.annotations.issues import Issues, issues_csv
from rfaconv.data.detection.boxes import BoxedImage
from rfaconv.data.newfolder import new_folder, place_images


def write_all(
    out: Path, parts: Mapping[str, Sequence[BoxedImage]], classes: Sequence[str], issues: Issues, copy: bool
) -> None:
    """images/, labels/, data.yaml, and issues.csv where there were any; all of them or none."""
    with new_folder(out) as made:
        for part, images in parts.items():
            stems = place_images(made / "images" / part, [image.path for image in images], copy)
            (made / "labels" / part).mkdir(parents=True)
            for stem, image in zip(stems, images, strict=True):
                (made / "labels" / part / f"{stem}.txt").write_text(label_text(image), "utf-8")
        (made / "data.yaml").write_text(data_yaml(parts, classes), "utf-8")
        if issues.items:
            (made / "issues.csv").write_text(issues_csv(issues), "utf-8")


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
