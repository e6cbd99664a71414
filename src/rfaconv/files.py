"""Writing files so that a killed process leaves the old one or the new one, never half of one."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from rfaconv.errors import OutputError

_SUFFIX = ".partial"
"""Of a file that is being written, ".last.ckpt.k3v9_x2a.partial"."""


@contextmanager
def replacing(path: Path) -> Iterator[IO[Any]]:
    """A binary file that takes the place of `path` when the block ends well, and is gone when it does not.

    Raises:
        OutputError: it cannot be written.
    """
    temporary = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():  # found before the work of writing it, not by the rename behind it
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:50]}.", suffix=_SUFFIX)
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException as error:
        if temporary:
            with suppress(OSError):
                os.unlink(temporary)
        if isinstance(error, OSError):
            raise OutputError(_sentence(path, error)) from error
        raise


def write_text(path: Path, text: str) -> None:
    """Replace `path` by `text`, in UTF-8; bytes of a file name that are no text (surrogates) become "\\udcXX"."""
    with replacing(path) as file:
        file.write(printable(text).encode())


def printable(text: str) -> str:
    """`text` with the bytes of a file name that are no text (surrogates) written as "\\udcXX"."""
    return text.encode("utf-8", "backslashreplace").decode()


def remove_temporaries(folder: Path) -> None:
    """Remove what a killed process left half written in `folder` and below; only for who holds its lock."""
    for path in folder.rglob(f".*{_SUFFIX}"):
        if path.is_file() and not path.is_symlink():
            with suppress(OSError):
                path.unlink()


def file_hash(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _sentence(path: Path, error: OSError) -> str:
    reason = error.strerror or str(error)
    shown, free = printable(str(path)), _free(path)
    return f"'{shown}' cannot be written: {reason}{free}. Make room or choose another place, then run again."


def _free(path: Path) -> str:
    """How much room is left where `path` is, as far as that can be told."""
    for folder in path.parents:
        with suppress(OSError):
            return f" ({shutil.disk_usage(folder).free / 2**20:,.0f} MiB free there)"
    return ""


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
