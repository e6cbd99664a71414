"""A first look at a data set: what was understood of it, and whether training would take it."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw
from torchvision.transforms.v2.functional import to_pil_image

from rfaconv.data.annotations.issues import Issues, RefusedError
from rfaconv.data.annotations.layouts import find_annotations, read_source
from rfaconv.data.classification import load_classification
from rfaconv.data.decode import image_size
from rfaconv.data.detection.boxes import BoxedImage
from rfaconv.data.detection.data import load_detection
from rfaconv.data.detection.parts import checked_parts
from rfaconv.data.files import existing_folder, few, printable
from rfaconv.data.segmentation.data import load_segmentation
from rfaconv.data.segmentation.layouts import find_pairs
from rfaconv.data.segmentation.masks import IGNORE, voc_palette
from rfaconv.data.verify import Progress
from rfaconv.errors import UserError

TASKS = ("classify", "detect", "segment")
_LOOKED_AT = 2000
"""Masks whose pixels are counted in each part; evenly chosen where there are more."""


@dataclass(frozen=True)
class Part:
    """Training, validation or test images.

    Attributes:
        name: train, val or test.
        files: the images' files; empty where they are in memory.
        count: how many images.
        classes: images (classify), boxes (detect), or images that show the class (segment), by class.
        sizes: images by (width, height), of those that can be read.
        draw: image i with what its annotation says, and a line about it.
    """

    name: str
    files: tuple[Path, ...]
    count: int
    classes: Counter[str]
    sizes: Counter[tuple[int, int]]
    draw: Callable[[int], tuple[Image.Image, str]]


@dataclass(frozen=True)
class DataCheck:
    """What was understood of a data set.

    Attributes:
        root: its folder.
        task: classify, detect or segment.
        layout: what it was read as.
        classes: in the order of their numbers.
        parts: what could be read of it.
        duplicates: pairs of a training image and another part's with the same bytes.
        notes: what was decided or left out.
        issues: what is wrong with annotations, one by one.
        refused: why training would refuse it; None where it would not.
        colours: (red, green, blue) in which each class is drawn; none of them for whole images.
    """

    root: Path
    task: str
    layout: str
    classes: tuple[str, ...]
    parts: tuple[Part, ...]
    duplicates: tuple[tuple[str, str], ...]
    notes: tuple[str, ...] = ()
    issues: Issues = field(default_factory=Issues)
    refused: str | None = None
    colours: tuple[tuple[int, int, int], ...] = ()


def check_data(root: str | Path, *, task: str | None = None, progress: Progress | None = None) -> DataCheck:
    """Look at a folder or archive as training would.

    Args:
        root: where it lies.
        task: classify, detect or segment; None takes what there are annotations for.
        progress: called with (images done, images in all) while they are decoded.

    Raises:
        UserError: no known layout, or nothing in it can be read.
    """
    root = existing_folder(root)
    task = task or guess_task(root)
    return {"classify": _classes, "detect": _boxes, "segment": _masks}[task](root, progress)


def guess_task(root: Path) -> str:
    """What the annotations under `root` are for."""
    if find_annotations(root):
        return "detect"
    try:
        find_pairs(root)
    except UserError as error:
        return "classify" if "no known layout" in str(error) else "segment"
    return "segment"


def _refusal(load: Callable[[], Any]) -> tuple[Any, UserError | None]:
    try:
        return load(), None
    except UserError as error:
        return None, error


def _classes(root: Path, progress: Progress | None) -> DataCheck:
    data, error = _refusal(lambda: load_classification(root, progress=progress))
    if data is None:
        data = load_classification(root, skip_broken=True)
    parts = []
    for name, source in (("train", data.train), ("val", data.val)):
        files = tuple(root / file for file in getattr(source, "names", ()))
        counts = Counter(data.classes[target] for target in source.targets)
        own = None if files else (data.image_size[1], data.image_size[0])

        def draw(i: int, source: Any = source) -> tuple[Image.Image, str]:
            return to_pil_image(source.image(i)), f"{source.name(i)}: {data.classes[source.targets[i]]}"

        sizes = Counter({own: len(source)}) if own else _sizes(files)
        parts.append(Part(name, files, len(source), counts, sizes, draw))
    layout = "class folders" if parts[0].files else "IDX files"
    skipped = (f"broken: {few(data.skipped)}",) if data.skipped else ()
    return DataCheck(
        root, "classify", layout, data.classes, tuple(parts), _duplicates(root, parts), skipped, refused=_said(error)
    )


def _boxes(root: Path, progress: Progress | None) -> DataCheck:
    data, error = _refusal(lambda: load_detection(root, progress=progress))
    issues = error.issues if isinstance(error, RefusedError) else Issues()
    form = next(iter(find_annotations(root)), "")
    if data is not None:
        found = {"train": data.train, "val": data.val, "test": data.test}
        classes, notes = data.classes, data.notes
    else:  # show what can be shown
        source = read_source(root, Issues(), form=form or "auto")
        classes, notes = source.classes, tuple(issues.told())
        found = {part: tuple(images) for part, images in checked_parts(root, source, Issues()).items()}
    parts = [_boxed(name, images, classes) for name, images in found.items() if images]
    return DataCheck(
        root, "detect", form, classes, tuple(parts), _duplicates(root, parts), notes, issues, refused=_said(error),
        colours=voc_palette(len(classes) + 1)[1:],
    )  # fmt: skip


def _boxed(name: str, images: Sequence[BoxedImage], classes: Sequence[str]) -> Part:
    colours = voc_palette(len(classes) + 1)

    def draw(i: int) -> tuple[Image.Image, str]:
        with Image.open(images[i].path) as file:
            picture = file.convert("RGB").resize((images[i].width, images[i].height))
        pen = ImageDraw.Draw(picture)
        for target, *corners in images[i].boxes:
            width = max(1, max(picture.size) // 160)
            pen.rectangle(tuple(corners), outline=colours[target + 1], width=width)
        counts = Counter(classes[box.target] for box in images[i].boxes)
        said = ", ".join(f"{count} {label}" for label, count in counts.items()) or "no boxes"
        return picture, f"{printable(images[i].path.name)}: {said}"

    boxes = Counter(classes[box.target] for image in images for box in image.boxes)
    sizes = Counter((image.width, image.height) for image in images)
    return Part(name, tuple(image.path for image in images), len(images), boxes, sizes, draw)


def _masks(root: Path, progress: Progress | None) -> DataCheck:
    data, error = _refusal(lambda: load_segmentation(root, progress=progress))
    issues = error.issues if isinstance(error, RefusedError) else Issues()
    if data is None:
        data = load_segmentation(root, skip_broken=True, lenient=True)
    parts = []
    for name, source in (("train", data.train), ("val", data.val), ("test", data.test)):
        if source is None:
            continue
        files = tuple(root / source.files(i)[0] for i in range(len(source)))
        counts: Counter[str] = Counter()
        for i in range(0, len(source), -(-len(source) // _LOOKED_AT)):
            ids = [int(number) for number in source.mask(i).unique() if number != IGNORE]
            counts.update(data.classes[number] for number in ids)

        def draw(i: int, source: Any = source) -> tuple[Image.Image, str]:
            image = to_pil_image(source.image(i)).convert("RGB")
            mask = Image.fromarray(source.mask(i).numpy())
            palette = [value for colour in data.palette for value in colour]
            mask.putpalette(palette + [255] * (768 - len(palette)))
            return Image.blend(image, mask.convert("RGB"), 0.5), source.name(i)

        parts.append(Part(name, files, len(source), counts, _sizes(files), draw))
    layout = next(iter(find_annotations(root)), "images with masks")
    return DataCheck(
        root, "segment", layout, data.classes, tuple(parts), _duplicates(root, parts), data.notes, issues,
        refused=_said(error), colours=data.palette,
    )  # fmt: skip


def _said(error: UserError | None) -> str | None:
    return None if error is None else str(error)


def _sizes(files: Sequence[Path]) -> Counter[tuple[int, int]]:
    return Counter(image_size(path) for path in files)


def _duplicates(root: Path, parts: Sequence[Part]) -> tuple[tuple[str, str], ...]:
    """Training images whose bytes are another part's too; only files of equal length are read."""
    if not parts or not parts[0].files:
        return ()
    train, others = parts[0], [path for part in parts[1:] for path in part.files]
    common = {path.stat().st_size for path in others}
    hashes: dict[bytes, Path] = {}
    wanted = {}
    for path in train.files:
        if (size := path.stat().st_size) in common:
            wanted[path] = size
            hashes.setdefault(hashlib.sha256(path.read_bytes()).digest(), path)
    lengths = set(wanted.values())
    found = []
    for path in others:
        if path.stat().st_size in lengths:
            twin = hashes.get(hashlib.sha256(path.read_bytes()).digest())
            if twin is not None:
                found.append((_name(twin, root), _name(path, root)))
    return tuple(found)


def _name(path: Path, root: Path) -> str:
    return printable(path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path))
