"""Places365 as its authors ship it: lists of files next to folders of images."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from rfaconv.data.files import LabelledFile, Listing, quoted, read_lines, subfolders
from rfaconv.errors import UserError

_CATEGORIES, _TRAIN, _VAL = "categories_places365.txt", "places365_train_standard.txt", "places365_val.txt"
_SIZES = ("256", "large")


def is_places(root: Path) -> bool:
    """Whether `root` has one of Places365's lists or its flat validation folder."""
    return any((root / name).is_file() for name in (_CATEGORIES, _TRAIN, _VAL)) or any(
        (root / f"val_{size}").is_dir() for size in _SIZES
    )


def list_places(root: Path) -> Listing:
    """The files that the lists name; the small images (256 px) if both sizes are there.

    Raises:
        UserError: a list or a folder is missing, or a line of a list is not understood.
    """
    for name in (_CATEGORIES, _TRAIN, _VAL):
        if not (root / name).is_file():
            raise UserError(f"{quoted(root)} looks like Places365 but has no {name}: add it to the folder.")
    pairs = [(_train_folder(root, size), f"val_{size}") for size in _SIZES]
    found = [(train, val) for train, val in pairs if train and (root / val).is_dir()]
    if not found:
        raise UserError(
            f"{quoted(root)} has Places365's lists but not the folders of its images: "
            "add data_256* and val_256, or data_large* and val_large."
        )
    train, val = found[0]
    categories = _read(root / _CATEGORIES)
    classes = tuple(name for name, _ in sorted(categories, key=lambda pair: pair[1]))
    if [target for _, target in sorted(categories, key=lambda pair: pair[1])] != list(range(len(classes))):
        raise UserError(f"{quoted(root / _CATEGORIES)} does not number its classes 0, 1, 2, ...: add the missing ones.")
    return Listing(classes, _files(root / _TRAIN, train, len(classes)), _files(root / _VAL, val, len(classes)))


def _train_folder(root: Path, size: str) -> str:
    return next((name for name in subfolders(root) if name.startswith(f"data_{size}")), "")


def _files(path: Path, folder: str, classes: int) -> list[LabelledFile]:
    files = []
    for name, target in _read(path):
        if target >= classes:
            raise UserError(f"{quoted(path)} gives {quoted(name)} the class {target}, but there are only {classes}.")
        relative = PurePosixPath(name.lstrip("/"))
        if ".." in relative.parts:
            raise UserError(f"{quoted(path)} names {quoted(name)}, which is outside of the data set's folder.")
        files.append(LabelledFile(f"{folder}/{relative}", target))
    return files


def _read(path: Path) -> list[tuple[str, int]]:
    """The lines of 'name number'."""
    pairs = []
    for number, line in enumerate(read_lines(path), 1):
        name, _, target = line.strip().rpartition(" ")
        if not name or not (target.isascii() and target.isdigit()):
            raise UserError(f"Line {number} of {quoted(path)} is not of the form 'name number': {quoted(line[:60])}.")
        pairs.append((name, int(target)))
    if not pairs:
        raise UserError(f"{quoted(path)} is empty: give Places365's file unchanged.")
    return pairs
