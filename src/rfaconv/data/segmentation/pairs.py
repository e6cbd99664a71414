"""Which mask belongs to which image, by their names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from rfaconv.data.files import few, quoted
from rfaconv.data.segmentation.sources import Pair
from rfaconv.errors import UserError

MASK_FOLDERS = ("masks", "mask", "labels", "annotations", "gt", "ann_dir", "SegmentationClass")
_IMAGE_ENDINGS = ("_leftImg8bit", "_image", "_img", "")
# In order of preference, where one image has several.
_MASK_ENDINGS = ("_gtFine_labelTrainIds", "_gtFine_labelIds", "_mask", "_label", "_labels", "_gt", "_seg", "")
_NO_MASKS = ("_gtFine_color", "_gtFine_instanceIds", "_gtFine_instanceTrainIds")


def pair_up(root: Path, images: Sequence[str], masks: Sequence[str]) -> list[Pair]:
    """Each image with the mask of its name, endings such as _leftImg8bit and _gtFine_labelTrainIds put aside.

    Args:
        root: for the messages.
        images: names relative to `root`.
        masks: likewise.

    Raises:
        UserError: no images, an image without a mask, a mask without an image, or two for one name; it names the files.
    """
    if not images or not masks:
        raise UserError(f"{quoted(root)} has {len(images)} images and {len(masks)} masks: both are needed.")
    by_key: dict[str, list[tuple[int, str]]] = {}
    for name in masks:
        key, rank = _key(name, _MASK_ENDINGS)
        if not PurePosixPath(name).stem.endswith(_NO_MASKS):
            by_key.setdefault(key, []).append((rank, name))
    pairs, without = list[Pair](), list[str]()
    owners: dict[str, str] = {}
    for name in images:
        key, _ = _key(name, _IMAGE_ENDINGS)
        if key in owners:
            raise UserError(f"The images {few([owners[key], name])} of {quoted(root)} would share a mask: rename one.")
        owners[key] = name
        found = sorted(by_key.get(key, []))
        if not found:
            without.append(name)
        elif len(found) > 1 and found[0][0] == found[1][0]:
            raise UserError(f"Image {quoted(name)} of {quoted(root)} has two masks, {few(mask for _, mask in found)}.")
        else:
            pairs.append(Pair(name, found[0][1]))
    if without:
        raise UserError(f"No mask for the image {few(without)} of {quoted(root)}: add it, or remove the image.")
    alone = [group[0][1] for key, group in sorted(by_key.items()) if key not in owners]
    if alone:
        raise UserError(f"No image for the mask {few(alone)} of {quoted(root)}: add it, or remove the mask.")
    return pairs


def _key(name: str, endings: tuple[str, ...]) -> tuple[str, int]:
    """What image and mask share of their names, the folders below the first among it, and the ending's place."""
    path = PurePosixPath(name)
    rank = next(place for place, ending in enumerate(endings) if path.stem.endswith(ending))
    stem = path.stem.removesuffix(endings[rank]) or path.stem
    return "/".join((*_below(path), stem)), rank


def _below(path: PurePosixPath) -> tuple[str, ...]:
    """The folders between the images' or masks' own and the file."""
    names = ("images", "image", "imgs", "img", "img_dir", "JPEGImages", "leftImg8bit", "gtFine", *MASK_FOLDERS)
    parts = path.parts[:-1]
    last = max((place for place, part in enumerate(parts) if part in names), default=-1)
    if last < 0 and parts:  # train/ and trainannot/, train_masks/: the first folder is the part's own
        last = 0
    return parts[last + 1 :]
