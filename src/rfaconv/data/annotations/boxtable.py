"""A CSV file of boxes, as Roboflow exports it (and TensorFlow's tutorials have it): a row a box."""

from __future__ import annotations

import csv
from pathlib import Path

from rfaconv.data.annotations.claims import Annotated, Claim, MalformedError, number
from rfaconv.data.annotations.issues import Issues
from rfaconv.data.annotations.parts import ImageFinder, Options, Source, part_folders, relative_name, used_classes
from rfaconv.data.files import quoted, read_text
from rfaconv.errors import UserError

_FILE = "_annotations.csv"
_COLUMNS = ["filename", "width", "height", "class", "xmin", "ymin", "xmax", "ymax"]


def find_box_table(root: Path) -> dict[str, Path]:
    """The file of each part."""
    found = {part: root / folder / _FILE for part, folder in part_folders(root).items()}
    return {part: path for part, path in {"train": root / _FILE, **found}.items() if path.is_file()}


def read_box_table(root: Path, files: dict[str, Path], issues: Issues, options: Options) -> Source:
    parts = {part: _part(root, path, issues) for part, path in files.items()}
    return Source("csv", options.classes or used_classes(parts.get("train", [])), parts)


def _part(root: Path, path: Path, issues: Issues) -> list[Annotated]:
    try:
        rows = list(csv.reader(read_text(path).splitlines(), strict=True))
    except csv.Error as error:
        raise UserError(f"{quoted(path)} cannot be read as CSV ({error}).") from error
    if not rows or [name.strip() for name in rows[0]] != _COLUMNS:
        raise UserError(f"{quoted(path)} does not begin with '{','.join(_COLUMNS)}'.")
    source, images = relative_name(path, root), ImageFinder(path.parent)
    claims: dict[str, list[Claim]] = {path.name: [] for path in images.all()}
    sizes: dict[str, tuple[int, int]] = {}
    for index, row in enumerate(rows[1:], 2):
        if not any(field.strip() for field in row):
            continue
        issues.found += 1
        try:
            if len(row) != len(_COLUMNS):
                raise MalformedError(f"it has {len(row)} fields and {len(_COLUMNS)} are expected")
            name, label = row[0].strip(), row[3].strip()
            if not name or not label:
                raise MalformedError("it has no class" if name else "it names no image")
            width, height, left, top, right, bottom = (number(row[place]) for place in (1, 2, 4, 5, 6, 7))
        except MalformedError as error:
            issues.add("malformed box", source, f"line {index}", str(error), boxes=1)
            continue
        claims.setdefault(name, []).append(Claim(f"line {index}", label, (left, top, right, bottom)))
        size = int(width), int(height)
        if sizes.setdefault(name, size) != size:
            issues.add("wrong size", source, f"line {index}", f"{name!r:.60} had another size before")
    # Images without a box have no row.
    return [Annotated(source, images(name), name, tuple(found), sizes.get(name)) for name, found in claims.items()]
