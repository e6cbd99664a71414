"""COCO's annotations: one JSON file a part."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from rfaconv.data.annotations.claims import Annotated, Claim, Corners, MalformedError, Outline, around, number, outline
from rfaconv.data.annotations.issues import Issues
from rfaconv.data.annotations.jsonfile import load_json
from rfaconv.data.annotations.parts import PART_NAMES, Options, Source, part_folders
from rfaconv.data.annotations.runs import Runs, checked_runs, coco_counts
from rfaconv.data.files import file_head, files_in, inside, quoted
from rfaconv.errors import UserError

_LISTS = ("images", "annotations", "categories")
_SERVER = ("/", "http:", "https:", "data/upload/", "upload/", "data/local-files")
"""How the file_name of an annotation server begins, Label Studio's among them: only its last part is of use here."""


class _Image(NamedTuple):
    name: str
    size: tuple[int, int] | None


def read_coco(
    root: Path, source: str, folder: Path, issues: Issues, crowds: str | None = None
) -> tuple[list[str], list[Annotated]]:
    """The classes (in the order of their ids) and the images of the JSON file root/source.

    Args:
        root: of the data set.
        source: the file, relative to `root`.
        folder: where its images are.
        issues: what is wrong with single entries goes there.
        crowds: keep or drop what has iscrowd 1; None: dropped, but kept where datumaro or CVAT wrote the file, which
            set it for every mask.

    Raises:
        UserError: the file as a whole is no COCO annotations.
    """
    record = _load(root / source)
    names = _categories(record, source, issues)
    images, unclear = _images(record, source, issues)
    info: Any = record.get("info")
    if isinstance(info, dict) and info.get("contributor") == "Label Studio":
        issues.note("label studio")
    keep = crowds == "keep" or (crowds is None and _datumaro(record))
    claims: dict[Any, list[Claim]] = {key: [] for key in images}
    seen: set[Any] = set()
    for index, entry in enumerate(record["annotations"]):
        issues.found += 1
        where = f"annotation {index}"
        try:
            if not isinstance(entry, dict):
                raise MalformedError("it is no record")
            key = _key(entry, "id") if "id" in entry else f"annotation {index}"
            owner, category = (_key(entry, name) for name in ("image_id", "category_id"))
            crowd = bool(number(entry.get("iscrowd") or 0))
            size = images[owner].size if owner in images else None
            outlines, runs = _shape(entry, size)
            corners = _corners(entry, outlines, runs)
        except MalformedError as error:
            issues.add("malformed box", source, where, str(error), boxes=1)
            continue
        if owner in unclear:
            issues.add("ambiguous", source, where, f"it is for image {owner!r:.40}, of which there are two", boxes=1)
        elif key in seen:
            issues.add("duplicate", source, where, f"its id {key!r:.40} is there twice", boxes=1)
        elif owner not in images:
            issues.add("missing image", source, where, f"it is for image {owner!r:.40}, which is not listed", boxes=1)
        elif category not in names:
            issues.add("unknown class", source, where, f"its category {category!r:.40} is not listed", boxes=1)
        else:
            if crowd and keep:
                issues.note("crowd kept")
            claims[owner].append(
                Claim(where, names[category], corners, outlines=outlines, runs=runs, crowd=crowd and not keep)
            )
        seen.add(key)
    used = {claim.name for found in claims.values() for claim in found}
    classes = _without_groups(record, names, used, issues)
    records = [
        Annotated(source, _file(folder, name), name, tuple(claims[key]), size) for key, (name, size) in images.items()
    ]
    return classes, records


def _load(path: Path) -> dict[str, list[Any]]:
    found = load_json(path)
    for name in _LISTS:
        if not isinstance(found, dict) or not isinstance(found.get(name), list):
            raise UserError(f"{quoted(path)} is no COCO annotations: it has no list '{name}'.")
    return found


def _datumaro(record: dict[str, Any]) -> bool:
    """Whether datumaro or CVAT wrote the file: their one licence is an empty record."""
    return record.get("licenses") == [{"name": "", "id": 0, "url": ""}]


def _categories(record: dict[str, list[Any]], source: str, issues: Issues) -> dict[Any, str]:
    names: dict[Any, str] = {}
    for index, entry in enumerate(record["categories"]):
        try:
            key, name = _key(entry, "id"), entry.get("name")
        except MalformedError as error:
            raise UserError(f"Category {index} of {quoted(source)} cannot be used: {error}.") from error
        if not isinstance(name, str) or not name.strip():
            raise UserError(f"Category {index} of {quoted(source)} has no name.")
        if key in names:
            issues.add("duplicate", source, f"category {index}", f"its id {key!r:.40} is there twice")
            continue
        if name.strip() in names.values():
            issues.add("duplicate", source, f"category {index}", f"its name {name!r:.40} is there twice")
        names[key] = name.strip()
    return names


def _images(record: dict[str, list[Any]], source: str, issues: Issues) -> tuple[dict[Any, _Image], set[Any]]:
    """Images by id, and the ids that two images share: whose annotations those are is not to be known."""
    images: dict[Any, _Image] = {}
    unclear: set[Any] = set()
    files: set[str] = set()
    for index, entry in enumerate(record["images"]):
        where = f"image {index}"
        try:
            key, name = _key(entry, "id"), entry.get("file_name")
            if not isinstance(name, str) or not name.strip():
                raise MalformedError("it has no file_name")
            width, height = (int(number(entry.get(side) or 0)) for side in ("width", "height"))
            if width < 0 or height < 0:
                raise MalformedError(f"it is of {width} x {height} pixels")
        except MalformedError as error:
            issues.add("missing image", source, where, str(error))
            continue
        if key in unclear or (key in images and images[key].name != name):
            other = images.pop(key).name if key in images else "others"
            unclear.add(key)
            detail = f"its id {key!r:.40} is that of {other!r:.60} and of {name!r:.60}"
            issues.add("ambiguous", source, where, detail)
        elif key in images:
            issues.add("duplicate", source, where, f"its id {key!r:.40} is there twice")
        elif name in files:
            issues.add("duplicate", source, where, f"its file {name!r:.60} is there twice")
        else:
            images[key] = _Image(name, (width, height) if width and height else None)
            files.add(name)
    return images, unclear


def _key(entry: Any, name: str) -> int | str:
    """An id: numbers and text are both in use."""
    if not isinstance(entry, dict):
        raise MalformedError("it is no record")
    value = entry.get(name)
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise MalformedError(f"its {name} is {value!r:.40}" if name in entry else f"it has no {name}")
    return value


def _shape(entry: dict[str, Any], size: tuple[int, int] | None) -> tuple[tuple[Outline, ...], Runs | None]:
    """Polygons, or run lengths, or neither."""
    found = entry.get("segmentation")
    if isinstance(found, dict):
        counts, pixels = found.get("counts"), found.get("size")
        if isinstance(pixels, list) and len(pixels) == 2:
            height, width = pixels
        elif size is not None:
            width, height = size
        else:
            raise MalformedError("its run lengths have no size")
        if size is not None and (width, height) != size:
            raise MalformedError(
                f"its run lengths are for {width} x {height} pixels, its image has {size[0]} x {size[1]}"
            )
        if not isinstance(counts, str | list):
            raise MalformedError("its run lengths are missing")
        try:
            return (), checked_runs(coco_counts(counts) if isinstance(counts, str) else counts, height, width)
        except ValueError as error:
            raise MalformedError(str(error)) from error
    if found is None or found == []:
        return (), None
    if not isinstance(found, list) or not all(isinstance(points, list) for points in found):
        raise MalformedError("its segmentation is neither polygons nor run lengths")
    return tuple(outline([_no_text(value) for value in points]) for points in found), None


def _corners(entry: dict[str, Any], outlines: tuple[Outline, ...], runs: Runs | None) -> Corners:
    box = entry.get("bbox")
    if "bbox" not in entry and outlines:
        return around(outlines)
    if "bbox" not in entry and runs is not None:
        return runs.corners()
    if not isinstance(box, list) or len(box) != 4:
        raise MalformedError("it has no bbox of four numbers")
    left, top, width, height = (number(_no_text(value)) for value in box)
    return left, top, left + width, top + height


def _no_text(value: object) -> object:
    if isinstance(value, str):
        raise MalformedError(f"{value!r:.40} is no number")
    return value


def _without_groups(record: dict[str, list[Any]], names: dict[Any, str], used: set[str], issues: Issues) -> list[str]:
    """The classes by id, once each, without Roboflow's first category, which stands for all the others."""
    groups = {entry.get("supercategory") for entry in record["categories"] if _hashable(entry.get("supercategory"))}
    roots = {
        str(entry.get("name")).strip()
        for entry in record["categories"]
        if entry.get("supercategory") in ("none", None) and entry.get("name") in groups
    }
    classes = []
    for _, name in sorted(names.items(), key=lambda item: (isinstance(item[0], str), item[0])):
        if name in roots and name not in used and name not in classes:
            issues.note("group")
        elif name not in classes:
            classes.append(name)
    return classes


def _hashable(value: object) -> bool:
    return value is None or isinstance(value, str | int | float)


def _file(folder: Path, name: str) -> Path | None:
    """The file, where it is inside of the folder; of a server's path the last part alone."""
    plain = name.replace("\\", "/")
    found = inside(folder, name) or inside(folder, plain)
    if found is None and plain.startswith(_SERVER):
        found = inside(folder, PurePosixPath(plain.replace("=", "/")).name)
    if found is None and plain.startswith(("images/", "./images/")):
        found = inside(folder, plain.split("images/", 1)[1])
    return found


def find_coco(root: Path) -> dict[str, tuple[str, Path]]:
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
                    found[part] = paths[0].relative_to(root).as_posix(), _images_of(root, paths[0].stem[10:], name)
    return found or _single(root)


def _images_of(root: Path, *names: str) -> Path:
    tries = [place for name in names for place in (f"images/{name}", name)]
    return next((root / place for place in (*tries, "images") if (root / place).is_dir()), root)


def _single(root: Path) -> dict[str, tuple[str, Path]]:
    """One file for all, whatever its name: result.json of Label Studio, instances_default.json of CVAT, ..."""
    places = ["", *(name for name in ("annotations",) if (root / name).is_dir())]
    paths = [
        root / place / name
        for place in places
        for name in files_in(root / place)
        if name.lower().endswith(".json") and not name.startswith((".", "person_keypoints", "captions"))
    ]
    found = [path for path in paths if _looks_like_coco(path)]
    if len(found) > 1:
        parts = {part: path for path in found for part, names in PART_NAMES.items() if path.stem.lower() in names}
        if set(parts.values()) != set(found):
            raise UserError(
                f"{quoted(root)} has {len(found)} COCO files, and their names do not say which is for what."
            )
        return {part: (path.relative_to(root).as_posix(), _images_of(root, path.stem)) for part, path in parts.items()}
    if not found:
        return {}
    [path] = found
    return {"train": (path.relative_to(root).as_posix(), _images_of(root, path.stem.removeprefix("instances_")))}


def _looks_like_coco(path: Path) -> bool:
    head = file_head(path, 1 << 16)
    if not head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{"):
        return False
    keys = [b'"%s"' % name.encode() for name in _LISTS]
    return all(key in head for key in keys) or all(key in path.read_bytes() for key in keys)


def read_coco_parts(root: Path, files: dict[str, tuple[str, Path]], issues: Issues, options: Options) -> Source:
    """All parts; their categories must be the same, in ids or at least in names."""
    source = Source("coco", ())
    classes: list[str] = []
    first = ""
    for part, (name, folder) in files.items():
        found, records = read_coco(root, name, folder, issues, options.crowds)
        if first and found != classes and set(found) - set(classes):
            extra = next(other for other in found if other not in classes)
            raise UserError(f"The category {extra!r:.60} of {quoted(name)} is not in {quoted(first)} ({quoted(root)}).")
        if not first:
            classes, first = found, name
        source.parts[part] = records
    source.classes = tuple(classes)
    return source
