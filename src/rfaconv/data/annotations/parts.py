"""What every reader takes and gives back, and what the parts of a data set are called."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from rfaconv.data.annotations.claims import Annotated
from rfaconv.data.annotations.issues import Issues
from rfaconv.data.files import files_in, images_below, inside, is_image, subfolders

PART_NAMES = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test",)}


@dataclass
class Source:
    """What was read: the classes, in their order, and the images of each part."""

    form: str
    classes: tuple[str, ...]
    parts: dict[str, list[Annotated]] = field(default_factory=dict)


@dataclass(frozen=True)
class Options:
    """What a user may say of the annotations.

    Attributes:
        classes: the only ones that may occur, in their order; for formats whose files have no list.
        keep_difficult: keep objects that VOC marks as difficult.
        crowds: keep or drop objects with COCO's iscrowd 1; None decides by who wrote the file.
    """

    classes: tuple[str, ...] = ()
    keep_difficult: bool = False
    crowds: str | None = None


class Reader(NamedTuple):
    """One format of annotations."""

    name: str
    layout: str
    """What lies in the folder, for the list of what is read."""
    find: Callable[[Path], Any]
    """What `read` needs to know of a folder; nothing (false) where there are no such annotations."""
    read: Callable[[Path, Any, Issues, Options], Source]


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


class ImageFinder:
    """Images below folders, by the names that annotations give: a path, a file name, or a server's path."""

    def __init__(self, *folders: Path) -> None:
        self.folders = [folder for folder in folders if folder.is_dir()]
        self._by_name: dict[str, list[Path]] | None = None

    def __call__(self, name: str) -> Path | None:
        """The file; None where there is none, or several of that name and no path to choose by."""
        plain = name.replace("\\", "/").split("?d=")[-1]
        for folder in self.folders:
            if found := inside(folder, plain.lstrip("/")):
                return found
        if ".." in plain.split("/"):
            return None
        found_all = self._names().get(plain.rpartition("/")[2], [])
        return found_all[0] if len(found_all) == 1 else None

    def all(self) -> list[Path]:
        """Every image, sorted."""
        return sorted({path for paths in self._names().values() for path in paths})

    def _names(self) -> dict[str, list[Path]]:
        if self._by_name is None:
            self._by_name = {}
            for path in dict.fromkeys(
                folder / name.lstrip("/") for folder in self.folders for name in images_below(folder, "")
            ):
                self._by_name.setdefault(path.name, []).append(path)
        return self._by_name


def has_images(folder: Path) -> bool:
    """Whether images lie directly in a folder."""
    return folder.is_dir() and any(map(is_image, files_in(folder)))


def used_classes(parts: Sequence[Annotated]) -> tuple[str, ...]:
    """The classes of these images' objects, sorted."""
    return tuple(sorted({claim.name for record in parts for claim in record.claims}))
