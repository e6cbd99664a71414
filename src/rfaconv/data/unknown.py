"""What to say of a folder in no known layout: what is there, what it is most like, and how to make it readable."""

from __future__ import annotations

from collections import Counter
from pathlib import Path, PurePosixPath

from rfaconv.data.files import IMAGE_SUFFIXES, files_in, quoted, subfolders
from rfaconv.errors import UserError

_SEEN = 5000
# What a folder holds, the layout it is most like, and the two lines that make it one.
_NEAREST = {
    "annotations": (
        (".txt", "YOLO", "'names: [CLASS, ...]' and 'train: FOLDER' in a data.yaml"),
        (".xml", "VOC", "`mkdir Annotations images` and `mv *.xml Annotations; mv *.jpg images`"),
        (".json", "COCO", "`mkdir annotations` and `mv FILE.json annotations/instances_train.json`"),
        (".csv", "CSV", "`mv FILE.csv _annotations.csv` and "
                        "'filename,width,height,class,xmin,ymin,xmax,ymax' as its first line"),
        ("", "YOLO", "'names: [CLASS, ...]' and 'train: FOLDER' in a data.yaml, with a .txt of labels for each image"),
    ),
    "images with masks": (
        (".json", "COCO", "`mkdir annotations` and `mv FILE.json annotations/instances_train.json`"),
        ("", "images/ beside masks/", "`mv IMAGES images` and `mv MASKS masks`, equal names in both"),
    ),
}  # fmt: skip


def what_is_there(root: Path) -> str:
    """Folders and kinds of files, the most frequent first: "images/ (20 .jpg), labels/ (20 .txt)"."""
    said = []
    for name in ("", *subfolders(root)[:6]):
        kinds: Counter[str] = Counter()
        for place in (root / name, *(root / name / inner for inner in subfolders(root / name))) if name else (root,):
            kinds.update(PurePosixPath(file).suffix.lower() or file for file in files_in(place)[:_SEEN])
        counts = ", ".join(f"{count} {kind[:20]}" for kind, count in kinds.most_common(3))
        said += [f"{name}/ ({counts or 'nothing'})"] if name else [counts] if counts else []
    more = len(subfolders(root)) - 6
    return ", ".join(said) + (f" and {more} more folders" if more > 0 else "") or "nothing"


def unknown_layout(root: Path, kind: str, known: str) -> UserError:
    """The error for a folder whose `kind` ("annotations", "images with masks") is in no known layout."""
    there = what_is_there(root)
    suffixes = {word.strip("(),") for word in there.split()}
    _, name, lines = next(row for row in _NEAREST[kind] if not row[0] or row[0] in suffixes)
    if not suffixes & set(IMAGE_SUFFIXES):
        lines = f"its images below {quoted(root)}, and {lines}"
    return UserError(
        f"{quoted(root)} has {kind} in no known layout; there are: {known}. Found here: {there}. The nearest is "
        f"{name}: it is read with {lines}."
    )
