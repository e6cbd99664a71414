"""CVAT's own XML ("CVAT for images 1.1"): one file of all images."""

from __future__ import annotations

from pathlib import Path
from xml.etree.ElementTree import Element

from rfaconv.data.annotations.claims import Annotated, Claim, MalformedError, around, ellipse, number, outline, turned
from rfaconv.data.annotations.issues import Issues
from rfaconv.data.annotations.parts import PART_NAMES, ImageFinder, Options, Source, relative_name, used_classes
from rfaconv.data.annotations.runs import checked_runs
from rfaconv.data.annotations.xml import parse_xml, xml_kind
from rfaconv.data.files import files_in, quoted, read_bytes
from rfaconv.errors import UserError

_AREAS = ("box", "polygon", "mask", "ellipse")
_OTHERS = ("polyline", "points", "cuboid", "skeleton", "tag")


def find_cvat(root: Path) -> list[Path]:
    """The files, in the root or in annotations/."""
    places = [root, root / "annotations"]
    files = [place / name for place in places if place.is_dir() for name in files_in(place) if name.endswith(".xml")]
    return [path for path in files if xml_kind(path) == "cvat"]


def read_cvat(root: Path, files: list[Path], issues: Issues, options: Options) -> Source:
    """One file is for training, or its images' subsets say; of several, datumaro's, the names say."""
    source = Source("cvat", ())
    classes: list[str] = []
    images = ImageFinder(root / "images", root)
    for path in files:
        try:
            annotations = parse_xml(read_bytes(path))
        except MalformedError as error:
            raise UserError(f"{quoted(path)} cannot be used: {error}.") from error
        if annotations.tag != "annotations":
            raise UserError(f"{quoted(path)} cannot be used: its outermost element is <{annotations.tag}>.")
        _check_places(path, annotations)
        classes += [text for element in annotations.iter("label") if (text := (element.findtext("name") or "").strip())]
        stem = _part(path.stem)
        for element in annotations.findall("image"):
            record = _image(relative_name(path, root), element, images, issues)
            source.parts.setdefault(_part(element.get("subset") or "") or stem or "train", []).append(record)
    records = [record for part in source.parts.values() for record in part]
    source.classes = tuple(dict.fromkeys(classes)) or used_classes(records)
    return source


def _check_places(path: Path, annotations: Element) -> None:
    """Objects where no one would look for them are not passed over in silence."""
    everywhere = sum(1 for element in annotations.iter() if element.tag in (*_AREAS, *_OTHERS))
    known = sum(1 for image in annotations.findall("image") for shape in image if shape.tag in (*_AREAS, *_OTHERS))
    if everywhere != known:
        raise UserError(f"{quoted(path)} cannot be used: it has objects outside of its images.")


def _part(name: str) -> str:
    return next((part for part, names in PART_NAMES.items() if name.lower() in names), "")


def _image(source: str, element: Element, images: ImageFinder, issues: Issues) -> Annotated:
    name = element.get("name") or ""
    claims: list[Claim] = []
    try:
        width, height = (int(number(element.get(side, "0"))) for side in ("width", "height"))
    except MalformedError:
        width = height = 0
    for index, shape in enumerate(element, 1):
        issues.found += 1
        if shape.tag in _OTHERS:
            issues.note("no area object", boxes=1)
            continue
        where = f"image {name!r:.60}, object {index}"
        try:
            claims.append(_claim(shape, where))
        except (MalformedError, ValueError) as error:
            issues.add("malformed box", source, where, str(error), boxes=1)
            continue
        if shape.tag == "box" and claims[-1].outlines:
            issues.note("turned")
    size = (width, height) if width > 0 and height > 0 else None
    return Annotated(source, images(name) if name else None, name, tuple(claims), size)


def _claim(shape: Element, where: str) -> Claim:
    label = (shape.get("label") or "").strip()
    if shape.tag not in _AREAS:
        raise MalformedError(f"a <{shape.tag:.40}> is no object that is known")
    if not label:
        raise MalformedError("it has no class")

    def value(name: str) -> float:
        return number(shape.get(name) if shape.get(name) is not None else "")

    if shape.tag == "box":
        left, top, right, bottom = (value(name) for name in ("xtl", "ytl", "xbr", "ybr"))
        degrees = number(shape.get("rotation", "0"))
        if not degrees % 360:
            return Claim(where, label, (left, top, right, bottom))
        middle = ((left + right) / 2, (top + bottom) / 2)
        points = turned(left, top, right - left, bottom - top, degrees, middle)
    elif shape.tag == "ellipse":
        x, y, across, down = (value(name) for name in ("cx", "cy", "rx", "ry"))
        points = ellipse(x, y, across, down, number(shape.get("rotation", "0")))
    elif shape.tag == "polygon":
        points = outline([word for pair in (shape.get("points") or "").split(";") for word in pair.split(",")])
    else:
        left, top, width, height = (int(value(name)) for name in ("left", "top", "width", "height"))
        counts = [int(number(word)) for word in (shape.get("rle") or "").split(",")]
        runs = checked_runs(counts, height, width, "C", left, top)
        return Claim(where, label, runs.corners(), runs=runs)
    return Claim(where, label, around((points,)), outlines=(points,))
