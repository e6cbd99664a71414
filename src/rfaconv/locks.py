"""One command a folder: a second one is told who holds it."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from rfaconv.errors import OutputError, UserError
from rfaconv.files import remove_temporaries

try:
    import fcntl
except ImportError:  # Windows has no fcntl; its msvcrt locks bytes, which nobody can then read the owner from
    fcntl = None  # type: ignore[assignment]

NAME = ".lock"


@contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Hold `folder` (made if need be) for this process until the block ends.

    The lock is the kernel's and ends with the process, however it ends: what a killed one left is taken over, and so
    are its half-written files removed. The file says who holds it; it stays when the lock is given back, because
    removing it could take a newer holder's away. Worker processes of the holder need no lock of their own.
    Without fcntl (Windows) nothing is locked.

    Raises:
        UserError: another process holds it; the message names its host and process id.
        OutputError: the folder cannot be written.
    """
    file = _opened(folder)
    with file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(
                    f"'{folder}' is in use by {_holder(file)}. Wait until it is done, or choose another --out."
                ) from None
            except OSError:  # a network file system without locks: better unlocked than not at all
                pass
        file.seek(0)
        file.truncate()
        json.dump({"host": platform.node(), "pid": os.getpid()}, file)
        file.flush()
        remove_temporaries(folder)
        yield


def _opened(folder: Path) -> IO[str]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # "a+": made if it is not there, and not emptied before the lock is ours.
        return open(folder / NAME, "a+", encoding="utf-8")
    except FileExistsError:
        raise UserError(f"'{folder}' is a file; choose another --out.") from None
    except OSError as error:
        raise OutputError(
            f"The folder '{folder}' cannot be written: {error.strerror}. Choose another --out."
        ) from error


def _holder(file: IO[str]) -> str:
    file.seek(0)
    try:
        found = json.load(file)
        return f"process {found['pid']} on {found['host']}"
    except (ValueError, KeyError, TypeError):
        return "another process"
