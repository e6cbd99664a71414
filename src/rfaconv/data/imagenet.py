"""The labels of a flat validation folder: Kaggle's ImageNet and tiny-imagenet."""

from __future__ import annotations

import csv
from pathlib import Path, PurePosixPath

from rfaconv.data.files import LabelledFile, few, images_below, quoted, read_lines
from rfaconv.errors import UserError

_SOLUTION = "LOC_val_solution.csv"
_ANNOTATIONS = "val_annotations.txt"
_DEVKIT = "ILSVRC2012_validation_ground_truth.txt"


def label_flat_val(root: Path, base: str, val: str, classes: tuple[str, ...]) -> list[LabelledFile] | None:
    """Labelled files of root/val if there is a ground truth for them, else None.

    Every image listed is returned, those that are not on disk too: they count as broken later on.

    Raises:
        UserError: the ground truth is unreadable, names an unknown class, or leaves images without a label.
    """
    folders = [root / val, root / base, root]
    if (root / base).parts[-3:] == ("ILSVRC", "Data", "CLS-LOC"):
        folders.append((root / base).parents[2])
    for folder in folders:
        if (folder / _ANNOTATIONS).is_file():
            return _match(root, val, folder / _ANNOTATIONS, _read_annotations(folder / _ANNOTATIONS), classes)
        if (folder / _SOLUTION).is_file():
            return _match(root, val, folder / _SOLUTION, _read_solution(folder / _SOLUTION), classes)
    for folder in folders:
        if (folder / _DEVKIT).is_file():
            raise UserError(
                f"{quoted(folder / _DEVKIT)} numbers the classes in an order that it does not give: sort the images of "
                f"{quoted(root / val)} into class folders as in train/, or add {_SOLUTION} (Kaggle)."
            )
    return None


def _read_annotations(path: Path) -> dict[str, str]:
    """File name to class, from lines of 'name<TAB>class<TAB>box'."""
    rows = [line.split("\t") for line in read_lines(path)]
    if any(len(row) < 2 for row in rows):
        raise UserError(f"{quoted(path)} has a line without a class: expected 'image<TAB>class' in each.")
    return {row[0].strip(): row[1].strip() for row in rows}


def _read_solution(path: Path) -> dict[str, str]:
    """File name without suffix to class, from rows of 'ImageId,n01440764 x y x y n...'; the first class counts."""
    try:
        rows = list(csv.reader(read_lines(path)))
    except csv.Error as error:
        raise UserError(f"{quoted(path)} cannot be read as CSV ({error}): give Kaggle's file unchanged.") from error
    if not rows or [field.strip() for field in rows[0][:2]] != ["ImageId", "PredictionString"]:
        raise UserError(f"{quoted(path)} does not begin with 'ImageId,PredictionString': give Kaggle's file unchanged.")
    if any(len(row) < 2 or not row[1].strip() for row in rows[1:]):
        raise UserError(f"{quoted(path)} has a row without a class: give Kaggle's file unchanged.")
    return {row[0].strip(): row[1].split()[0] for row in rows[1:]}


def _match(root: Path, val: str, source: Path, labels: dict[str, str], classes: tuple[str, ...]) -> list[LabelledFile]:
    targets = {name: target for target, name in enumerate(classes)}
    unknown = sorted(set(labels.values()) - set(targets))
    if unknown:
        raise UserError(f"{quoted(source)} names class {few(unknown)}, which has no folder in train: add it.")
    # The two sources differ in whether they name the suffix; both are matched without it.
    by_stem = {PurePosixPath(name).stem: label for name, label in labels.items()}
    on_disk = {PurePosixPath(name).stem: name for name in images_below(root, val)}
    unlabelled = sorted(name for stem, name in on_disk.items() if stem not in by_stem)
    if unlabelled:
        raise UserError(f"{quoted(source)} has no label for {few(unlabelled)} of {quoted(root)}: remove such images.")
    return sorted(
        LabelledFile(on_disk.get(stem, f"{val}/{stem}.JPEG"), targets[label]) for stem, label in by_stem.items()
    )
