"""Archives as they were downloaded: unpacked once into the user's cache, and nowhere else."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

from rfaconv.errors import UserError

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
MOST_FILES = 2_000_000
MOST_BYTES = 200 * 1024**3
"""Bounds of what is unpacked; the room on the disk is one more."""
_IN_USE = 1 << 30
"""Bytes of the disk that stay free."""


def is_archive(path: Path) -> bool:
    """Whether the name is that of an archive which is read."""
    return path.name.lower().endswith(SUFFIXES)


def unpacked(path: Path) -> Path:
    """The folder of what is in an archive; unpacked on first use, and again when the archive has changed.

    It lies in $XDG_CACHE_HOME or ~/.cache, rfaconv/unpacked/. Files whose names lead out of the folder, links and
    devices are refused before anything is written. Where all lies in one folder of the archive, that one is returned.

    Raises:
        UserError: damaged, encrypted, unsafe, too large (`MOST_FILES`, `MOST_BYTES`, the room on the disk), or the
            cache cannot be written.
    """
    state = path.stat()
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rfaconv" / "unpacked"
    digest = hashlib.sha256(os.fsencode(path.resolve()) + b"\0%d\0%d" % (state.st_size, state.st_mtime_ns)).hexdigest()
    folder = base / digest[:16] / _stem(path)
    if not folder.is_dir():
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            _unpack(path, folder)
        except OSError as error:
            raise UserError(
                f"{str(path)!r} cannot be unpacked into {str(base)!r}: {error.strerror or error}."
            ) from error
        # What the libraries raise on damaged archives: BadZipFile, zlib.error, EOFError, struct.error, ...
        except Exception as error:
            if isinstance(error, UserError):
                raise
            said = " ".join(str(error).split())[:120] or type(error).__name__
            raise UserError(f"{str(path)!r} cannot be unpacked: {said}.") from error
    entries = [entry for entry in folder.iterdir() if entry.name not in ("__MACOSX", ".DS_Store")]
    return entries[0] if len(entries) == 1 and entries[0].is_dir() and not entries[0].name.startswith(".") else folder


def _stem(path: Path) -> str:
    suffix = max((suffix for suffix in SUFFIXES if path.name.lower().endswith(suffix)), key=len)
    return path.name[: -len(suffix)] or "archive"


def _unpack(path: Path, folder: Path) -> None:
    with _opened(path) as (names, contents):
        _check(path, names, folder.parent)
        made = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".unpacking."))
        try:
            for name, file in contents:
                target = made / name
                target.parent.mkdir(parents=True, exist_ok=True)
                with target.open("xb") as out:
                    _copy(file, out, names[name], name)
            made.chmod(0o755)
            made.rename(folder)
        finally:
            shutil.rmtree(made, ignore_errors=True)


def _copy(file: IO[bytes], out: IO[bytes], size: int, name: str) -> None:
    """No more than the archive says: what it says was held against the bounds."""
    left = size
    while block := file.read(1 << 20):
        left -= len(block)
        if left < 0:
            raise UserError(f"{name!r:.80} in the archive is longer than the archive says.")
        out.write(block)


def _check(path: Path, names: dict[str, int], place: Path) -> None:
    total = sum(names.values())
    for name in names:
        parts = PurePosixPath(name).parts
        if not parts or ".." in parts or name.startswith("/") or ":" in parts[0] or "\0" in name:
            raise UserError(f"{str(path)!r} holds {name!r:.80}, which leads out of its folder: it is not unpacked.")
    if len(names) > MOST_FILES or total > MOST_BYTES:
        raise UserError(
            f"{str(path)!r} holds {len(names):,} files of {total / 1024**3:,.1f} GiB, and at most {MOST_FILES:,} files "
            f"of {MOST_BYTES / 1024**3:,.0f} GiB are unpacked: unpack it yourself, and give the folder."
        )
    free = shutil.disk_usage(place).free
    if total + _IN_USE > free:
        raise UserError(
            f"{str(path)!r} needs {total / 1024**3:,.1f} GiB below {str(place)!r}, where {free / 1024**3:,.1f} GiB are "
            "free: make room, or set XDG_CACHE_HOME."
        )


Contents = Iterator[tuple[str, IO[bytes]]]


@contextmanager
def _opened(path: Path) -> Iterator[tuple[dict[str, int], Contents]]:
    """The names and sizes of an archive's files, and the files themselves."""
    if path.name.lower().endswith(".zip"):
        with zipfile.ZipFile(path) as archive:
            infos = [info for info in archive.infolist() if not info.is_dir()]
            for info in infos:
                if stat.S_ISLNK(info.external_attr >> 16):
                    raise UserError(f"{str(path)!r} holds {info.filename!r:.80}, a link: it is not unpacked.")
            sizes = {info.filename.replace("\\", "/"): info.file_size for info in infos}
            yield sizes, ((info.filename.replace("\\", "/"), _file(archive.open(info))) for info in infos)
        return
    with tarfile.open(path) as tar:
        _check_end(path)
        members = [member for member in tar.getmembers() if not member.isdir()]
        for member in members:
            if not member.isreg():
                raise UserError(f"{str(path)!r} holds {member.name!r:.80}, a link or device: it is not unpacked.")
        sizes = {member.name: member.size for member in members}
        yield sizes, ((member.name, _file(tar.extractfile(member))) for member in members)


def _check_end(path: Path) -> None:
    """tarfile takes a plain archive that was cut between two files for whole; all tools end one with zeros."""
    with path.open("rb") as file:
        plain = file.read(262)[257:] == b"ustar"
        file.seek(max(0, path.stat().st_size - 1024))
        if plain and any(file.read()):
            raise UserError(f"{str(path)!r} cannot be unpacked: it is cut short.")


def _file(file: IO[bytes] | None) -> IO[bytes]:
    assert file is not None  # it is a regular one
    return file
