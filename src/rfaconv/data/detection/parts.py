"""The parts of a data set: what they are called, and the plain form in which every reader gives them back."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from rfaconv.data.detection.boxes import Annotated
from rfaconv.data.files import subfolders

PART_NAMES = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test",)}


@dataclass
class Source:
    """What was read: the classes, in their order, and the images of each part."""

    form: str
    classes: tuple[str, ...]
    parts: dict[str, list[Annotated]] = field(default_factory=dict)


def part_folders(root: Path) -> dict[str, str]:
    """The folders of the parts directly in `root`, whatever their case."""
    there = {name.lower(): name for name in reversed(subfolders(root))}
    found = {}
    for part, names in PART_NAMES.items():
        name = next((there[name] for name in names if name in there), None)
        if name is not None:
            found[part] = name
    return found


def relative_name(path: Path, root: Path) -> str:
    """`path` as messages name it."""
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()
