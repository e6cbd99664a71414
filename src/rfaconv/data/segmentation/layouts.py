"""From a folder to its images with masks: the layouts of segmentation data, and the choice between them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rfaconv.data.files import few, files_in, images_below, quoted, read_lines, subfolders
from rfaconv.data.segmentation.cityscapes import CITYSCAPES_CLASSES, TRAIN_IDS
from rfaconv.data.segmentation.pairs import MASK_FOLDERS, pair_up
from rfaconv.data.segmentation.sources import Pair
from rfaconv.errors import UserError

KNOWN_LAYOUTS = (
    "images/ beside masks/ (each with train/ and val/ in it, or train/ and val/ with both in them); VOC 2012 "
    "(JPEGImages/, SegmentationClass/, ImageSets/Segmentation/); Cityscapes (leftImg8bit/, gtFine/); COCO "
    "(annotations/instances_*.json, or _annotations.coco.json in train/ and valid/)"
)
VOC_CLASSES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat",
    "chair", "cow", "diningtable", "dog", "horse", "motorbike", "person", "pottedplant",
    "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
_IMAGE_FOLDERS = ("images", "image", "imgs", "img", "JPEGImages")
_VAL_NAMES = ("val", "valid", "validation", "test")


@dataclass(frozen=True)
class Layout:
    """Pairs of files, and what the layout knows of their classes."""

    train: list[Pair]
    val: list[Pair] | None
    """None: a part of `train` is to be held out."""
    classes: tuple[str, ...] | None = None
    lookup: tuple[int, ...] | None = None


def find_pairs(root: Path) -> Layout:
    """The pairs under `root` in any known layout of files.

    Raises:
        UserError: no known layout, a part missing or empty, an image without a mask or the other way round.
    """
    for candidate in (root, root / "VOC2012", root / "VOCdevkit" / "VOC2012"):
        if (candidate / "ImageSets" / "Segmentation").is_dir() and (candidate / "SegmentationClass").is_dir():
            return _voc(root, candidate.relative_to(root).as_posix())
    if (root / "leftImg8bit").is_dir() and (root / "gtFine").is_dir():
        return _cityscapes(root)
    image_folder, mask_folder = _first(root, _IMAGE_FOLDERS), _first(root, MASK_FOLDERS)
    if image_folder and mask_folder:
        return _beside(root, image_folder, mask_folder)
    train, val = _first(root, ("train", "training")), _first(root, _VAL_NAMES)
    if train and _first(root / train, _IMAGE_FOLDERS) and _first(root / train, MASK_FOLDERS):
        parts = [_inside(root, part) for part in (train, val) if part]
        return Layout(parts[0], parts[1] if val else None)
    raise UserError(f"{quoted(root)} has images with masks in no known layout; there are: {KNOWN_LAYOUTS}.")


def _voc(root: Path, base: str) -> Layout:
    folder = root / base
    lists = folder / "ImageSets" / "Segmentation"
    masks = "SegmentationClass"
    train = lists / "train.txt"
    # SBD's extra masks as everyone passes them on: a folder of PNGs and a longer list.
    augmented = [path for name in ("trainaug.txt", "train_aug.txt") if (path := lists / name).is_file()]
    if augmented and (folder / "SegmentationClassAug").is_dir():
        train, masks = augmented[0], "SegmentationClassAug"
    prefix = "" if base == "." else f"{base}/"
    return Layout(_listed(train, prefix, masks), _listed(lists / "val.txt", prefix, "SegmentationClass"), VOC_CLASSES)


def _listed(path: Path, prefix: str, masks: str) -> list[Pair]:
    """Pairs from a list of names, or of 'image mask' lines as SBD's lists have them."""
    if not path.is_file():
        raise UserError(f"There is no list {quoted(path)}.")
    pairs = []
    for line in read_lines(path):
        words = line.split()
        if len(words) == 2:
            pairs.append(Pair(*(prefix + word.lstrip("/") for word in words)))
        else:
            name = line.strip()
            pairs.append(Pair(f"{prefix}JPEGImages/{name}.jpg", f"{prefix}{masks}/{name}.png"))
    if not pairs:
        raise UserError(f"The list {quoted(path)} names no image.")
    return pairs


def _cityscapes(root: Path) -> Layout:
    parts = {
        part: pair_up(root, images_below(root, f"leftImg8bit/{part}"), images_below(root, f"gtFine/{part}"))
        for part in ("train", "val")
    }
    by_train_id = parts["train"][0].mask.endswith("labelTrainIds.png")
    return Layout(parts["train"], parts["val"], CITYSCAPES_CLASSES, None if by_train_id else TRAIN_IDS)


def _beside(root: Path, image_folder: str, mask_folder: str) -> Layout:
    train, val = _first(root / image_folder, ("train", "training")), _first(root / image_folder, _VAL_NAMES)
    if train and val:
        for part in (train, val):
            if part not in subfolders(root / mask_folder):
                raise UserError(f"{quoted(root / mask_folder)} has no folder {part!r}, which {image_folder}/ has.")
        parts = [
            pair_up(root, images_below(root, f"{image_folder}/{part}"), images_below(root, f"{mask_folder}/{part}"))
            for part in (train, val)
        ]
        return Layout(parts[0], parts[1])
    return Layout(pair_up(root, images_below(root, image_folder), images_below(root, mask_folder)), None)


def _inside(root: Path, part: str) -> list[Pair]:
    images, masks = _first(root / part, _IMAGE_FOLDERS), _first(root / part, MASK_FOLDERS)
    if not images or not masks:
        raise UserError(f"{quoted(root / part)} needs images/ and masks/ in it.")
    return pair_up(root, images_below(root, f"{part}/{images}"), images_below(root, f"{part}/{masks}"))


def _first(folder: Path, names: tuple[str, ...]) -> str | None:
    there = set(subfolders(folder)) if folder.is_dir() else set()
    return next((name for name in names if name in there), None)


@dataclass(frozen=True)
class ClassList:
    """What classes.txt says: names, and a colour each if it gives them."""

    names: tuple[str, ...]
    colours: tuple[tuple[int, int, int], ...] | None


def read_classes(root: Path) -> ClassList | None:
    """classes.txt under `root`: a line a class, the first for id 0: 'name', or 'name red green blue'; None without.

    Raises:
        UserError: fewer than two classes, a name or a colour twice, or a line that is neither.
    """
    if "classes.txt" not in files_in(root):
        return None
    path = root / "classes.txt"
    names, colours = list[str](), list[tuple[int, int, int]]()
    for number, line in enumerate(read_lines(path), 1):
        words = line.split()
        if len(words) > 3 and all(word.isascii() and word.isdigit() for word in words[-3:]):
            red, green, blue = (int(word) for word in words[-3:])
            if max(red, green, blue) > 255:
                raise UserError(f"Line {number} of {quoted(path)} has a colour beyond 255: {quoted(line[:60])}.")
            colours.append((red, green, blue))
            words = words[:-3]
        names.append(" ".join(words))
    if len(names) < 2:
        raise UserError(f"{quoted(path)} names fewer than two classes.")
    if colours and len(colours) != len(names):
        raise UserError(f"{quoted(path)} gives some classes a colour and some none: give all of them one, or none.")
    if len(names) > 255:
        raise UserError(f"{quoted(path)} names {len(names)} classes, and masks of bytes have 255 at most.")
    for kind, values in (("class", names), ("colour", [str(colour) for colour in colours])):
        twice = sorted({value for value in values if values.count(value) > 1})
        if twice:
            raise UserError(f"{quoted(path)} has the {kind} {few(twice)} twice.")
    return ClassList(tuple(names), tuple(colours) or None)
