"""LabelMe's outlines: a JSON file an image (wkentaro's labelme), or an XML file an image (MIT's)."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

from rfaconv.data.annotations.claims import Annotated, Claim, MalformedError, around, ellipse, number, outline
from rfaconv.data.annotations.issues import Issues
from rfaconv.data.annotations.jsonfile import load_json
from rfaconv.data.annotations.parts import ImageFinder, Options, Source, part_folders, relative_name, used_classes
from rfaconv.data.annotations.xml import parse_xml, xml_kind
from rfaconv.data.files import file_head, read_bytes
from rfaconv.errors import UserError


def find_labelme(root: Path) -> dict[str, list[Path]]:
    """The files of each part: all of a folder that has one, so that a damaged one is not passed over."""
    found: dict[str, list[Path]] = {}
    for part, folder in {"train": "", **part_folders(root)}.items():
        found[part] = _if_any(sorted((root / folder).glob("*.json")))
    outlines = root / "Annotations"
    if outlines.is_dir():
        folders = part_folders(outlines)
        for part, folder in folders.items() if folders else [("train", "")]:
            found[part] = found.get(part, []) + _if_any(sorted((outlines / folder).glob("**/*.xml")))
    return {part: paths for part, paths in found.items() if paths}


def _if_any(paths: list[Path]) -> list[Path]:
    return paths if any(map(_is_labelme, paths)) else []


def _is_labelme(path: Path) -> bool:
    if path.suffix == ".xml":
        return xml_kind(path) == "labelme"
    head = file_head(path, 1 << 16)
    if not head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{") or b'"shapes"' not in head:
        return False
    return b'"imagePath"' in head or b'"imagePath"' in path.read_bytes()  # the image itself may lie between


def read_labelme(root: Path, files: dict[str, list[Path]], issues: Issues, options: Options) -> Source:
    images = ImageFinder(*([path for name in ("Images", "images") if (path := root / name).is_dir()] or [root]))
    parts: dict[str, list[Annotated]] = {}
    for part, paths in files.items():
        read = [_read(root, path, images, issues) for path in paths]
        parts[part] = [record for record in read if record is not None]
    used = {record.image for records in parts.values() for record in records}
    without = sum(
        1 for path in images.all() if path not in used and path.with_suffix(".json") not in files.get("train", [])
    )
    if without:
        issues.note("unlabelled", without)
    return Source("labelme", options.classes or used_classes(parts.get("train", [])), parts)


def _read(root: Path, path: Path, images: ImageFinder, issues: Issues) -> Annotated | None:
    source = relative_name(path, root)
    try:
        name, size, objects = _json(path) if path.suffix == ".json" else _xml(path)
    except (UserError, MalformedError) as error:
        issues.add("unreadable file", source, "", str(error))
        return None
    claims = []
    for index, found in enumerate(objects, 1):
        issues.found += 1
        try:
            claim = _claim(found, f"object {index}")
        except MalformedError as error:
            issues.add("malformed box", source, f"object {index}", str(error), boxes=1)
            continue
        if claim is None:
            issues.note("no area object", boxes=1)
        else:
            claims.append(claim)
    parent = path.parent / name.replace("\\", "/")
    image = parent if ".." not in name and name and parent.is_file() else images(name)
    return Annotated(source, image, name, tuple(claims), size)


_Object = tuple[str, str, list[Any]]
"""Class, kind of shape, and x, y, x, y, ..."""


def _json(path: Path) -> tuple[str, tuple[int, int] | None, list[_Object | str]]:
    found = load_json(path)
    if not isinstance(found, dict) or not isinstance(found.get("shapes"), list):
        raise MalformedError("it has no list 'shapes'")
    name = found.get("imagePath")
    if not isinstance(name, str) or not name.strip():
        raise MalformedError("it names no image")
    width, height = (int(number(found.get(f"image{side}") or 0)) for side in ("Width", "Height"))
    objects: list[_Object | str] = []
    for entry in found["shapes"]:
        points = entry.get("points") if isinstance(entry, dict) else None
        if not isinstance(points, list) or not all(isinstance(point, list) and len(point) == 2 for point in points):
            objects.append("it has no list of points")
            continue
        label = entry.get("label")
        kind = str(entry.get("shape_type") or "polygon")
        objects.append((label if isinstance(label, str) else "", kind, [value for point in points for value in point]))
    return name, (width, height) if width > 0 and height > 0 else None, objects


def _xml(path: Path) -> tuple[str, tuple[int, int] | None, list[_Object | str]]:
    annotation = parse_xml(read_bytes(path))
    found = annotation.findall("object")
    if sum(1 for _ in annotation.iter("object")) != len(found) or annotation.tag != "annotation":
        raise MalformedError("it has an <object> inside of another element")
    height, width = (int(number(annotation.findtext(f"imagesize/{side}") or "0")) for side in ("nrows", "ncols"))
    # A folder may be named like a part; the path of the file is the better guide.
    below = path.parts[path.parts.index("Annotations") + 1 : -1]
    name = "/".join([*below, (annotation.findtext("filename") or "").strip().rpartition("/")[2]])
    return name, (width, height) if width > 0 and height > 0 else None, [_element(entry) for entry in found]


def _element(entry: Element) -> _Object | str:
    label = (entry.findtext("name") or "").strip()
    if (entry.findtext("deleted") or "0").strip() not in ("", "0"):
        return label, "deleted", []
    box = entry.find("segm/box")
    if box is not None:
        return label, "rectangle", [(box.findtext(tag) or "").strip() for tag in ("xmin", "ymin", "xmax", "ymax")]
    points = entry.findall("polygon/pt")
    values = [(point.findtext(tag) or "").strip() for point in points for tag in ("x", "y")]
    kind = "box" if (entry.findtext("type") or "").strip() == "bounding_box" else "polygon"
    return (label, kind, values) if points else "it has neither polygon nor mask"


def _claim(found: _Object | str, where: str) -> Claim | None:
    if isinstance(found, str):
        raise MalformedError(found)
    label, kind, values = found
    if kind in ("point", "line", "linestrip", "points", "deleted"):
        return None
    if not label.strip():
        raise MalformedError("it has no class")
    if kind == "circle" and len(values) == 4:  # the middle, and a point of the edge
        x, y, across, down = (number(value) for value in values)
        radius = math.hypot(across - x, down - y)
        points = ellipse(x, y, radius, radius)
        return Claim(where, label.strip(), around((points,)), outlines=(points,))
    if kind in ("rectangle", "mask") and len(values) == 4:
        left, top, right, bottom = (number(value) for value in values)
        return Claim(where, label.strip(), (min(left, right), min(top, bottom), max(left, right), max(top, bottom)))
    if kind not in ("polygon", "box"):
        raise MalformedError(f"its shape {kind!r:.40} of {len(values)} numbers is not known")
    points = outline(values)
    return Claim(where, label.strip(), around((points,)), outlines=() if kind == "box" else (points,))
