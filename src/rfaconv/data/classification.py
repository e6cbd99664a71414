"""`load_classification`: a folder, or the embedded images, as training and validation data."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor
from torchvision.transforms.v2.functional import rgb_to_grayscale

from rfaconv.data.decode import image_size
from rfaconv.data.files import LabelledFile, Listing, existing_folder, few, printable, quoted
from rfaconv.data.idx import IdxData, find_idx, load_idx
from rfaconv.data.layouts import check_classes, list_files
from rfaconv.data.sampling import split
from rfaconv.data.sources import ArrayImages, FileImages, ImageSource
from rfaconv.data.verify import Progress, Stat, absent, broken_message, find_broken, stat_files, survey
from rfaconv.errors import UserError

_EMBEDDED = Path(__file__).parent / "fashion_mnist"


SMALL = 112
"""Half of 224 px, to which images of a folder are brought otherwise."""


@dataclass(frozen=True)
class ClassificationData:
    """Images of classes in two parts."""

    name: str
    """The folder's name, or "Fashion-MNIST subset (embedded)"."""
    classes: tuple[str, ...]
    channels: int
    """1 or 3."""
    train: ImageSource
    val: ImageSource
    fingerprint: str
    """16 hex digits of a SHA-256. IDX files: over shapes, pixels, labels and class names. Folders: over the names
    relative to the root, sizes in bytes, classes and parts (training or validation) of the files used; not over pixels,
    nor over where the folder lies."""
    skipped: tuple[str, ...] = ()
    """Files that skip_broken left out, relative to the root."""
    image_size: tuple[int, int] | None = None
    """(height, width) of IDX files; of folders the largest, where all images have at most `SMALL` pixels a side; else
    None. Pictures of 32 px brought to 224 would cost fifty times what they need."""


def load_classification(
    root: str | Path | None = None,
    *,
    seed: int = 0,
    val_fraction: float = 0.2,
    channels: int | None = None,
    skip_broken: bool = False,
    verify: bool = True,
    progress: Progress | None = None,
) -> ClassificationData:
    """Find out how a folder is laid out, check its files, and return its two parts. Nothing is written under `root`.

    Layouts:
        - one folder per class, from which a validation part is split off, class by class;
        - train/ and val/ with one folder per class each (val may be called valid, validation or test);
        - ImageNet: train/<wnid>/ and val/<wnid>/, or a flat val/ with LOC_val_solution.csv (Kaggle; also as
          ILSVRC/Data/CLS-LOC/ with the csv at the root) or val_annotations.txt (tiny-imagenet);
        - Places365: its file lists next to data_256* and val_256, or data_large* and val_large;
        - MNIST-like IDX files, plain or gzipped, also in torchvision's <name>/raw/; t10k-* is the validation part.

    Hidden files and files that are no images are ignored. Alpha is dropped, EXIF's orientation is applied.

    Args:
        root: the folder; None or "embedded" for the embedded subset of Fashion-MNIST.
        seed: of the split; the layouts that have a validation part do not depend on it.
        val_fraction: part of each class to split off, between 0 and 1; at least one image stays on either side.
        channels: 1 or 3; None for what IDX files have, and 3 for folders.
        skip_broken: leave broken and missing files out instead of refusing them.
        verify: decode every file now (once: the result is cached). False: only files that are missing are found.
        progress: called with (files done, files in all) during that.

    Raises:
        UserError: one sentence that says what is wrong, where, and what to do.
    """
    if channels not in (None, 1, 3):
        raise UserError(f"channels must be 1 or 3, got {channels}.")
    if not 0 < val_fraction < 1:
        raise UserError(f"val_fraction must be between 0 and 1, got {val_fraction}.")
    if root is None or root == "embedded":
        return _from_idx(load_idx(_EMBEDDED), "Fashion-MNIST subset (embedded)", channels)
    root = existing_folder(root)
    idx = find_idx(root)
    if idx is not None:
        name = idx.parent.name if idx.name == "raw" else idx.name
        return _from_idx(load_idx(idx), name, channels)
    listing = list_files(root)
    files = listing.train + (listing.val or [])
    stats = stat_files(root, [file.name for file in files])
    broken = {name: reason for name, stat in stats.items() if (reason := absent(stat))}
    if verify:
        there = {name: stat for name, stat in stats.items() if name not in broken}
        broken |= find_broken(root, there, channels or 3, progress)
    if broken and not skip_broken:
        raise UserError(broken_message(root, broken, len(stats)))
    return _from_files(
        root, _without(root, listing, broken), stats, tuple(sorted(broken)), channels or 3, seed, val_fraction
    )


def _small_size(root: Path, listing: Listing, stats: Mapping[str, Stat]) -> tuple[int, int] | None:
    """(height, width) that no image exceeds, where that is small; from their headers, kept in the cache."""
    names = sorted(file.name for file in listing.train + (listing.val or []))
    try:
        first = image_size(root / names[0])
        if max(first) > SMALL:
            return None

        def look(name: str) -> str:
            size = image_size(root / name)
            return "" if size == first else f"{size[0]} {size[1]}"

        found = survey(root, {name: stats[name] for name in names}, names, f"sizes {first}", look, None)
    except UserError:  # a file that is no image, and the user said not to look
        return None
    # What is no size says what is wrong with a file that the user did not want checked.
    sizes = [first, *(tuple(map(int, text.split())) for text in found.values() if text.replace(" ", "").isdigit())]
    width, height = (max(size[i] for size in sizes) for i in (0, 1))
    return (height, width) if max(width, height) <= SMALL else None


def _from_idx(data: IdxData, name: str, channels: int | None) -> ClassificationData:
    digest = hashlib.sha256("\0".join(data.classes).encode())
    for images, labels in ((data.train_images, data.train_labels), (data.val_images, data.val_labels)):
        digest.update(str(tuple(images.shape)).encode())
        digest.update(images.numpy().data)
        digest.update(str(labels).encode())
    channels = channels or data.train_images.shape[1]
    height, width = data.train_images.shape[2:]
    return ClassificationData(
        name,
        data.classes,
        channels,
        ArrayImages(_with_channels(data.train_images, channels), data.train_labels, "train"),
        ArrayImages(_with_channels(data.val_images, channels), data.val_labels, "t10k"),
        digest.hexdigest()[:16],
        image_size=(height, width),
    )


def _with_channels(images: Tensor, channels: int) -> Tensor:
    if images.shape[1] == channels:
        return images
    return images.expand(-1, 3, -1, -1) if channels == 3 else rgb_to_grayscale(images)


def _from_files(
    root: Path,
    listing: Listing,
    stats: Mapping[str, Stat],
    skipped: tuple[str, ...],
    channels: int,
    seed: int,
    val_fraction: float,
) -> ClassificationData:
    train, val = listing.train, listing.val
    if val is None:
        train, val = _split(root, listing.classes, train, seed, val_fraction)
    digest = hashlib.sha256()
    for part, files in (("train", train), ("val", val)):
        for file in sorted(files):
            line = f"{part}\0{file.name}\0{stats[file.name].size}\0{listing.classes[file.target]}\0"
            digest.update(os.fsencode(line))
    return ClassificationData(
        printable(root.name or str(root)),
        tuple(map(printable, listing.classes)),
        channels,
        FileImages(root, train, channels),
        FileImages(root, val, channels),
        digest.hexdigest()[:16],
        tuple(map(printable, skipped)),
        _small_size(root, listing, stats),
    )


def _split(
    root: Path, classes: tuple[str, ...], files: Sequence[LabelledFile], seed: int, fraction: float
) -> tuple[list[LabelledFile], list[LabelledFile]]:
    """Each class by itself, so that a file more in one class leaves the others' split as it is."""
    by_class: list[list[LabelledFile]] = [[] for _ in classes]
    for file in files:
        by_class[file.target].append(file)
    single = [name for name, members in zip(classes, by_class, strict=True) if len(members) == 1]
    if single:
        raise UserError(
            f"Class {few(single)} of {quoted(root)} has a single image, but training and validation need one each: "
            "add images, or remove the class."
        )
    train: list[LabelledFile] = []
    val: list[LabelledFile] = []
    for name, members in zip(classes, by_class, strict=True):
        order, held_out = split(len(members), fraction, seed, name)
        val += sorted(members[i] for i in order[:held_out])
        train += sorted(members[i] for i in order[held_out:])
    return train, val


def _without(root: Path, listing: Listing, broken: Mapping[str, str]) -> Listing:
    train = [file for file in listing.train if file.name not in broken]
    val = None if listing.val is None else [file for file in listing.val if file.name not in broken]
    check_classes(root, listing.classes, train, "the training images" if val is not None else "the readable images")
    if val is not None:
        check_classes(root, listing.classes, val, "the validation images")
    return Listing(listing.classes, train, val)
