"""From a folder to its labelled files: the layouts of image folders, and the choice between them."""

from __future__ import annotations

from pathlib import Path

from rfaconv.data.files import (
    LabelledFile,
    Listing,
    few,
    files_in,
    images_below,
    is_image,
    quoted,
    subfolders,
)
from rfaconv.data.imagenet import label_flat_val
from rfaconv.data.places import is_places, list_places
from rfaconv.data.unknown import what_is_there
from rfaconv.errors import UserError

KNOWN_LAYOUTS = (
    "one folder per class; train/ and val/ (or valid, validation, test) with one folder per class; "
    "ImageNet (Kaggle's ILSVRC/ or tiny-imagenet); Places365; MNIST-like IDX files"
)
_VAL_NAMES = ("val", "valid", "validation", "test")
# Kaggle's archive has the splits this deep; the csv of the validation labels lies at its root.
_KAGGLE_IMAGENET = ("ILSVRC/Data/CLS-LOC", "Data/CLS-LOC")


def list_files(root: Path) -> Listing:
    """The labelled files of an image folder in any known layout.

    Raises:
        UserError: no images, no layout that fits, a split or a class missing or empty, or a single class.
    """
    if is_places(root):
        listing = list_places(root)
    else:
        base = next((name for name in _KAGGLE_IMAGENET if (root / name).is_dir()), "")
        train, val = _find_splits(root / base)
        splits = bool(base or train or val)
        listing = _two_folders(root, base, train, val) if splits else _one_folder(root)
    if len(listing.classes) < 2:
        raise UserError(_single_class(root, listing.classes))
    return listing


def check_classes(root: Path, classes: tuple[str, ...], files: list[LabelledFile], part: str) -> None:
    """Raise a UserError naming the classes that have no image in this part of the data."""
    present = {file.target for file in files}
    empty = [name for target, name in enumerate(classes) if target not in present]
    if empty:
        raise UserError(
            f"No image of class {few(empty)} in {part} of {quoted(root)}: add images, or remove the class everywhere."
        )


def _find_splits(base: Path) -> tuple[str | None, str | None]:
    """The names of the training and the validation folder in `base`, None for what is not there."""
    folders = {name.lower(): name for name in reversed(subfolders(base))}
    train = folders.get("train")
    val = next((folders[name] for name in _VAL_NAMES if name in folders), None)
    if train and val:
        return train, val
    # A class may be called "train" (next to "car") or "test": alone, a split is one only if it holds folders.
    train_folders = train if train and subfolders(base / train) else None
    return train_folders, val if val and subfolders(base / val) else None


def _one_folder(root: Path) -> Listing:
    classes = tuple(subfolders(root))
    if not classes and _has_images(root):
        raise UserError(
            f"The images in {quoted(root)} are in no known layout (found: {what_is_there(root)}): sort them into one "
            f"of these: {KNOWN_LAYOUTS}."
        )
    return Listing(classes, _class_folders(root, "", classes), None)


def _two_folders(root: Path, base: str, train: str | None, val: str | None) -> Listing:
    if train is None or val is None:
        missing = "train" if train is None else f"validation ({' or '.join(_VAL_NAMES)})"
        there = train or val
        instead = f", or give {quoted(root / base / there)} to have a validation part split off" if there else ""
        raise UserError(f"{quoted(root / base)} has no {missing} folder with class folders in it: add it{instead}.")
    classes = tuple(subfolders(root / base / train))
    if not classes:
        raise UserError(f"{quoted(root / base / train)} has no class folders: sort its images into one per class.")
    train_files = _class_folders(root, _join(base, train), classes)
    val_files = _val_files(root, base, _join(base, val), classes)
    return Listing(classes, train_files, val_files)


def _val_files(root: Path, base: str, val: str, classes: tuple[str, ...]) -> list[LabelledFile]:
    folders = set(subfolders(root / val))
    if not folders & set(classes):
        labelled = label_flat_val(root, base, val, classes)
        if labelled is not None:
            return labelled
        if _has_images(root / val):
            raise UserError(
                f"The images in {quoted(root / val)} have no labels: sort them into class folders as in train, add "
                "LOC_val_solution.csv (Kaggle) or val_annotations.txt, or give the train folder alone to split it."
            )
    if not folders:
        raise UserError(f"{quoted(root / val)} has no class folders: sort its images into one per class.")
    _same_classes(root, val, folders, set(classes))
    return _class_folders(root, val, classes)


def _same_classes(root: Path, val: str, found: set[str], classes: set[str]) -> None:
    missing, extra = sorted(classes - found), sorted(found - classes)
    if missing:
        raise UserError(f"{quoted(root / val)} has no folder for class {few(missing)}, which train has: add it.")
    if extra:
        raise UserError(
            f"{quoted(root / val)} has a folder for class {few(extra)}, which train has not: "
            "add it to train, or remove it."
        )


def _class_folders(root: Path, split: str, classes: tuple[str, ...]) -> list[LabelledFile]:
    files: list[LabelledFile] = []
    empty: list[str] = []
    for target, name in enumerate(classes):
        images = images_below(root, _join(split, name))
        files += [LabelledFile(image, target) for image in images]
        if not images:
            empty.append(_join(split, name))
    if not files:
        raise UserError(f"No images under {quoted(root / split)}: give the folder of a data set ({KNOWN_LAYOUTS}).")
    if empty:
        raise UserError(
            f"No images in the class folder {few(empty)} of {quoted(root)}: add images, or remove the folder."
        )
    return files


def _has_images(folder: Path) -> bool:
    return any(map(is_image, files_in(folder)))


def _single_class(root: Path, classes: tuple[str, ...]) -> str:
    only = classes[0]
    inner = root / only
    # Archives often hold a folder of the archive's name: flowers/flowers/rose.
    if inner.is_dir() and len(subfolders(inner)) > 1:
        return f"{quoted(root)} has a single class folder, {quoted(only)}: did you mean {quoted(inner)}?"
    return f"{quoted(root)} has a single class, {quoted(only)}: a classifier needs two or more class folders."


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name
