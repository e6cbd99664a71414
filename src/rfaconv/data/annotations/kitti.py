"""KITTI's labels: a text file an image, a line of fifteen words an object, of which a box in the image is taken."""

from __future__ import annotations

from pathlib import Path

from rfaconv.data.annotations.claims import Annotated, Claim, MalformedError, number
from rfaconv.data.annotations.issues import Issues
from rfaconv.data.annotations.parts import ImageFinder, Options, Source, part_folders, relative_name, used_classes
from rfaconv.data.files import images_below, read_text
from rfaconv.errors import UserError


def find_kitti(root: Path) -> dict[str, Path]:
    """The folder of each part that has image_2/ and label_2/ in it."""
    found = {"train": root, **{part: root / name for part, name in part_folders(root).items()}}
    return {part: path for part, path in found.items() if (path / "label_2").is_dir() and (path / "image_2").is_dir()}


def read_kitti(root: Path, folders: dict[str, Path], issues: Issues, options: Options) -> Source:
    parts = {part: _part(root, folder, issues) for part, folder in folders.items()}
    return Source("kitti", options.classes or used_classes(parts.get("train", [])), parts)


def _part(root: Path, folder: Path, issues: Issues) -> list[Annotated]:
    labels = {path.relative_to(folder / "label_2").with_suffix("") for path in (folder / "label_2").rglob("*.txt")}
    images = {Path(name).relative_to("image_2"): folder / name for name in images_below(folder, "image_2")}
    by_stem = {name.with_suffix(""): path for name, path in images.items()}
    finder = ImageFinder(folder / "image_2")
    records = []
    for stem in sorted({*labels, *by_stem}):
        path = folder / "label_2" / stem.parent / f"{stem.name}.txt"
        source = relative_name(path, root)
        try:
            lines = read_text(path).splitlines() if stem in labels else []
        except UserError as error:
            issues.add("unreadable file", source, "", str(error))
            continue
        if stem not in labels:
            issues.note("no annotation file")
        image = by_stem.get(stem) or finder(stem.as_posix())
        records.append(Annotated(source, image, stem.as_posix(), _claims(lines, source, issues)))
    return records


def _claims(lines: list[str], source: str, issues: Issues) -> tuple[Claim, ...]:
    claims = []
    for index, line in enumerate(lines, 1):
        words = line.split()
        if not words:
            continue
        issues.found += 1
        where = f"line {index}"
        try:
            if len(words) not in (15, 16):
                raise MalformedError(f"it has {len(words)} words, and KITTI's lines have 15")
            left, top, right, bottom = (number(word) for word in words[4:8])
        except MalformedError as error:
            issues.add("malformed box", source, where, str(error), boxes=1)
            continue
        if words[0] == "DontCare":
            issues.note("don't care", boxes=1)
        else:
            claims.append(Claim(where, words[0], (left, top, right, bottom)))
    return tuple(claims)
