"""PASCAL VOC's annotations: one XML file an image."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from xml.etree.ElementTree import Element

from rfaconv.data.annotations.claims import Annotated, Claim, MalformedError, number
from rfaconv.data.annotations.classes import read_labelmap
from rfaconv.data.annotations.issues import Issues
from rfaconv.data.annotations.parts import Options, Source, part_folders, relative_name, used_classes
from rfaconv.data.annotations.xml import parse_xml, xml_kind
from rfaconv.data.files import images_below, inside, read_bytes, read_lines
from rfaconv.errors import UserError

VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip


def read_voc(
    root: Path,
    source: str,
    images: Mapping[str, Path],
    issues: Issues,
    *,
    first_pixel: int = 0,
    keep_difficult: bool = False,
) -> Annotated | None:
    """What the XML file root/source says of its image; None where it cannot be read, which `issues` then knows.

    Args:
        root: of the data set.
        source: the file, relative to `root`.
        images: the images it may be for, by name and by stem; its own stem goes before the name that the file gives,
            which is often that of another image it was copied from.
        issues: what is wrong goes there.
        first_pixel: 1 where boxes are counted as VOC's own are (from 1, both ends inclusive), 0 where they are corners.
        keep_difficult: keep objects marked as difficult.
    """
    path = root / source
    try:
        annotation = parse_xml(read_bytes(path))
        if annotation.tag != "annotation":
            raise MalformedError(f"its outermost element is <{annotation.tag}>, not <annotation>")
        objects = annotation.findall("object")
        _check_places(annotation, objects)
        name, size = _text(annotation, "filename", ""), _size(annotation)
    except (UserError, MalformedError) as error:
        issues.add("unreadable file", source, "", str(error))
        return None
    issues.found += len(objects)
    if (annotation.findtext("owner/name") or "").strip() == "Label Studio" and not issues.notes["label studio"]:
        issues.note("label studio")
    claims = []
    for index, element in enumerate(objects, 1):
        where = f"object {index}"
        try:
            claim = _claim(element, where, first_pixel)
            difficult = _text(element, "difficult", "0") not in ("0", "")
        except MalformedError as error:
            issues.add("malformed box", source, where, str(error), boxes=1)
            continue
        if difficult and not keep_difficult:
            issues.note("difficult", boxes=1)
        else:
            claims.append(claim)
    plain = name.replace("\\", "/").rpartition("/")[2]
    image = images.get(_key(path)) or images.get(path.stem) or images.get(plain)
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
    folders = [path for path in parts if _has_voc(path)]
    return folders or [path for path in [root] if _has_voc(path)]


def _has_voc(folder: Path) -> bool:
    """Whether XML files lie there that may be VOC's; CVAT's own are another format."""
    files = [*folder.glob("*.xml"), *folder.glob("[Aa]nnotations/**/*.xml")]
    return any(xml_kind(path) == "voc" for path in files[:3])


def read_voc_parts(root: Path, folders: list[Path], issues: Issues, options: Options) -> Source:
    source = Source("voc", options.classes)
    if (folders[0] / "ImageSets" / "Main").is_dir():
        _read_years(root, folders, source, issues, options.keep_difficult)
        labelmap = read_labelmap(folders[0] / "labelmap.txt")  # CVAT's and datumaro's
        known = tuple(VOC_CLASSES)
        if labelmap is not None and not options.classes:
            source.classes = tuple(name for name in labelmap.names if name != "background")
            return source
    else:
        names = {folder: part for part, folder in part_folders(root).items()}
        for folder in folders:
            part = names.get(folder.name, "train") if folder != root else "train"
            source.parts[part] = _xml_folder(root, folder, issues, options.keep_difficult)
        known = ()
    if not options.classes:
        used = set(used_classes([record for records in source.parts.values() for record in records]))
        # Of a set with other classes, those of its training part: one that is only elsewhere is a slip of the pen.
        trained = used_classes(source.parts.get("train", ()))
        source.classes = known if len(used & set(known)) * 2 > len(used) else trained
    return source


def _read_years(root: Path, folders: list[Path], source: Source, issues: Issues, keep_difficult: bool) -> None:
    """Trained on trainval, tested on test where there is one (07+12: both years' trainval, 2007's test)."""
    there = {path.stem for folder in folders for path in (folder / "ImageSets" / "Main").glob("*.txt")}
    lists = {"train": "train", "val": "val", "test": "test"}
    if {"trainval", "test"} <= there:
        lists = {"train": "trainval", "val": "test"}
    elif not there & set(lists):  # CVAT's and datumaro's only list is called default
        lists = {"train": next(iter(sorted(name for name in there if "_" not in name)), "train")}
    for part, name in lists.items():
        records: list[Annotated] = []
        for folder in folders:
            path = folder / "ImageSets" / "Main" / f"{name}.txt"
            if path.is_file():
                records += _year(root, folder, path, issues, keep_difficult)
        if records or part != "test":
            source.parts[part] = records


def _year(root: Path, folder: Path, path: Path, issues: Issues, keep_difficult: bool) -> list[Annotated]:
    images = _by_name(folder / "JPEGImages")
    # CVAT and datumaro, whose sign is the labelmap, write corners.
    first_pixel = 0 if (folder / "labelmap.txt").is_file() else 1
    records, seen = [], set[str]()
    for line in read_lines(path):
        key = _listed(line.strip(), folder, images)
        if key in seen:
            issues.add("duplicate", relative_name(path, root), "", f"{key!r:.60} is listed twice")
            continue
        seen.add(key)
        annotation = inside(folder / "Annotations", f"{key}.xml")
        if annotation is not None:
            records.append(
                read_voc(
                    root,
                    relative_name(annotation, root),
                    images,
                    issues,
                    first_pixel=first_pixel,
                    keep_difficult=keep_difficult,
                )
            )
        elif key in images:  # tools write no file for an image without objects
            issues.note("no annotation file")
            records.append(Annotated(relative_name(images[key], root), images[key], key, ()))
        else:
            detail = f"{key!r:.60} is listed and has neither annotation nor image"
            issues.add("missing annotations", relative_name(path, root), "", detail)
    return [record for record in records if record is not None]


def _listed(line: str, folder: Path, images: Mapping[str, Path]) -> str:
    """The name in a line of a list: names may have spaces, and a class's lists have 1 or -1 behind them."""
    for name in (line, line.strip('"'), line.rpartition(" ")[0].strip().strip('"')):
        if name and (name in images or inside(folder / "Annotations", f"{name}.xml")):
            return name
    return line.split()[0]


def _xml_folder(root: Path, folder: Path, issues: Issues, keep_difficult: bool) -> list[Annotated]:
    """XML files beside their images, or in Annotations/ beside images/ or JPEGImages/."""
    beside = sorted(folder.glob("*.xml"))
    files = beside or sorted(folder.glob("[Aa]nnotations/**/*.xml"))
    places = [folder / name for name in ("images", "JPEGImages", "imgs")]
    images: dict[str, Path] = _by_name(folder, deep=False)
    for place in places:
        images.update(_by_name(place))
    records, taken = [], dict[Path, str]()
    for path in files:
        record = read_voc(root, relative_name(path, root), images, issues, keep_difficult=keep_difficult)
        if record is None:
            taken.setdefault(images.get(path.stem, path), path.name)
            continue
        if record.image in taken:
            detail = f"it is for the image {record.name!r}, as {taken[record.image]!r} is"
            issues.add("duplicate", record.source, "", detail, boxes=len(record.claims))
            continue
        if record.image is not None:
            taken[record.image] = path.name
        records.append(record)
    for image in sorted(set(images.values()) - set(taken)):
        if beside:
            issues.add("missing annotations", relative_name(image, root), "", "the image has no annotation")
        else:  # Label Studio writes no file for an image without objects
            issues.note("no annotation file")
            records.append(Annotated(relative_name(image, root), image, image.name, ()))
    return records


def _by_name(folder: Path, deep: bool = True) -> dict[str, Path]:
    """The images in a folder, by path in it, by that without suffix, and by name alone where that says which."""
    if not folder.is_dir():
        return {}
    names = [name.lstrip("/") for name in images_below(folder, "")]
    found: dict[str, Path] = {}
    for name in sorted(
        names if deep else [name for name in names if "/" not in name], key=lambda name: name.count("/")
    ):
        path = folder / name
        for key in (path.stem, path.name, name.rpartition(".")[0]):
            found.setdefault(key, path)
        found[name] = path
    return found


def _key(path: Path) -> str:
    """The name of an annotation below its Annotations/, without suffix."""
    parts = path.with_suffix("").parts
    places = [place for place, part in enumerate(parts[:-1]) if part.lower() == "annotations"]
    return "/".join(parts[places[-1] + 1 :]) if places else path.stem
