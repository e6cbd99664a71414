"""CreateML's JSON, as Roboflow exports it: a list of images, boxes by their centres."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rfaconv.data.annotations.claims import Annotated, Claim, MalformedError, number
from rfaconv.data.annotations.issues import Issues
from rfaconv.data.annotations.jsonfile import load_json
from rfaconv.data.annotations.parts import ImageFinder, Options, Source, part_folders, relative_name, used_classes
from rfaconv.data.files import quoted
from rfaconv.errors import UserError

_FILE = "_annotations.createml.json"


def find_createml(root: Path) -> dict[str, Path]:
    """The file of each part."""
    found = {part: root / folder / _FILE for part, folder in part_folders(root).items()}
    return {part: path for part, path in {"train": root / _FILE, **found}.items() if path.is_file()}


def read_createml(root: Path, files: dict[str, Path], issues: Issues, options: Options) -> Source:
    parts = {part: _part(root, path, issues) for part, path in files.items()}
    return Source("createml", options.classes or used_classes(parts.get("train", [])), parts)


def _part(root: Path, path: Path, issues: Issues) -> list[Annotated]:
    found = load_json(path)
    if not isinstance(found, list):
        raise UserError(f"{quoted(path)} is no list of images.")
    source, images = relative_name(path, root), ImageFinder(path.parent)
    records: dict[str, Annotated] = {}
    for index, entry in enumerate(found):
        entries = entry.get("annotations") if isinstance(entry, dict) else None
        if not isinstance(entries, list):
            issues.add("unreadable task", source, f"image {index}", "it has no list of annotations")
            continue
        issues.found += len(entries)
        name = entry.get("image", entry.get("imagefilename")) if isinstance(entry, dict) else None
        if not isinstance(name, str) or not name.strip():
            issues.add("missing image", source, f"image {index}", "it names no image", boxes=len(entries))
        elif name in records:
            issues.add("duplicate", source, f"image {index}", f"{name!r:.60} is there twice", boxes=len(entries))
        else:
            records[name] = Annotated(source, images(name), name, _claims(entries, source, index, issues))
    return list(records.values())


def _claims(entries: list[Any], source: str, image: int, issues: Issues) -> tuple[Claim, ...]:
    claims = []
    for index, entry in enumerate(entries):
        where = f"image {image}, object {index}"
        try:
            claims.append(_claim(entry, where))
        except MalformedError as error:
            issues.add("malformed box", source, where, str(error), boxes=1)
    return tuple(claims)


def _claim(entry: Any, where: str) -> Claim:
    place = entry.get("coordinates") if isinstance(entry, dict) else None
    if not isinstance(place, dict):
        raise MalformedError("it has no coordinates")
    label = entry.get("label")
    if not isinstance(label, str) or not label.strip():
        raise MalformedError("it has no class")
    x, y, width, height = (number(place.get(name)) for name in ("x", "y", "width", "height"))
    return Claim(where, label.strip(), (x - width / 2, y - height / 2, x + width / 2, y + height / 2))
