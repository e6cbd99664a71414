"""What is wrong with annotations: found file by file, then refused or repaired, and counted either way."""

from __future__ import annotations

import csv
import io
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from rfaconv.data.files import quoted
from rfaconv.errors import UserError

REPAIRS = {
    "missing image": "left out, with its boxes",
    "missing annotations": "image left out",
    "unreadable file": "left out, with its image",
    "unreadable task": "left out, with its objects",
    "duplicate": "the first one kept",
    "ambiguous": "left out, with the boxes that may be either's",
    "unknown class": "box left out",
    "malformed box": "left out",
    "wrong size": "the image's own size taken",
    "no area": "box left out",
    "no outline": "object left out",
    "outside the image": "cut at the edge, or left out where nothing is inside",
}
"""Kinds of issues, and what --lenient does about each."""

NOTES = {
    "difficult": "objects marked as difficult, left out as VOC's protocol does",
    "crowd": "crowds (iscrowd 1), left out: --crowds keep would take them for single objects",
    "crowd ignored": "crowds (iscrowd 1), whose pixels count for nothing: --crowds keep would take them for objects",
    "crowd kept": "objects with iscrowd 1 kept as single objects: --crowds keep says so, or the file is datumaro's or "
    "CVAT's, which mark every mask so",
    "no annotation file": "images listed without an annotation file: taken as images without objects",
    "unlabelled": "images without an annotation file, left out",
    "other annotator": "objects of further annotators of an image, left out: the first one's are taken",
    "no area object": "points, lines and the like, left out: they have neither box nor mask",
    "outline as box": "objects drawn as polygons or masks, of which the boxes were taken",
    "turned": "turned rectangles, taken by their true corners (for detection the box around these)",
    "label studio": "file of Label Studio, which writes turned rectangles wrong in YOLO, VOC and COCO: where some were "
    "turned, export JSON",
    "don't care": "regions that KITTI calls DontCare, left out",
    "rounded": "boxes less than half a pixel over the edge, cut",
    "group": "categories without a box that only group the others, left out",
    "test as val": "parts called test that serve as validation",
    "split": "images held out for validation",
}
"""What is no fault, but counted and told."""


class Issue(NamedTuple):
    """One thing that is wrong."""

    kind: str
    """A key of `REPAIRS`."""
    file: str
    """Relative to the data set's root."""
    where: str
    """"object 3", "line 2", "annotation 17", or nothing for the whole file."""
    detail: str

    def __str__(self) -> str:
        place = f"{quoted(self.file)}{f', {self.where}' if self.where else ''}"
        return f"{place}: {self.detail}"


class Issues:
    """Problems and notes of one data set.

    Attributes:
        items: all of them, in the order they were found.
        notes: how often each of `NOTES` came up.
        found: boxes the annotations hold, readable or not.
        dropped: boxes left out, by kind (of `REPAIRS` or `NOTES`); found = kept + all of these.
    """

    def __init__(self) -> None:
        self.items: list[Issue] = []
        self.notes: Counter[str] = Counter()
        self.found = 0
        self.dropped: Counter[str] = Counter()

    def add(self, kind: str, file: str, where: str, detail: str, *, boxes: int = 0) -> None:
        """Note an issue, and that its repair leaves out so many boxes."""
        assert kind in REPAIRS, kind
        self.items.append(Issue(kind, file, where, detail))
        if boxes:
            self.dropped[kind] += boxes

    def note(self, kind: str, count: int = 1, *, boxes: int = 0) -> None:
        """Count something that is no fault."""
        assert kind in NOTES, kind
        self.notes[kind] += count
        if boxes:
            self.dropped[kind] += boxes

    def told(self) -> list[str]:
        """The notes, a line each."""
        return [f"{count:,} {NOTES[kind]}" for kind, count in self.notes.items()]

    def repaired(self) -> list[str]:
        """What --lenient did, a line for each kind."""
        lines = []
        for kind, count in self.counts().items():
            left_out = f" ({self.dropped[kind]:,} boxes)" if self.dropped[kind] else ""
            lines.append(f"repaired: {count:,} x {kind}: {REPAIRS[kind]}{left_out}")
        return lines

    def counts(self) -> dict[str, int]:
        """Problems by kind."""
        return dict(Counter(issue.kind for issue in self.items))

    def refuse(self, root: Path, remedy: str = "let --lenient repair and count them") -> None:
        """Raise a RefusedError if there is an issue."""
        if self.items:
            raise RefusedError(root, self, remedy)


class RefusedError(UserError):
    """Annotations with issues, without --lenient; `issues` has them all."""

    def __init__(self, root: Path, issues: Issues, remedy: str) -> None:
        self.issues = issues
        examples = []
        for kind, count in issues.counts().items():
            first = next(issue for issue in issues.items if issue.kind == kind)
            examples.append(f"{kind} ({count}, e.g. {first})")
        total = len(issues.items)
        super().__init__(
            f"{total} issue{'s' if total > 1 else ''} in {quoted(root)}: {'; '.join(examples)}. Mend them, or {remedy}."
        )


def issues_csv(issues: Issues) -> str:
    """All issues, a line each: kind, file, place, what is wrong, and what --lenient does."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["kind", "file", "place", "issue", "repair"])
    for issue in issues.items:
        table.writerow([*(field.encode("utf-8", "backslashreplace").decode() for field in issue), REPAIRS[issue.kind]])
    return text.getvalue()
