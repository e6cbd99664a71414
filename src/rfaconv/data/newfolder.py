"""A converted data set's folder: whole or not there, and its images under names of their own."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from PIL import Image

from rfaconv.data.files import quoted
from rfaconv.errors import UserError

_READABLE = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
"""What Ultralytics reads of the images that we know; others are written as PNG."""


def free_folder(out: str | Path) -> Path:
    """`out`, which does not exist or is empty; else a UserError."""
    path = Path(out).expanduser()
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UserError(f"{quoted(path)} is not empty: choose another folder, or delete it.")
    return path


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder beside `out`, which takes its place when the block ends well: a kill leaves no half of a data set."""
    made = None
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
        yield made
        made.chmod(0o755)
        if out.exists():
            out.rmdir()
        made.rename(out)
    except OSError as error:
        raise UserError(f"{quoted(out)} cannot be written: {error.strerror or error}.") from error
    finally:
        if made is not None:
            shutil.rmtree(made, ignore_errors=True)


def place_images(folder: Path, images: Sequence[Path], copy: bool) -> list[str]:
    """Link or copy images into `folder`; returns their names without suffix, a number behind those that come twice."""
    folder.mkdir(parents=True, exist_ok=True)
    stems, taken = list[str](), set[str]()
    for path in images:
        stem, number = path.stem, 1
        while stem.lower() in taken:  # of folders that do not tell a from A, too
            number += 1
            stem = f"{path.stem}-{number}"
        taken.add(stem.lower())
        stems.append(stem)
        suffix = path.suffix.lower()
        _place(path, folder / f"{stem}{suffix if suffix in _READABLE else '.png'}", copy)
    return stems


def _place(source: Path, target: Path, copy: bool) -> None:
    if target.suffix != source.suffix.lower():
        with Image.open(source) as file:
            file.save(target)
        return
    if not copy:
        with suppress(OSError):
            os.link(source.resolve(), target)
            return
    shutil.copyfile(source, target)
