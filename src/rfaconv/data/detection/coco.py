"""COCO's annotations: one JSON file a part."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rfaconv.data.detection.boxes import Annotated, Claim, MalformedError, number
from rfaconv.data.detection.findings import Findings
from rfaconv.data.detection.parts import PART_NAMES, Source, part_folders
from rfaconv.data.files import quoted
from rfaconv.errors import UserError


def read_coco(root: Path, source: str, folder: Path, findings: Findings) -> tuple[list[str], list[Annotated]]:
    """The classes (in the order of their ids) and the images of the JSON file root/source.

    Args:
        root: of the data set.
        source: the file, relative to `root`.
        folder: where its images are.
        findings: what is wrong with single entries goes there.

    Raises:
        UserError: the file as a whole is no COCO annotations.
    """
    record = _load(root / source)
    names = _categories(record, source, findings)
    images = _images(record, source, findings)
    claims: dict[Any, list[Claim]] = {key: [] for key in images}
    seen: set[Any] = set()
    for index, entry in enumerate(record["annotations"]):
        findings.found += 1
        where = f"annotation {index}"
        try:
            if not isinstance(entry, dict):
                raise MalformedError("it is no record")
            key, owner, category = (_key(entry, name) for name in ("id", "image_id", "category_id"))
            crowd = bool(number(entry.get("iscrowd", 0)))
            corners = _corners(entry)
        except MalformedError as error:
            findings.add("malformed box", source, where, str(error), boxes=1)
            continue
        if key in seen:
            findings.add("duplicate", source, where, f"its id {key!r:.40} is there twice", boxes=1)
        elif owner not in images:
            findings.add("missing image", source, where, f"it is for image {owner!r:.40}, which is not listed", boxes=1)
        elif category not in names:
            findings.add("unknown class", source, where, f"its category {category!r:.40} is not listed", boxes=1)
        elif crowd:
            findings.note("crowd", boxes=1)
        else:
            claims[owner].append(Claim(where, names[category], corners))
        seen.add(key)
    used = {claim.name for found in claims.values() for claim in found}
    classes = _without_groups(record, names, used, findings)
    records = [
        Annotated(source, _image(folder, name), name, tuple(claims[key]), size) for key, (name, size) in images.items()
    ]
    return classes, records


def _load(path: Path) -> dict[str, list[Any]]:
    try:
        found = json.loads(path.read_text("utf-8-sig"), object_pairs_hook=_unique)
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{quoted(path)} cannot be read as JSON ({' '.join(str(error).split()):.120}).") from error
    for name in ("images", "annotations", "categories"):
        if not isinstance(found, dict) or not isinstance(found.get(name), list):
            raise UserError(f"{quoted(path)} is no COCO annotations: it has no list '{name}'.")
    return found


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """JSON lets a key come twice, and readers forget the first, with all that was in it."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is there twice in one record")
    return found


def _categories(record: dict[str, list[Any]], source: str, findings: Findings) -> dict[Any, str]:
    names: dict[Any, str] = {}
    for index, entry in enumerate(record["categories"]):
        try:
            key, name = _key(entry, "id"), entry.get("name")
        except MalformedError as error:
            raise UserError(f"Category {index} of {quoted(source)} cannot be used: {error}.") from error
        if not isinstance(name, str) or not name.strip():
            raise UserError(f"Category {index} of {quoted(source)} has no name.")
        if key in names:
            findings.add("duplicate", source, f"category {index}", f"its id {key!r:.40} is there twice")
            continue
        if name.strip() in names.values():
            findings.add("duplicate", source, f"category {index}", f"its name {name!r:.40} is there twice")
        names[key] = name.strip()
    return names


def _images(
    record: dict[str, list[Any]], source: str, findings: Findings
) -> dict[Any, tuple[str, tuple[int, int] | None]]:
    images: dict[Any, tuple[str, tuple[int, int] | None]] = {}
    files: set[str] = set()
    for index, entry in enumerate(record["images"]):
        where = f"image {index}"
        try:
            key, name = _key(entry, "id"), entry.get("file_name")
            if not isinstance(name, str) or not name.strip():
                raise MalformedError("it has no file_name")
            size = int(number(entry.get("width", 0))), int(number(entry.get("height", 0)))
        except MalformedError as error:
            findings.add("missing image", source, where, str(error))
            continue
        if key in images:
            findings.add("duplicate", source, where, f"its id {key!r:.40} is there twice")
        elif name in files:
            findings.add("duplicate", source, where, f"its file {name!r:.60} is there twice")
        else:
            images[key] = name, size if all(size) else None
            files.add(name)
    return images


def _key(entry: Any, name: str) -> int | str:
    """An id: numbers and text are both in use."""
    if not isinstance(entry, dict):
        raise MalformedError("it is no record")
    value = entry.get(name)
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise MalformedError(f"its {name} is {value!r:.40}" if name in entry else f"it has no {name}")
    return value


def _corners(entry: dict[str, Any]) -> tuple[float, float, float, float]:
    box = entry.get("bbox")
    if not isinstance(box, list) or len(box) != 4:
        raise MalformedError("it has no bbox of four numbers")
    left, top, width, height = (number(value) if not isinstance(value, str) else _no_text(value) for value in box)
    return left, top, left + width, top + height


def _no_text(value: str) -> float:
    raise MalformedError(f"{value!r:.40} is no number")


def _without_groups(
    record: dict[str, list[Any]], names: dict[Any, str], used: set[str], findings: Findings
) -> list[str]:
    """The classes by id, once each, without Roboflow's first category, which stands for all the others."""
    groups = {entry.get("supercategory") for entry in record["categories"]}
    roots = {
        str(entry.get("name")).strip()
        for entry in record["categories"]
        if entry.get("supercategory") in ("none", None) and entry.get("name") in groups
    }
    classes = []
    for _, name in sorted(names.items(), key=lambda item: (isinstance(item[0], str), item[0])):
        if name in roots and name not in used and name not in classes:
            findings.note("group")
        elif name not in classes:
            classes.append(name)
    return classes


def _image(folder: Path, name: str) -> Path | None:
    """The file, where it is inside of the folder."""
    try:
        path = (folder / name).resolve()
        inside = path.is_relative_to(folder.resolve()) or (folder / name).is_symlink()
        return folder / name if inside and path.is_file() else None
    except (OSError, ValueError):
        return None


def coco_files(root: Path) -> dict[str, tuple[str, Path]]:
    """For each part its JSON file, relative to the root, and the folder of its images."""
    found: dict[str, tuple[str, Path]] = {}
    folders = part_folders(root)
    for part, names in PART_NAMES.items():
        folder = folders.get(part)
        if folder and (root / folder / "_annotations.coco.json").is_file():
            images = root / folder / "images"
            found[part] = f"{folder}/_annotations.coco.json", images if images.is_dir() else root / folder
            continue
        for place in ("annotations", "."):
            for name in names:
                paths = sorted((root / place).glob(f"instances_{name}*.json"))
                if paths and part not in found:
                    found[part] = paths[0].relative_to(root).as_posix(), _coco_images(root, paths[0].stem[10:], name)
    if not found and (root / "_annotations.coco.json").is_file():
        found["train"] = "_annotations.coco.json", root
    return found


def _coco_images(root: Path, name: str, part: str) -> Path:
    tries = (f"images/{name}", name, f"images/{part}", part, "images")
    return next((root / place for place in tries if (root / place).is_dir()), root)


def read_coco_parts(root: Path, files: dict[str, tuple[str, Path]], findings: Findings) -> Source:
    source = Source("coco", ())
    classes: list[str] = []
    first = ""
    for part, (name, folder) in files.items():
        found, records = read_coco(root, name, folder, findings)
        if first and found != classes and set(found) - set(classes):
            extra = next(other for other in found if other not in classes)
            raise UserError(f"The category {extra!r:.60} of {quoted(name)} is not in {quoted(first)} ({quoted(root)}).")
        if not first:
            classes, first = found, name
        source.parts[part] = records
    source.classes = tuple(classes)
    return source
