"""YOLO's labels: a text file an image, a line a box or polygon; classes by a data.yaml, obj.data or classes.txt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from rfaconv.data.annotations.claims import Annotated, Claim, Corners, MalformedError, Outline, around, number
from rfaconv.data.annotations.issues import Issues
from rfaconv.data.annotations.parts import PART_NAMES, Options, Source, part_folders, relative_name
from rfaconv.data.files import files_in, images_below, inside, quoted, read_lines, read_text
from rfaconv.errors import UserError

_NO_LABELS = ("README.", "classes.", "obj.", "train.txt", "val.txt", "valid.txt", "test.txt", "requirements")


def label_path(image: Path) -> Path:
    """Where the labels of an image lie: in labels/ beside the last images/ of its path, else beside the image."""
    parts = image.with_suffix(".txt").parts
    for index in range(len(parts) - 2, -1, -1):
        if parts[index] == "images":
            return Path(*parts[:index], "labels", *parts[index + 1 :])
    return Path(*parts)


def read_labels(
    root: Path, image: Path | None, labels: Path, classes: tuple[str, ...], issues: Issues
) -> Annotated | None:
    """What a label file says of its image, in fractions of it; no file means no boxes.

    A line is a class number with the centre, width and height of a box, or with the corners of a polygon, whose box is
    taken. None where the file cannot be read, which `issues` then knows.
    """
    source = relative_name(labels, root)
    if not labels.exists() and image is not None:
        return Annotated(relative_name(image, root), image, image.name, ())
    try:
        lines = read_text(labels).splitlines()
    except UserError as error:
        issues.add("unreadable file", source, "", str(error))
        return None
    claims = []
    for index, line in enumerate(lines, 1):
        if not line.strip():
            continue
        issues.found += 1
        where = f"line {index}"
        try:
            target, corners, outlines = _claim(line.split())
        except MalformedError as error:
            issues.add("malformed box", source, where, str(error), boxes=1)
            continue
        if not 0 <= target < len(classes):
            detail = f"class {target} is none of the {len(classes)} classes"
            issues.add("unknown class", source, where, detail, boxes=1)
            continue
        claims.append(Claim(where, classes[target], corners, fractions=True, outlines=outlines))
    return Annotated(source, image, image.name if image else f"{labels.stem}.*", tuple(claims))


def _claim(words: list[str]) -> tuple[int, Corners, tuple[Outline, ...]]:
    target = number(words[0])
    if target != int(target):
        raise MalformedError(f"{words[0]!r:.40} is no class number")
    values = [number(word) for word in words[1:]]
    if len(values) == 4:
        x, y, width, height = values
        return int(target), (x - width / 2, y - height / 2, x + width / 2, y + height / 2), ()
    if len(values) < 6 or len(values) % 2:
        raise MalformedError(f"{len(words)} numbers are neither a box (5) nor a polygon (an odd number from 7)")
    points = (tuple(values),)
    return int(target), around(points), points


def find_yaml(root: Path) -> Path | None:
    """The data.yaml, or another YAML file in the root that names classes."""
    names = [name for name in files_in(root) if name.lower().endswith((".yaml", ".yml"))]
    for name in sorted(names, key=lambda name: (name.lower() not in ("data.yaml", "data.yml"), name)):
        if name.lower().startswith("data.") or "names" in _yaml(root / name):
            return root / name
    return None


def _yaml(path: Path) -> dict[str, Any]:
    try:
        found = yaml.safe_load(read_text(path))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{quoted(path)} is no valid YAML: {' '.join(str(error).split()):.120}.") from error
    return found if isinstance(found, dict) else {}


def find_yolo(root: Path) -> Path | None:
    """What says the classes: a data.yaml, CVAT's obj.data, or classes.txt where there are labels."""
    found = find_yaml(root)
    if found is not None or (root / "obj.data").is_file():
        return found or root / "obj.data"
    for place in (root, root / "labels", *(root / name for name in part_folders(root).values())):
        names = place / "classes.txt"
        if names.is_file() and (_has_labels(root / "labels") or _has_labels(place) or _has_labels(root)):
            return names
    return None


def _has_labels(folder: Path) -> bool:
    """Whether text files lie there, or one deeper, that may be labels."""
    return any(
        not path.name.startswith(_NO_LABELS) for pattern in ("*.txt", "*/*.txt") for path in folder.glob(pattern)
    )


def read_yolo(root: Path, path: Path, issues: Issues, options: Options) -> Source:
    if path.suffix.lower() in (".yaml", ".yml"):
        return read_yaml(root, path, issues)
    return _by_obj_data(root, path, issues) if path.name == "obj.data" else _by_class_list(root, path, issues)


def _by_class_list(root: Path, path: Path, issues: Issues) -> Source:
    """labelImg: classes.txt and labels beside the images; Label Studio: classes.txt, images/ and labels/."""
    classes = tuple(line.strip() for line in read_lines(path))
    source = Source("yolo", classes)
    if (root / "notes.json").is_file() and "Label Studio" in read_text(root / "notes.json"):
        issues.note("label studio")
    base = next((name for name in ("images", "Images") if (root / name).is_dir()), "")
    folders = part_folders(root / base)
    for part, name in folders.items() if folders else [("train", "")]:
        source.parts[part] = _labelled(root, root / base / name, classes, issues)
    return source


def _by_obj_data(root: Path, path: Path, issues: Issues) -> Source:
    """CVAT's YOLO 1.1 and darknet's: names, and a list of images for each part, as 'data/...'."""
    found = {}
    for line in read_lines(path):
        key, _, value = line.partition("=")
        found[key.strip()] = value.strip()
    names = inside(root, found.get("names", "").removeprefix("data/") or "obj.names")
    if names is None:
        raise UserError(f"{quoted(path)} names no file of classes that is there: add 'names = data/obj.names'.")
    classes = tuple(line.strip() for line in read_lines(names))
    source = Source("yolo", classes)
    for part, keys in PART_NAMES.items():
        value = next((found[key] for key in keys if found.get(key)), "")
        if not value:
            continue
        listed = inside(root, value.removeprefix("data/"))
        if listed is None:
            raise UserError(f"{quoted(path)} has '{part} = {value}', which is not in {quoted(root)}.")
        records = []
        for line in dict.fromkeys(line.strip().removeprefix("data/") for line in read_lines(listed)):
            image = inside(root, line)
            if image is None:
                issues.add("missing image", listed.name, "", f"the image {line!r:.60} is not there")
            labels = (root / line).with_suffix(".txt") if image is None else image.with_suffix(".txt")
            if image is not None or inside(root, relative_name(labels, root)):
                records.append(read_labels(root, image, labels, classes, issues))
        source.parts[part] = [record for record in records if record is not None]
    return source


def read_yaml(root: Path, path: Path, issues: Issues) -> Source:
    """What an Ultralytics data.yaml of root names."""
    found = _yaml(path)
    classes = yaml_classes(found, path)
    source = Source("yolo", classes)
    for part, keys in PART_NAMES.items():
        value = next((found[key] for key in keys if found.get(key)), None)
        folders = [value] if isinstance(value, str) else value
        if folders is None:
            continue
        if not isinstance(folders, list) or not all(isinstance(folder, str) for folder in folders):
            raise UserError(f"'{part}' of {quoted(path)} must be a folder or a list of folders.")
        source.parts[part] = [
            record
            for folder in folders
            for record in _labelled(root, resolve(root, found.get("path"), folder, path, part), classes, issues)
        ]
    return source


def yaml_classes(found: dict[str, Any], path: Path) -> tuple[str, ...]:
    """`names` of a data.yaml, a list or a mapping from 0, 1, ..."""
    names = found.get("names")
    if isinstance(names, dict):
        if sorted(names, key=str) != sorted(range(len(names)), key=str):
            raise UserError(f"The names of {quoted(path)} are not numbered 0, 1, 2, ...")
        names = [names[index] for index in range(len(names))]
    if not isinstance(names, list) or not names:
        raise UserError(f"{quoted(path)} names no classes: add 'names: [...]'.")
    if isinstance(found.get("nc"), int) and found["nc"] != len(names):
        raise UserError(f"{quoted(path)} says nc: {found['nc']} but names {len(names)} classes.")
    return tuple(str(name).strip() for name in names)


def resolve(root: Path, base: object, folder: str, path: Path, part: str) -> Path:
    """A folder or list of a data.yaml, wherever it was written; Roboflow's begin with a '../' too many."""
    plain = folder.replace("\\", "/")
    stripped = plain
    while stripped.startswith("../"):
        stripped = stripped[3:]
    if Path(plain).is_absolute():
        tries = [Path(plain), *(root / Path(*Path(plain).parts[-count:]) for count in (3, 2, 1))]
    else:
        # The folder itself goes first: '../train' of a neighbour must not be taken for this data set's.
        tries = [root / stripped, root / plain]
        if isinstance(base, str) and not plain.startswith("../"):
            tries.insert(0, root / base.replace("\\", "/") / plain)
    inside = PART_NAMES[part]
    tries += [root / name / "images" for name in inside] + [root / "images" / name for name in inside]
    found = next((place for place in tries if place.exists()), None)
    if found is None:
        raise UserError(f"{quoted(path)} has '{part}: {folder}', which is neither there nor in {quoted(root)}.")
    return found


def _labelled(root: Path, place: Path, classes: tuple[str, ...], issues: Issues) -> list[Annotated]:
    if place.is_file():  # a list of images
        lines = [line.strip().replace("\\", "/") for line in read_lines(place)]
        images = [Path(line) if Path(line).is_absolute() else place.parent / line for line in lines]
        for image in (image for image in images if not image.is_file()):
            issues.add("missing image", place.name, "", f"the image {image.name!r} is not there")
        images, folders = [image for image in images if image.is_file()], set[Path]()
    else:
        nested = place / "images" if (place / "images").is_dir() else place
        images = [nested / name.lstrip("/") for name in images_below(nested, "")]
        folders = {label_path(nested / "x.jpg").parent}
    by_labels: dict[Path, Path] = {}
    for image in images:
        labels = label_path(image)
        if labels in by_labels:
            detail = f"it has the same labels as {by_labels[labels].name!r}"
            issues.add("duplicate", relative_name(image, root), "", detail)
        by_labels.setdefault(labels, image)
    records = [read_labels(root, image, labels, classes, issues) for labels, image in by_labels.items()]
    for folder in folders:
        for path in sorted(folder.rglob("*.txt")):
            if path not in by_labels and not path.name.startswith(_NO_LABELS):
                records.append(read_labels(root, None, path, classes, issues))
    return [record for record in records if record is not None]
