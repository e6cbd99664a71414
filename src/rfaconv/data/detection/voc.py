"""PASCAL VOC's annotations: one XML file an image."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from xml.etree.ElementTree import Element

from rfaconv.data.detection.boxes import Annotated, Claim, MalformedError, number
from rfaconv.data.detection.findings import Findings
from rfaconv.data.detection.parts import Source, part_folders, relative_name
from rfaconv.data.detection.xml import parse_xml
from rfaconv.data.files import files_in, is_image, read_lines

VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip


def read_voc(
    root: Path,
    source: str,
    images: Mapping[str, Path],
    findings: Findings,
    *,
    first_pixel: int = 0,
    keep_difficult: bool = False,
) -> Annotated | None:
    """What the XML file root/source says of its image; None where it cannot be read, which `findings` then knows.

    Args:
        root: of the data set.
        source: the file, relative to `root`.
        images: the images it may be for, by name and by stem; its own stem goes before the name that the file gives,
            which is often that of another image it was copied from.
        findings: what is wrong goes there.
        first_pixel: 1 where boxes are counted as VOC's own are (from 1, both ends inclusive), 0 where they are corners.
        keep_difficult: keep objects marked as difficult.
    """
    path = root / source
    try:
        annotation = parse_xml(path.read_bytes())
        if annotation.tag != "annotation":
            raise MalformedError(f"its outermost element is <{annotation.tag}>, not <annotation>")
        objects = annotation.findall("object")
        _check_places(annotation, objects)
        name, size = _text(annotation, "filename", ""), _size(annotation)
    except (OSError, MalformedError) as error:
        findings.add("unreadable file", source, "", str(error))
        return None
    findings.found += len(objects)
    claims = []
    for index, element in enumerate(objects, 1):
        where = f"object {index}"
        try:
            claim = _claim(element, where, first_pixel)
            difficult = _text(element, "difficult", "0") not in ("0", "")
        except MalformedError as error:
            findings.add("malformed box", source, where, str(error), boxes=1)
            continue
        if difficult and not keep_difficult:
            findings.note("difficult", boxes=1)
        else:
            claims.append(claim)
    plain = name.replace("\\", "/").rpartition("/")[2]
    image = images.get(path.stem) or images.get(plain)
    return Annotated(source, image, name or path.stem, tuple(claims), size)


def _check_places(annotation: Element, objects: list[Element]) -> None:
    """Boxes where no one would look for them are not passed over in silence."""
    everywhere = sum(1 for _ in annotation.iter("bndbox"))
    known = sum(len(element.findall("bndbox")) + len(element.findall("part/bndbox")) for element in objects)
    if everywhere != known:
        raise MalformedError("it has a <bndbox> outside of its objects")
    if sum(1 for _ in annotation.iter("object")) != len(objects):
        raise MalformedError("it has an <object> inside of another element")


def _claim(element: Element, where: str, first_pixel: int) -> Claim:
    name = _text(element, "name")
    if not name:
        raise MalformedError("it has no class")
    boxes = element.findall("bndbox")
    if len(boxes) != 1:
        raise MalformedError(f"it has {len(boxes) or 'no'} <bndbox>")
    left, top, right, bottom = (number(_text(boxes[0], tag)) for tag in ("xmin", "ymin", "xmax", "ymax"))
    return Claim(where, name, (left - first_pixel, top - first_pixel, right, bottom))


def _size(annotation: Element) -> tuple[int, int] | None:
    """(width, height); None where the file has none or zeros, as some tools write."""
    found = annotation.findall("size")
    if len(found) > 1:
        raise MalformedError("it has two sizes")
    if not found:
        return None
    width, height = (number(_text(found[0], tag, "0")) for tag in ("width", "height"))
    return (int(width), int(height)) if width and height else None


def _text(element: Element, tag: str, default: str | None = None) -> str:
    """The text of the one child of that tag."""
    found = element.findall(tag)
    if not found and default is not None:
        return default
    if len(found) != 1:
        raise MalformedError(f"its <{element.tag}> has {len(found) or 'no'} <{tag}>")
    return (found[0].text or "").strip()


def find_voc(root: Path) -> list[Path]:
    """The folders that hold VOC's annotations: a year each, or folders of XML files."""
    years = [
        path.parent.parent
        for pattern in ("", "*/", "*/*/", "*/*/*/")
        for path in sorted(root.glob(f"{pattern}ImageSets/Main"))
        if (path.parent.parent / "Annotations").is_dir()
    ]
    if years:
        return years
    parts = [root / name for name in part_folders(root).values()]
    return [path for path in (parts or [root]) if any(path.glob("*.xml")) or any(path.glob("[Aa]nnotations/*.xml"))]


def read_voc_parts(
    root: Path, folders: list[Path], findings: Findings, classes: tuple[str, ...], keep_difficult: bool
) -> Source:
    source = Source("voc", classes)
    if (folders[0] / "ImageSets" / "Main").is_dir():
        _read_years(root, folders, source, findings, keep_difficult)
        known = tuple(VOC_CLASSES)
    else:
        names = {folder: part for part, folder in part_folders(root).items()}
        for folder in folders:
            part = names.get(folder.name, "train") if folder != root else "train"
            source.parts[part] = _xml_folder(root, folder, findings, keep_difficult)
        known = ()
    if not classes:
        used = {claim.name for records in source.parts.values() for record in records for claim in record.claims}
        # Of a set with other classes, those of its training part: one that is only elsewhere is a slip of the pen.
        trained = {claim.name for record in source.parts.get("train", ()) for claim in record.claims}
        source.classes = known if len(used & set(known)) * 2 > len(used) else tuple(sorted(trained))
    return source


def _read_years(root: Path, folders: list[Path], source: Source, findings: Findings, keep_difficult: bool) -> None:
    """Trained on trainval, tested on test where there is one (07+12: both years' trainval, 2007's test)."""
    tested = any((folder / "ImageSets" / "Main" / "test.txt").is_file() for folder in folders)
    lists = {"train": "trainval", "val": "test"} if tested else {"train": "train", "val": "val"}
    for part, name in lists.items():
        records: list[Annotated] = []
        for folder in folders:
            path = folder / "ImageSets" / "Main" / f"{name}.txt"
            if path.is_file():
                records += _year(root, folder, path, findings, keep_difficult)
        source.parts[part] = records


def _year(root: Path, folder: Path, path: Path, findings: Findings, keep_difficult: bool) -> list[Annotated]:
    images = _byrelative_name(folder / "JPEGImages")
    records, seen = [], set[str]()
    for line in read_lines(path):
        key = line.split()[0]
        if key in seen:
            findings.add("duplicate", relative_name(path, root), "", f"{key!r:.60} is listed twice")
            continue
        seen.add(key)
        annotation = folder / "Annotations" / f"{key}.xml"
        if "\0" in key or not annotation.is_file():
            detail = f"{key!r:.60} is listed and has no annotation"
            findings.add("missing annotations", relative_name(path, root), "", detail)
            continue
        records.append(
            read_voc(
                root, relative_name(annotation, root), images, findings, first_pixel=1, keep_difficult=keep_difficult
            )
        )
    return [record for record in records if record is not None]


def _xml_folder(root: Path, folder: Path, findings: Findings, keep_difficult: bool) -> list[Annotated]:
    """XML files beside their images, or in Annotations/ beside images/ or JPEGImages/."""
    files = sorted(folder.glob("*.xml")) or sorted(folder.glob("[Aa]nnotations/*.xml"))
    places = [folder, *(folder / name for name in ("images", "JPEGImages"))]
    images: dict[str, Path] = {}
    for place in places:
        images.update(_byrelative_name(place))
    records, taken = [], dict[Path, str]()
    for path in files:
        record = read_voc(root, relative_name(path, root), images, findings, keep_difficult=keep_difficult)
        if record is None:
            taken.setdefault(images.get(path.stem, path), path.name)
            continue
        if record.image in taken:
            detail = f"it is for the image {record.name!r}, as {taken[record.image]!r} is"
            findings.add("duplicate", record.source, "", detail, boxes=len(record.claims))
            continue
        if record.image is not None:
            taken[record.image] = path.name
        records.append(record)
    for image in sorted(set(images.values()) - set(taken)):
        findings.add("missing annotations", relative_name(image, root), "", "the image has no annotation")
    return records


def _byrelative_name(folder: Path) -> dict[str, Path]:
    """The images directly in a folder, by name and by stem."""
    if not folder.is_dir():
        return {}
    found: dict[str, Path] = {}
    for name in filter(is_image, files_in(folder)):
        found.setdefault(Path(name).stem, folder / name)
        found[name] = folder / name
    return found
