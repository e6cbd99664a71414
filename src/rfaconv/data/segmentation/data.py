"""`load_segmentation`: a folder, or the embedded scenes, as training and validation data with masks."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

from rfaconv.data.annotations.checked import once
from rfaconv.data.annotations.classes import read_classes
from rfaconv.data.annotations.issues import Issues
from rfaconv.data.annotations.layouts import find_annotations, read_source
from rfaconv.data.annotations.parts import Options
from rfaconv.data.files import existing_folder, few, quoted
from rfaconv.data.sampling import split
from rfaconv.data.scenes import SCENE_CLASSES, load_scenes
from rfaconv.data.segmentation.drawn import BACKGROUND, DrawnImage, DrawnImages, settle_shapes
from rfaconv.data.segmentation.layouts import find_pairs
from rfaconv.data.segmentation.masks import IGNORE, MaskRule, read_mask, voc_palette
from rfaconv.data.segmentation.sources import MaskedSource, Pair, PairFiles, SceneImages
from rfaconv.data.verify import Progress, Stat, absent, broken_message, stat_files, survey
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
    notes: tuple[str, ...] = ()
    """What was decided or left out while reading, a line each."""
    test: MaskedSource | None = None
    """A third part, where there is one; nothing is trained or judged on it."""
    issues: Issues = field(default_factory=Issues, repr=False, compare=False)
    """What `lenient` repaired."""


def load_segmentation(
    root: str | Path | None = None,
    *,
    seed: int = 0,
    val_fraction: float = 0.2,
    skip_broken: bool = False,
    lenient: bool = False,
    crowds: str | None = None,
    verify: bool = True,
    progress: Progress | None = None,
) -> SegmentationData:
    """Find out how a folder is laid out, check its files, and return its two parts. Nothing is written under `root`.

    Layouts: see `rfaconv.data.segmentation.layouts.KNOWN_LAYOUTS` and docs/segmentation.md. Masks are PNGs of class
    numbers, as greys or by a palette; 255 counts for nothing, but with only 0 beside it, it is the foreground.
    classes.txt in the root may name the classes, a line each, and give colours ('name red green blue') for masks in
    colour; without it, and where the layout does not say, the classes are 0 to the largest id. Masks drawn from
    outlines have class 0 for the background; crowds count for nothing.

    Args:
        root: the folder; None or "embedded" for the embedded scenes.
        seed: of the split; the layouts that have a validation part do not depend on it.
        val_fraction: part to hold out, between 0 and 1; at least one image stays on either side.
        skip_broken: leave broken pairs out instead of refusing them.
        lenient: repair and count what is wrong with outlines instead of refusing it; `issues` of the result has it.
        crowds: keep or drop COCO's objects with iscrowd 1; dropped ones count for nothing; None keeps them where
            datumaro or CVAT wrote the file.
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
    found = _from_outlines(root, seed, val_fraction, skip_broken, lenient, crowds) or _from_pairs(
        root, seed, val_fraction, progress
    )
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
        tuple(sorted({*broken, *found.missing})),
        notes=found.notes,
        test=found.test,
        issues=found.issues,
    )


class _Source(MaskedSource, Protocol):
    """Images with masks in files."""

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
    notes: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    issues: Issues = field(default_factory=Issues)
    test: _Source | None = None


_OUTLINED = ("coco", "yolo", "cvat", "labelstudio", "labelme")
"""Formats of annotations that may hold outlines."""


def _from_outlines(
    root: Path, seed: int, fraction: float, skip_broken: bool, lenient: bool, crowds: str | None
) -> _Found | None:
    """Masks drawn from annotations; None where there are none that could hold outlines."""
    form = next(iter(find_annotations(root, _OUTLINED)), None)
    if form is None or (form == "yolo" and next(root.glob("**/labels/**/*.txt"), None) is None):
        return None
    issues = Issues()
    source = read_source(root, issues, form=form, options=Options(crowds=crowds))
    if len(source.classes) > 254:
        raise UserError(f"{quoted(root)} has {len(source.classes)} classes, and masks of bytes have 254 at most.")
    targets = {name: target for target, name in enumerate(source.classes, 1)}
    records = [record for part in source.parts.values() for record in part]
    if not any(claim.outlines or claim.runs for record in records for claim in record.claims):
        raise UserError(f"The annotations of {quoted(root)} are boxes, and masks need outlines: use --task detect.")
    images = {
        part: [image for record in found if (image := settle_shapes(root, record, targets, issues)) is not None]
        for part, found in source.parts.items()
    }
    images = once(images, lambda image: Path(image.name), lambda image: len(image.shapes), issues)
    gone = [issue for issue in issues.items if issue.kind == "missing image"] if skip_broken else []
    kept = sum(len(image.shapes) for found in images.values() for image in found)
    assert issues.found == kept + sum(issues.dropped.values()), "an object went missing"
    if len(gone) < len(issues.items) and not lenient:
        issues.refuse(root, "let `rfaconv data convert DIR OUT --masks --lenient` repair and count them")
    if "val" not in images and "test" in images:
        images["val"] = images.pop("test")
    train, val = _parts(root, images.get("train", []), images.get("val"), seed, fraction)
    drawn = {
        part: sorted(found, key=lambda image: image.name)
        for part, found in {**images, "train": train, "val": val}.items()
    }
    classes = (BACKGROUND, *source.classes)
    return _Found(
        classes,
        voc_palette(len(classes)),
        DrawnImages(root, drawn["train"]),
        DrawnImages(root, drawn["val"]),
        stat_files(root, [image.name for found in drawn.values() for image in found]),
        hashlib.sha256(repr((classes, drawn["train"], drawn["val"])).encode()),
        tuple(issues.told() + (issues.repaired() if lenient else [])),
        tuple(issue.detail for issue in gone),
        issues=issues,
        test=DrawnImages(root, drawn["test"]) if drawn.get("test") else None,
    )


def _from_pairs(root: Path, seed: int, val_fraction: float, progress: Progress | None) -> _Found:
    listing, named = find_pairs(root), read_classes(root)
    pairs = listing.train + (listing.val or []) + listing.test
    stats = stat_files(root, [name for pair in pairs for name in pair])
    colours = named.colours if named else listing.colours
    lookup = listing.lookup
    known = named.names if named else listing.classes
    notes: tuple[str, ...] = ()
    if known is None:
        counts = _count_ids(root, pairs, stats, MaskRule(None, colours, lookup), progress)
        known, lookup, notes = _classes_of(root, counts, lookup)
    rule = MaskRule(len(known), colours, lookup)
    train, val = _parts(root, listing.train, listing.val, seed, val_fraction)
    return _Found(
        known,
        colours or voc_palette(len(known)),
        PairFiles(root, train, rule),
        PairFiles(root, val, rule),
        stats,
        hashlib.sha256(repr((known, colours)).encode()),
        notes,
        test=PairFiles(root, listing.test, rule) if listing.test else None,
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


Item = TypeVar("Item", Pair, DrawnImage)


def _parts(
    root: Path, train: list[Item], val: list[Item] | None, seed: int, fraction: float
) -> tuple[list[Item], list[Item]]:
    if val is not None:
        return train, val
    if len(train) < 2:
        raise UserError(f"{quoted(root)} has a single image, but training and validation need one each.")
    order, held_out = split(len(train), fraction, seed, "pairs")
    return [train[i] for i in sorted(order[held_out:])], [train[i] for i in sorted(order[:held_out])]


def _count_ids(
    root: Path, pairs: Sequence[Pair], stats: dict[str, Stat], rule: MaskRule, progress: Progress | None
) -> dict[int, list[str]]:
    """The ids in the masks, 255 among them, each with the masks that have it; unreadable masks are spoken of later."""

    def look(name: str) -> str:
        return " ".join(map(str, read_mask(root / name, rule).unique().tolist()))

    names = [pair.mask for pair in pairs if stats[pair.mask].size >= 0]
    said = survey(root, {name: stats[name] for name in names}, names, "ids", look, progress)
    unreadable = {name: text for name, text in said.items() if not text.replace(" ", "").isdigit()}
    found: dict[int, list[str]] = {}
    for name in sorted(said.keys() - unreadable.keys()):
        for number in map(int, said[name].split()):
            found.setdefault(number, []).append(name)
    if unreadable and len(found) < 2:
        raise UserError(broken_message(root, unreadable, len(pairs)))
    return found


def _classes_of(
    root: Path, found: dict[int, list[str]], lookup: tuple[int, ...] | None
) -> tuple[tuple[str, ...], tuple[int, ...] | None, tuple[str, ...]]:
    """ "0", "1", ... to the largest id; of masks in black and white background and foreground.

    An id far beyond the others is more often one wrong pixel than a class.
    """
    ids = sorted(set(found) - {IGNORE})
    if ids == [0] and IGNORE in found:
        note = "the masks hold 0 and 255 alone: read as background and foreground (classes.txt would make 255 'ignore')"
        return (BACKGROUND, "foreground"), tuple(1 if number == IGNORE else number for number in range(256)), (note,)
    most = max(ids, default=0)
    if most < 1:
        raise UserError(
            f"The masks of {quoted(root)} hold no class but {'0' if ids else '255, which counts for nothing'}: write "
            "the other classes as 1, 2, ..."
        )
    if most + 1 > 2 * len(ids):
        shown = ", ".join(map(str, ids[:8])) + (", ..." if len(ids) > 8 else "")
        raise UserError(
            f"The masks of {quoted(root)} hold {len(ids)} ids ({shown}), of which {most} would make {most + 1} "
            f"classes; it is in {few(found[most])}: mend it, or name the classes of all ids in classes.txt."
        )
    return tuple(str(number) for number in range(most + 1)), lookup, ()


def _broken(root: Path, found: _Found, verify: bool, progress: Progress | None) -> dict[str, str]:
    """Images that cannot be used, with the reason."""
    places = {source.files(i)[0]: (source, i) for source in (found.train, found.val) for i in range(len(source))}
    broken = {}
    for name, (source, i) in places.items():
        missing = [file for file in source.files(i) if found.stats[file].size < 0]
        if missing:
            what = absent(found.stats[missing[0]])
            broken[name] = what if missing[0] == name else f"its mask {quoted(missing[0])} is {what}"

    def look(name: str) -> str:
        source, i = places[name]
        source.check(i)
        return ""

    if verify:
        purpose = f"segmentation {found.digest.hexdigest()}"
        broken |= survey(root, found.stats, [name for name in places if name not in broken], purpose, look, progress)
    return broken
