"""Finding image files, and naming them in messages."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, NoReturn

from rfaconv.data.archives import SUFFIXES, is_archive, unpacked
from rfaconv.errors import UserError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
# What archivers and file servers leave behind; a class of this name would be a surprise.
_NOT_CLASSES = {"__MACOSX", "@eaDir", "lost+found"}


class LabelledFile(NamedTuple):
    """An image file and its class."""

    name: str
    """Relative to the data set's root, with '/' between folders."""
    target: int


@dataclass(frozen=True)
class Listing:
    """What a layout says about the files under a root."""

    classes: tuple[str, ...]
    train: list[LabelledFile]
    val: list[LabelledFile] | None
    """None: the layout has no validation part, so one is to be split off."""


def quoted(name: str | Path) -> str:
    """`name` in quotes and on one line, whatever characters it has."""
    return repr(str(name))


def few(names: Iterable[str], limit: int = 3) -> str:
    """The first names, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(map(quoted, names[:limit])) + more


def is_image(name: str) -> bool:
    """Whether a file's name is that of an image; hidden files are none."""
    return not name.startswith(".") and name.lower().endswith(IMAGE_SUFFIXES)


def existing_folder(root: str | Path) -> Path:
    """`root`, resolved, an archive unpacked into the cache; a UserError says what is there instead of a folder."""
    path = Path(root).expanduser()
    try:
        kind = special(path)
    except OSError:
        kind = ""
    else:
        if not kind and is_archive(path):
            path, kind = unpacked(path), "a folder"
        if kind != "a folder":
            known = ", ".join(SUFFIXES)
            raise UserError(
                f"{quoted(path)} is {kind or 'a file'}: give the folder of a data set, or its archive ({known})."
            )
    if not kind:
        raise UserError(
            f"Folder {quoted(path)} does not exist: check the path, or leave it out for the embedded images."
        )
    for name in subfolders(path):  # globbing passes over what cannot be read
        subfolders(path / name)
    return path.resolve()


def subfolders(folder: Path) -> list[str]:
    """Names of the folders directly in `folder`, sorted, without hidden ones."""
    return sorted(
        name for name, is_folder in _scan(folder) if is_folder and not name.startswith(".") and name not in _NOT_CLASSES
    )


def files_in(folder: Path) -> list[str]:
    """Names of the files directly in `folder`, sorted."""
    return sorted(name for name, is_folder in _scan(folder) if not is_folder)


def images_below(root: Path, folder: str, more: tuple[str, ...] = ()) -> list[str]:
    """The images at any depth of root/folder as names relative to root, sorted. Links are followed, loops are not.

    `more` are suffixes that count as images' here.
    """
    top = str(root / folder)
    found: list[str] = []
    seen: set[str] = set()
    for path, folders, files in os.walk(top, followlinks=True, onerror=_unreadable):
        real = os.path.realpath(path)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [name for name in folders if not name.startswith(".") and name not in _NOT_CLASSES]
        prefix = (folder + path[len(top) :]).replace(os.sep, "/")
        found += [
            f"{prefix}/{name}" for name in files if is_image(name) or (name[0] != "." and name.lower().endswith(more))
        ]
    return sorted(found)


def find_images(paths: Sequence[Path]) -> list[Path]:
    """The files named, and all images in the folders named, sorted within each.

    Raises:
        UserError: a path is not there, or a folder has no images.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(file for file in path.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES)
            if not inside:
                raise UserError(f"There is no image in '{path}'.")
            found += inside
        elif path.is_file():
            found.append(path)
        else:
            raise UserError(f"There is no file or folder '{path}'.")
    return list(dict.fromkeys(found))


def special(path: Path) -> str:
    """What `path` is, if it exists and is no regular file: "a fifo", "a device", ...; else nothing.

    Opening a fifo waits for ever, and reading a device may never end: this looks before anything is opened.

    Raises:
        OSError: there is nothing.
    """
    mode = path.stat().st_mode
    if stat.S_ISREG(mode):
        return ""
    kinds = {stat.S_IFIFO: "a fifo", stat.S_IFDIR: "a folder", stat.S_IFSOCK: "a socket"}
    return kinds.get(stat.S_IFMT(mode), "a device")


def read_bytes(path: Path) -> bytes:
    """All of a regular file; a UserError says why not."""
    try:
        if kind := special(path):
            raise UserError(f"{quoted(path)} is {kind}, not a file.")
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{quoted(path)} cannot be read: {error.strerror}.") from error


def file_head(path: Path, size: int) -> bytes:
    """The first bytes of a regular file, to see what it is; none where it is special or cannot be read."""
    try:
        if special(path):
            return b""
        with path.open("rb") as file:
            return file.read(size)
    except OSError:
        return b""


def read_text(path: Path) -> str:
    """All of a regular file of text in UTF-8, a byte order mark put aside; a UserError says why not."""
    try:
        return read_bytes(path).decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise UserError(f"{quoted(path)} cannot be read as text: {error}.") from error


def read_lines(path: Path) -> list[str]:
    """The lines of a text file that have something in them."""
    return [line for line in read_text(path).splitlines() if line.strip()]


def printable(name: str) -> str:
    """A file's name as text that can be written anywhere: bytes that are no UTF-8 as \\xE9."""
    return os.fsencode(name).decode("utf-8", "backslashreplace") if not name.isascii() else name


def inside(folder: Path, name: str) -> Path | None:
    """folder/name where that is an existing file in the folder, links in it followed; None if not."""
    try:
        path = folder / name
        within = path.resolve().is_relative_to(folder.resolve()) or (path.is_symlink() and ".." not in path.parts)
        return path if within and path.is_file() else None
    except (OSError, ValueError):
        return None


def _scan(folder: Path) -> list[tuple[str, bool]]:
    """Names in `folder`, each with whether it is a folder or a link to one."""
    try:
        with os.scandir(folder) as entries:
            return [(entry.name, _leads_to_folder(entry)) for entry in entries]
    except OSError as error:
        _unreadable(error)


def _leads_to_folder(entry: os.DirEntry[str]) -> bool:
    """Without a look at the file itself, of which there may be a million, unless it is a link."""
    return os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir(follow_symlinks=False)


def _unreadable(error: OSError) -> NoReturn:
    raise UserError(f"Folder {quoted(str(error.filename))} cannot be read: {error.strerror}.") from error
