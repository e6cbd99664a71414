"""From a folder to its images with masks: the layouts of segmentation data, and the choice between them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from rfaconv.data.annotations.classes import read_classes, read_labelmap
from rfaconv.data.annotations.parts import PART_NAMES, part_folders
from rfaconv.data.files import few, files_in, images_below, is_image, quoted, read_lines, subfolders
from rfaconv.data.segmentation.cityscapes import CITYSCAPES_CLASSES, TRAIN_IDS
from rfaconv.data.segmentation.masks import IGNORE
from rfaconv.data.segmentation.pairs import MASK_FOLDERS, pair_up
from rfaconv.data.segmentation.sources import Pair
from rfaconv.data.unknown import unknown_layout
from rfaconv.errors import UserError

KNOWN_LAYOUTS = (
    "images/ beside masks/ (or img_dir/ and ann_dir/; each with train/ and val/ in it, or train/ and val/ with both in "
    "them); train/ beside train_masks/ (Carvana) or trainannot/ (CamVid); train/ with *_mask.png and _classes.csv "
    "(Roboflow); VOC 2012 and CVAT's masks (JPEGImages/, SegmentationClass/, ImageSets/Segmentation/); SBD (img/, "
    "cls/); Cityscapes (leftImg8bit/, gtFine/); outlines in COCO, YOLO's labels, CVAT's XML or Label Studio's JSON"
)
VOC_CLASSES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat",
    "chair", "cow", "diningtable", "dog", "horse", "motorbike", "person", "pottedplant",
    "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
CAMVID_CLASSES = (
    "Sky", "Building", "Pole", "Road", "Pavement", "Tree", "SignSymbol", "Fence", "Car", "Pedestrian", "Bicyclist",
)  # fmt: skip
"""In the order of the ids that SegNet's tutorial gave them; its 11, unlabelled, counts for nothing."""
_IMAGE_FOLDERS = ("images", "image", "imgs", "img", "img_dir", "JPEGImages")
_VAL_NAMES = ("val", "valid", "validation", "test")


@dataclass(frozen=True)
class Layout:
    """Pairs of files, and what the layout knows of their classes."""

    train: list[Pair]
    val: list[Pair] | None
    """None: a part of `train` is to be held out."""
    classes: tuple[str, ...] | None = None
    lookup: tuple[int, ...] | None = None
    colours: tuple[tuple[int, int, int], ...] | None = None
    test: list[Pair] = field(default_factory=list)


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
    for base in (root, root / "dataset", root / "benchmark_RELEASE" / "dataset"):
        if (base / "cls").is_dir() and (base / "img").is_dir():
            return _sbd(root, base)
    image_folder, mask_folder = _first(root, _IMAGE_FOLDERS), _first(root, MASK_FOLDERS)
    if image_folder and mask_folder:
        return _beside(root, image_folder, mask_folder)
    train = _first(root, PART_NAMES["train"])
    if train and _first(root / train, _IMAGE_FOLDERS) and _first(root / train, MASK_FOLDERS):
        return _as_layout({part: _inside(root, name) for part, name in part_folders(root).items()})
    parts = part_folders(root)
    named = {part: masks for part, name in parts.items() if (masks := _masks_of(root, name))}
    if "train" in named:
        return _named_after(root, parts, named)
    if any("_classes.csv" in files_in(root / name) for name in ("", *parts.values())):
        return _roboflow(root, parts or {"train": ""})
    raise unknown_layout(root, "images with masks", KNOWN_LAYOUTS)


def _as_layout(parts: dict[str, list[Pair]], **known: Any) -> Layout:
    """Where there is no validation part the test part serves for it."""
    val = parts.get("val", parts.get("test"))
    return Layout(parts["train"], val, test=parts.get("test", []) if "val" in parts else [], **known)


def _masks_of(root: Path, part: str) -> str | None:
    return _first(
        root, tuple(f"{part}{ending}" for ending in ("annot", "_masks", "_labels", "_mask", "_annot", "masks"))
    )


def _named_after(root: Path, parts: dict[str, str], masks: dict[str, str]) -> Layout:
    """train/ beside trainannot/ or train_masks/; CamVid's classes where the folders are called as CamVid's."""
    pairs = {
        part: pair_up(root, images_below(root, parts[part]), images_below(root, folder, (".gif",)))
        for part, folder in masks.items()
    }
    if not masks["train"].endswith("annot") or read_classes(root) is not None:
        return _as_layout(pairs)
    ids = tuple(IGNORE if number == len(CAMVID_CLASSES) else number for number in range(256))
    return _as_layout(pairs, classes=CAMVID_CLASSES, lookup=ids)


def _roboflow(root: Path, parts: dict[str, str]) -> Layout:
    """Roboflow's semantic masks: image.jpg and image_mask.png side by side, and _classes.csv."""
    pairs, classes = dict[str, list[Pair]](), dict[str, tuple[str, ...]]()
    for part, folder in parts.items():
        names = images_below(root, folder) if folder else [name for name in files_in(root) if is_image(name)]
        masks = [name for name in names if PurePosixPath(name).stem.endswith("_mask")]
        pairs[part] = pair_up(root, sorted(set(names) - set(masks)), masks)
        classes[folder] = _pixel_values(root / folder / "_classes.csv")
    if len(set(classes.values())) > 1:
        raise UserError(f"The _classes.csv of {few(classes)} in {quoted(root)} differ.")
    return _as_layout(pairs, classes=next(iter(classes.values())))


def _pixel_values(path: Path) -> tuple[str, ...]:
    """The classes of a file of 'Pixel Value, Class' and a line for each, 0 first."""
    rows = [[word.strip() for word in line.split(",", 1)] for line in read_lines(path)]
    values = [row[0] for row in rows[1:]]
    if values != [str(number) for number in range(len(values))] or any(len(row) < 2 for row in rows):
        raise UserError(f"{quoted(path)} must have 'Pixel Value, Class' and then a line for each of 0, 1, 2, ...")
    return tuple(row[1] for row in rows[1:])


def _sbd(root: Path, base: Path) -> Layout:
    """SBD as its authors ship it: img/NAME.jpg, cls/NAME.mat, train.txt and val.txt."""
    prefix = "" if base == root else f"{base.relative_to(root).as_posix()}/"

    def listed(part: str) -> list[Pair]:
        names = [line.strip() for line in read_lines(base / f"{part}.txt")]
        return [Pair(f"{prefix}img/{name}.jpg", f"{prefix}cls/{name}.mat") for name in names]

    return Layout(listed("train"), listed("val"), VOC_CLASSES)


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
    named = read_labelmap(folder / "labelmap.txt")
    classes, colours = (named.names, named.colours) if named else (VOC_CLASSES, None)
    parts = {"train": _listed(train, root, prefix, masks)} if train.is_file() else {}
    for part in ("val", "test"):
        if (lists / f"{part}.txt").is_file():
            parts[part] = _listed(lists / f"{part}.txt", root, prefix, "SegmentationClass")
    if "train" not in parts:  # CVAT's only list is called default
        others = sorted(path for path in lists.glob("*.txt") if path.stem not in ("val", "test", "trainval"))
        if len(others) != 1:
            raise UserError(f"There is no list {quoted(train)}.")
        parts["train"] = _listed(others[0], root, prefix, masks)
    if "val" in parts:
        parts.pop("test", None)  # VOC's own has no masks for it
    return _as_layout(parts, classes=classes, colours=colours)


def _listed(path: Path, root: Path, prefix: str, masks: str) -> list[Pair]:
    """Pairs from a list of names, or of 'image mask' lines as SBD's lists have them."""
    pairs = []
    there = {PurePosixPath(name).with_suffix("").as_posix(): name for name in images_below(root, f"{prefix}JPEGImages")}
    for line in read_lines(path):
        words = line.split()
        if len(words) == 2 and all("." in word for word in words):
            pairs.append(Pair(*(prefix + word.lstrip("/") for word in words)))
        else:
            image = f"{prefix}JPEGImages/{line.strip()}"
            pairs.append(Pair(there.get(image, f"{image}.jpg"), f"{prefix}{masks}/{line.strip()}.png"))
        if ".." in PurePosixPath(pairs[-1].image).parts + PurePosixPath(pairs[-1].mask).parts:
            raise UserError(f"{quoted(path)} names {quoted(line.strip())}, which is outside of the data set's folder.")
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
        return _as_layout(
            {
                part: pair_up(
                    root,
                    images_below(root, f"{image_folder}/{name}"),
                    images_below(root, f"{mask_folder}/{name}", (".gif",)),
                )
                for part, name in part_folders(root / image_folder).items()
                if part != "test" or name in subfolders(root / mask_folder)
            }
        )
    masks = images_below(root, mask_folder, (".gif",))
    return Layout(pair_up(root, images_below(root, image_folder), masks), None)


def _inside(root: Path, part: str) -> list[Pair]:
    images, masks = _first(root / part, _IMAGE_FOLDERS), _first(root / part, MASK_FOLDERS)
    if not images or not masks:
        raise UserError(f"{quoted(root / part)} needs images/ and masks/ in it.")
    return pair_up(root, images_below(root, f"{part}/{images}"), images_below(root, f"{part}/{masks}", (".gif",)))


def _first(folder: Path, names: tuple[str, ...]) -> str | None:
    there = set(subfolders(folder)) if folder.is_dir() else set()
    return next((name for name in names if name in there), None)
