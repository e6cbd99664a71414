"""`load_segmentation`: a folder, or the embedded scenes, as training and validation data with masks."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from rfaconv.data.files import existing_folder, quoted
from rfaconv.data.sampling import split
from rfaconv.data.scenes import SCENE_CLASSES, load_scenes
from rfaconv.data.segmentation.coco import find_coco
from rfaconv.data.segmentation.layouts import find_pairs, read_classes
from rfaconv.data.segmentation.masks import IGNORE, MaskRule, read_mask, voc_palette
from rfaconv.data.segmentation.sources import MaskedSource, Pair, PairFiles, SceneImages
from rfaconv.data.verify import Progress, Stat, broken_message, stat_files, survey
from rfaconv.errors import UserError


@dataclass(frozen=True)
class SegmentationData:
    """Images with masks, in two parts."""

    name: str
    """The folder's name, or "scenes (embedded)"."""
    classes: tuple[str, ...]
    train: MaskedSource
    val: MaskedSource
    fingerprint: str
    """16 hex digits of a SHA-256. Scenes: over all arrays. Folders: over the names relative to the root, sizes in
    bytes, classes and parts of the files used (of a COCO file its bytes); not over pixels, nor over where they lie."""
    palette: tuple[tuple[int, int, int], ...]
    """(red, green, blue) of each class, for pictures and written masks."""
    skipped: tuple[str, ...] = ()
    """Images that skip_broken left out, relative to the root."""
    image_size: tuple[int, int] | None = None
    """(height, width) if all images share it by construction (scenes), else None."""


def load_segmentation(
    root: str | Path | None = None,
    *,
    seed: int = 0,
    val_fraction: float = 0.2,
    skip_broken: bool = False,
    verify: bool = True,
    progress: Progress | None = None,
) -> SegmentationData:
    """Find out how a folder is laid out, check its files, and return its two parts. Nothing is written under `root`.

    Layouts:
        - images/ beside masks/, matched by name (endings like _leftImg8bit and _gtFine_labelTrainIds put aside), each
          with train/ and val/ in it or not; or train/ and val/ with images/ and masks/ in each;
        - VOC 2012: JPEGImages/, SegmentationClass/ and the lists of ImageSets/Segmentation/; with SegmentationClassAug/
          and trainaug.txt (SBD's masks) the longer list is trained on;
        - Cityscapes: leftImg8bit/ and gtFine/, by labelTrainIds or labelIds;
        - COCO: annotations/instances_train*.json and instances_val*.json beside the folders of images, or Roboflow's
          _annotations.coco.json in train/ and valid/. Class 0 is the background, crowds count for nothing.

    Masks are PNGs of class numbers, as greys or by a palette; 255 counts for nothing. classes.txt in the root may name
    the classes, a line each, and give colours ('name red green blue') for masks in colour; without it, and where the
    layout does not say, the classes are 0 to the largest id.

    Args:
        root: the folder; None or "embedded" for the embedded scenes.
        seed: of the split; the layouts that have a validation part do not depend on it.
        val_fraction: part to hold out, between 0 and 1; at least one image stays on either side.
        skip_broken: leave broken pairs out instead of refusing them.
        verify: decode every image and mask now (once: the result is cached). False: only missing files are found.
        progress: called with (images done, images in all) during that.

    Raises:
        UserError: one sentence that says what is wrong, where, and what to do.
    """
    if not 0 < val_fraction < 1:
        raise UserError(f"val_fraction must be between 0 and 1, got {val_fraction}.")
    if root is None or root == "embedded":
        return _scenes()
    root = existing_folder(root)
    found = _from_coco(root) or _from_pairs(root, seed, val_fraction, progress)
    broken = _broken(root, found, verify, progress)
    count = len(found.train) + len(found.val)
    if broken and not skip_broken:
        raise UserError(broken_message(root, broken, count))
    train, val = found.train.without(broken), found.val.without(broken)
    digest = found.digest
    for part, source in (("training", train), ("validation", val)):
        if not len(source):
            raise UserError(f"{quoted(root)} has no readable {part} image.")
        names = (name for i in range(len(source)) for name in source.files(i))
        for line in sorted(f"{part}\0{name}\0{found.stats[name].size}\0" for name in names):
            digest.update(os.fsencode(line))
    return SegmentationData(
        root.name or str(root),
        found.classes,
        train,
        val,
        digest.hexdigest()[:16],
        found.palette,
        tuple(sorted(broken)),
    )


class _Source(MaskedSource, Protocol):
    """Images with masks in files."""

    def files(self, i: int) -> Sequence[str]: ...

    def check(self, i: int) -> None: ...

    def without(self, names: Collection[str]) -> _Source: ...


@dataclass(frozen=True)
class _Found:
    """What a layout says, before its files are checked."""

    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    train: _Source
    val: _Source
    stats: dict[str, Stat]
    digest: Any
    """A SHA-256 of what is not in the files' names and sizes."""


def _from_coco(root: Path) -> _Found | None:
    coco = find_coco(root)
    if coco is None:
        return None
    classes, train, val, annotations = coco
    stats = stat_files(root, [image.name for image in [*train.images, *val.images]])
    digest = hashlib.sha256(b"".join((root / name).read_bytes() for name in annotations))
    return _Found(classes, voc_palette(len(classes)), train, val, stats, digest)


def _from_pairs(root: Path, seed: int, val_fraction: float, progress: Progress | None) -> _Found:
    listing, named = find_pairs(root), read_classes(root)
    pairs = listing.train + (listing.val or [])
    stats = stat_files(root, [name for pair in pairs for name in pair])
    colours = named.colours if named else None
    known = named.names if named else listing.classes
    classes = known or _count_classes(root, pairs, stats, MaskRule(None, colours, listing.lookup), progress)
    rule = MaskRule(len(classes), colours, listing.lookup)
    train, val = _parts(root, listing.train, listing.val, seed, val_fraction)
    return _Found(
        classes,
        colours or voc_palette(len(classes)),
        PairFiles(root, train, rule),
        PairFiles(root, val, rule),
        stats,
        hashlib.sha256(repr((classes, colours)).encode()),
    )


def _scenes() -> SegmentationData:
    scenes = load_scenes()
    classes = ("background", *SCENE_CLASSES)
    return SegmentationData(
        "scenes (embedded)",
        classes,
        SceneImages(scenes.train, "train"),
        SceneImages(scenes.test, "test"),
        scenes.fingerprint,
        voc_palette(len(classes)),
        image_size=(scenes.train.images.shape[1], scenes.train.images.shape[2]),
    )


def _parts(
    root: Path, train: list[Pair], val: list[Pair] | None, seed: int, fraction: float
) -> tuple[list[Pair], list[Pair]]:
    if val is not None:
        return train, val
    if len(train) < 2:
        raise UserError(f"{quoted(root)} has a single image, but training and validation need one each.")
    order, held_out = split(len(train), fraction, seed, "pairs")
    return sorted(train[i] for i in order[held_out:]), sorted(train[i] for i in order[:held_out])


def _count_classes(
    root: Path, pairs: Sequence[Pair], stats: dict[str, Stat], rule: MaskRule, progress: Progress | None
) -> tuple[str, ...]:
    """ "0", "1", ... to the largest id in the masks; masks that cannot be read are spoken of later."""

    def largest(name: str) -> str:
        ids = read_mask(root / name, rule)
        ids = ids[ids != IGNORE]
        return str(int(ids.max())) if ids.numel() else ""

    names = [pair.mask for pair in pairs if stats[pair.mask].size >= 0]
    said = survey(root, {name: stats[name] for name in names}, names, "largest id", largest, progress)
    most = max((int(text) for text in said.values() if text.isdigit()), default=0)
    unreadable = {name: text for name, text in said.items() if not text.isdigit()}
    if most < 1 and unreadable:
        raise UserError(broken_message(root, unreadable, len(pairs)))
    if most < 1:
        raise UserError(
            f"The masks of {quoted(root)} hold no class but 0 (and 255, which means 'ignore'): write the other classes "
            "as 1, 2, ..."
        )
    return tuple(str(number) for number in range(most + 1))


def _broken(root: Path, found: _Found, verify: bool, progress: Progress | None) -> dict[str, str]:
    """Images that cannot be used, with the reason."""
    places = {source.name(i): (source, i) for source in (found.train, found.val) for i in range(len(source))}
    broken = {}
    for name, (source, i) in places.items():
        missing = [file for file in source.files(i) if found.stats[file].size < 0]
        if missing:
            broken[name] = "missing" if missing[0] == name else f"its mask {quoted(missing[0])} is missing"

    def look(name: str) -> str:
        source, i = places[name]
        source.check(i)
        return ""

    if verify:
        purpose = f"segmentation {found.digest.hexdigest()}"
        broken |= survey(root, found.stats, [name for name in places if name not in broken], purpose, look, progress)
    return broken
