"""Label Studio's own JSON and JSON_MIN, which keep what its other exports lose: turned rectangles and brushes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rfaconv.data.annotations.claims import Annotated, Claim, MalformedError, Outline, around, ellipse, number, turned
from rfaconv.data.annotations.issues import Issues
from rfaconv.data.annotations.jsonfile import load_json
from rfaconv.data.annotations.parts import ImageFinder, Options, Source, relative_name, used_classes
from rfaconv.data.annotations.runs import brush_mask
from rfaconv.data.files import IMAGE_SUFFIXES, file_head, files_in, quoted
from rfaconv.errors import UserError

_KINDS = ("rectangle", "polygon", "ellipse", "brush")
_NO_AREA = ("keypoint", "choices", "textarea", "number", "rating", "video", "vector")


def find_label_studio(root: Path) -> Path | None:
    """The one JSON file in the root that holds a list of Label Studio's tasks."""
    for name in files_in(root):
        if not name.lower().endswith(".json") or name.startswith((".", "_")) or name == "notes.json":
            continue
        head = file_head(root / name, 1 << 20)
        signs = (b'"original_width"', b'"annotations"', b'"annotator"', b'"lead_time"')
        if head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"[") and sum(sign in head for sign in signs) > 1:
            return root / name
    return None


def read_label_studio(root: Path, path: Path, issues: Issues, options: Options) -> Source:
    tasks = load_json(path)
    if not isinstance(tasks, list):
        raise UserError(f"{quoted(path)} is no list of tasks.")
    images = ImageFinder(root / "images", root)
    source = relative_name(path, root)
    records: list[Annotated] = []
    taken: set[str] = set()
    for index, task in enumerate(tasks):
        where = f"task {index}"
        try:
            name, lists = _task(task)
        except MalformedError as error:
            issues.add("unreadable task", source, where, str(error))
            continue
        first = next((place for place, found in enumerate(lists) if found), 0)
        others = sum(len(found) for place, found in enumerate(lists) if place != first)
        results = lists[first] if lists else []
        issues.found += others
        if others:
            issues.note("other annotator", others, boxes=others)
        if not name or name in taken:
            issues.found += len(results)
            detail = f"its image {name!r:.60} is there twice" if name else "it names no image"
            issues.add("duplicate" if name else "missing image", source, where, detail, boxes=len(results))
            continue
        taken.add(name)
        claims, size = _claims(results, source, where, issues)
        records.append(Annotated(source, _file(images, name), name, claims, size))
    return Source("labelstudio", options.classes or used_classes(records), {"train": records})


def _file(images: ImageFinder, name: str) -> Path | None:
    """Label Studio puts eight hex digits and '-' before the name of an uploaded file."""
    found = images(name)
    plain = name.rpartition("/")[2]
    head, dash, rest = plain.partition("-")
    return images(rest) if found is None and dash and len(head) == 8 else found


def _task(task: Any) -> tuple[str, list[list[Any]]]:
    """The image's name, and what each annotator found in it."""
    data = task.get("data", task) if isinstance(task, dict) else None
    if not isinstance(data, dict):
        raise MalformedError("it is no record of data and annotations")
    texts = [value for value in data.values() if isinstance(value, str)]
    name = next((text for text in texts if text.lower().endswith(IMAGE_SUFFIXES)), "")
    if data is task:  # JSON_MIN: the results lie beside the image
        lists = [value for value in task.values() if isinstance(value, list)]
        return name, [[entry for found in lists for entry in found if isinstance(entry, dict)]]
    annotations = task.get("annotations")
    if not isinstance(annotations, list):
        raise MalformedError("it has no list of annotations")
    kept = [entry for entry in annotations if not (isinstance(entry, dict) and entry.get("was_cancelled") is True)]
    if not all(isinstance(entry, dict) and isinstance(entry.get("result"), list) for entry in kept):
        raise MalformedError("it has an annotation without a list of results")
    return name, [entry["result"] for entry in kept]


def _claims(
    results: list[Any], source: str, task: str, issues: Issues
) -> tuple[tuple[Claim, ...], tuple[int, int] | None]:
    claims: list[Claim] = []
    size = None
    for index, entry in enumerate(results):
        where = f"{task}, object {index}"
        issues.found += 1
        try:
            if not isinstance(entry, dict):
                raise MalformedError("it is no record")
            value = {**entry, **entry["value"]} if isinstance(entry.get("value"), dict) else entry
            kind = next((kind for kind in _KINDS if f"{kind}labels" in value or entry.get("type") == kind), "")
            if not kind:
                if not any(str(key).startswith(_NO_AREA) for key in (*value, entry.get("type"))):
                    raise MalformedError(f"its kind {entry.get('type')!r:.40} is not known")
                issues.note("no area object", boxes=1)
                continue
            claim, size = _claim(kind, value, where)
        except (MalformedError, ValueError) as error:
            issues.add("malformed box", source, where, str(error), boxes=1)
            continue
        if kind == "rectangle" and claim.outlines:
            issues.note("turned")
        claims.append(claim)
    return tuple(claims), size


def _claim(kind: str, value: dict[str, Any], where: str) -> tuple[Claim, tuple[int, int]]:
    """The object, its percentages turned into pixels: only there a turn is a turn."""
    labels = value.get(f"{kind}labels", value.get("labels"))
    if not isinstance(labels, list) or len(labels) != 1 or not isinstance(labels[0], str) or not labels[0].strip():
        raise MalformedError(f"its labels are {labels!r:.60}, and one is needed")
    label = labels[0].strip()
    width, height = (int(number(value.get(f"original_{side}"))) for side in ("width", "height"))
    if width < 1 or height < 1:
        raise MalformedError(f"its image is of {width} x {height} pixels")
    if kind == "brush":
        if not isinstance(value.get("rle"), list):
            raise MalformedError("its brush has no rle")
        runs = brush_mask(value["rle"], height, width)
        return Claim(where, label, runs.corners(), runs=runs), (width, height)

    def pixels(name: str, extent: int) -> float:
        return number(value.get(name)) * extent / 100

    degrees = number(value.get("rotation") or 0)
    points: Outline
    if kind == "rectangle":
        left, top, across, down = (
            pixels("x", width),
            pixels("y", height),
            pixels("width", width),
            pixels("height", height),
        )
        if not degrees % 360:
            return Claim(where, label, (left, top, left + across, top + down)), (width, height)
        points = turned(left, top, across, down, degrees, (left, top))
    elif kind == "ellipse":
        radii = pixels("radiusX", width), pixels("radiusY", height)
        points = ellipse(pixels("x", width), pixels("y", height), *radii, degrees)
    else:
        pairs = value.get("points")
        if not isinstance(pairs, list) or len(pairs) < 3 or not all(isinstance(p, list) and len(p) == 2 for p in pairs):
            raise MalformedError("a polygon needs three points or more")
        points = tuple(number(part) * (width, height)[i] / 100 for pair in pairs for i, part in enumerate(pair))
    return Claim(where, label, around((points,)), outlines=(points,)), (width, height)
