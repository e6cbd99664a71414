"""Text files that name the classes, and the colours of masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rfaconv.data.files import few, files_in, quoted, read_lines
from rfaconv.errors import UserError

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class ClassList:
    """Names, the first for id 0, and a colour each if the file gives them."""

    names: tuple[str, ...]
    colours: tuple[Colour, ...] | None


def read_classes(root: Path) -> ClassList | None:
    """What names the classes under `root`; None where nothing does.

    classes.txt has a line a class: 'name', or 'name red green blue'; class_dict.csv (Kaggle's CamVid) has lines of
    'name,r,g,b' below a head.

    Raises:
        UserError: fewer than two classes, a name or a colour twice, or a line that is neither.
    """
    there = files_in(root)
    if "classes.txt" in there:
        path = root / "classes.txt"
        return _class_list(path, [line.split() for line in read_lines(path)])
    if "class_dict.csv" in there:
        path = root / "class_dict.csv"
        return _class_list(path, [line.replace(",", " ").split() for line in read_lines(path)[1:]])
    return None


def read_labelmap(path: Path) -> ClassList | None:
    """CVAT's labelmap.txt: lines of 'label:color_rgb:parts:actions', '#' before remarks; None where there is none."""
    if not path.is_file():
        return None
    fields = [line.split(":") for line in read_lines(path) if ":" in line and not line.startswith("#")]
    return _class_list(
        path, [[*name.split(), *colour.split(",")] if colour else name.split() for name, colour, *_ in fields]
    )


def _class_list(path: Path, lines: Sequence[list[str]]) -> ClassList:
    names, colours = list[str](), list[Colour]()
    for number, words in enumerate(lines, 1):
        name = words
        if len(words) > 3 and all(word.isascii() and word.isdigit() for word in words[-3:]):
            red, green, blue = (int(word[:4]) for word in words[-3:])
            if max(red, green, blue) > 255:
                said = quoted(" ".join(words)[:60])
                raise UserError(f"Line {number} of {quoted(path)} has a colour beyond 255: {said}.")
            colours.append((red, green, blue))
            name = words[:-3]
        names.append(" ".join(name))
    if len(names) < 2:
        raise UserError(f"{quoted(path)} names fewer than two classes.")
    if colours and len(colours) != len(names):
        raise UserError(f"{quoted(path)} gives some classes a colour and some none: give all of them one, or none.")
    if len(names) > 255:
        raise UserError(f"{quoted(path)} names {len(names)} classes, and masks of bytes have 255 at most.")
    for kind, values in (("class", names), ("colour", [str(colour) for colour in colours])):
        twice = sorted({value for value in values if values.count(value) > 1})
        if twice:
            raise UserError(f"{quoted(path)} has the {kind} {few(twice)} twice.")
    return ClassList(tuple(names), tuple(colours) or None)
