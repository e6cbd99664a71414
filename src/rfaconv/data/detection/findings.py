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
    "duplicate": "the first one kept",
    "unknown class": "box left out",
    "malformed box": "left out",
    "wrong size": "the image's own size taken",
    "no area": "box left out",
    "outside the image": "cut at the edge, or left out where nothing is inside",
}
"""Kinds of problems, and what --lenient does about each."""

NOTES = {
    "difficult": "objects marked as difficult, left out as VOC's protocol does",
    "crowd": "crowds, left out",
    "rounded": "boxes less than half a pixel over the edge, cut",
    "group": "categories without a box that only group the others, left out",
    "test as val": "parts called test that serve as validation",
    "split": "images held out for validation",
}
"""What is no problem but told and counted."""


class Problem(NamedTuple):
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


class Findings:
    """Problems and notes of one data set.

    Attributes:
        problems: all of them, in the order they were found.
        notes: how often each of `NOTES` came up.
        found: boxes the annotations hold, readable or not.
        dropped: boxes left out, by kind (of `REPAIRS` or `NOTES`); found = kept + all of these.
    """

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.notes: Counter[str] = Counter()
        self.found = 0
        self.dropped: Counter[str] = Counter()

    def add(self, kind: str, file: str, where: str, detail: str, *, boxes: int = 0) -> None:
        """Note a problem, and that its repair leaves out so many boxes."""
        assert kind in REPAIRS, kind
        self.problems.append(Problem(kind, file, where, detail))
        if boxes:
            self.dropped[kind] += boxes

    def note(self, kind: str, count: int = 1, *, boxes: int = 0) -> None:
        """Count something that is no problem."""
        assert kind in NOTES, kind
        self.notes[kind] += count
        if boxes:
            self.dropped[kind] += boxes

    def counts(self) -> dict[str, int]:
        """Problems by kind."""
        return dict(Counter(problem.kind for problem in self.problems))

    def refuse(self, root: Path) -> None:
        """Raise a RefusedError if there is a problem."""
        if self.problems:
            raise RefusedError(root, self)


class RefusedError(UserError):
    """Annotations with problems, without --lenient; `findings` has them all."""

    def __init__(self, root: Path, findings: Findings) -> None:
        self.findings = findings
        examples = []
        for kind, count in findings.counts().items():
            first = next(problem for problem in findings.problems if problem.kind == kind)
            examples.append(f"{kind} ({count}, e.g. {first})")
        total = len(findings.problems)
        super().__init__(
            f"{total} problem{'s' if total > 1 else ''} in {quoted(root)}: {'; '.join(examples)}. "
            "Mend them, or let --lenient repair and count them."
        )


def problems_csv(findings: Findings) -> str:
    """All problems, a line each: kind, file, place, what is wrong, and what --lenient does."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["kind", "file", "place", "problem", "repair"])
    for problem in findings.problems:
        table.writerow(
            [*(field.encode("utf-8", "backslashreplace").decode() for field in problem), REPAIRS[problem.kind]]
        )
    return text.getvalue()
