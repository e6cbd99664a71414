"""Decoding every file once before training: better now than in the ninth hour."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

import PIL

from rfaconv.data.decode import BrokenImageError, read_image
from rfaconv.data.files import quoted
from rfaconv.files import write_text

Progress = Callable[[int, int], None]
_CHUNK = 512


class Stat(NamedTuple):
    """Size in bytes and time of the last change in ns; both -1 if the file is missing, -2 if it is no regular file."""

    size: int
    changed: int


def stat_files(root: Path, names: Sequence[str]) -> dict[str, Stat]:
    """Size and time of change of root/name for each name."""
    return {name: _stat(root / name) for name in names}


def find_broken(root: Path, stats: Mapping[str, Stat], channels: int, progress: Progress | None) -> dict[str, str]:
    """Decode every file; returns the broken ones' names with the reason. See `survey`."""

    def reason(name: str) -> str:
        read_image(root / name, channels)
        return ""

    return survey(root, stats, list(stats), f"image {channels}", reason, progress)


def survey(
    root: Path,
    stats: Mapping[str, Stat],
    names: Sequence[str],
    purpose: str,
    look: Callable[[str], str],
    progress: Progress | None,
) -> dict[str, str]:
    """What `look` says of each name, in a pool of threads; "" is left out, a BrokenImageError's message is said too.

    The result is kept in the user's cache ($XDG_CACHE_HOME or ~/.cache, rfaconv/verified/) under a name made of the
    root, the purpose, the files' names, sizes and times and PIL's version: it is computed again when one of them
    differs, and `progress` is not called when none does.
    """
    cache = _cache_path(root, stats, purpose)
    if cache is not None and (known := _load(cache)) is not None:
        return known
    found, passing = dict[str, str](), False
    # PIL lets go of the GIL while it decodes. In chunks: a million pending jobs would cost a gigabyte.
    with ThreadPoolExecutor(min(32, os.cpu_count() or 1)) as pool:
        for start in range(0, len(names), _CHUNK):
            chunk = names[start : start + _CHUNK]
            for name, (said, maybe) in zip(chunk, pool.map(partial(_try, look), chunk), strict=True):
                if said:
                    found[name] = said
                passing |= maybe
            if progress is not None:
                progress(start + len(chunk), len(names))
    # A file that could not be opened (permissions, a full table of open files) may be fine the next time.
    if cache is not None and not passing:
        _store(cache, found)
    return found


def broken_message(
    root: Path, broken: Mapping[str, str], total: int, remedy: str = "--skip-broken leaves such files out"
) -> str:
    """The sentence that names the first few of `broken` (names with reasons), of `total` images, and what to do."""
    named = [f"{quoted(name)} ({broken[name]})" for name in sorted(broken)[:3]]
    more = f" and {len(broken) - 3} more" if len(broken) > 3 else ""
    return f"{len(broken)} of {total} images under {quoted(root)} cannot be read: {', '.join(named)}{more}; {remedy}."


def _stat(path: Path) -> Stat:
    try:
        result = path.stat()
    except (OSError, ValueError):  # ValueError: a list of files may name anything, a zero byte too
        return Stat(-1, -1)
    return Stat(result.st_size, result.st_mtime_ns) if stat.S_ISREG(result.st_mode) else Stat(-2, -2)


def absent(found: Stat) -> str:
    """Why there is nothing to be read: "missing", or "not a regular file" (a fifo, a folder); else nothing."""
    return {-1: "missing", -2: "not a regular file"}.get(found.size, "")


def _try(look: Callable[[str], str], name: str) -> tuple[str, bool]:
    try:
        return look(name), False
    except BrokenImageError as error:
        return str(error), isinstance(error.__cause__, OSError) and error.__cause__.errno is not None


def _cache_path(root: Path, stats: Mapping[str, Stat], purpose: str) -> Path | None:
    """None where there is no place for a cache, or only one inside the data set, which is never written to."""
    try:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").resolve()
    except (OSError, RuntimeError):
        return None
    if base.is_relative_to(root):
        return None
    digest = hashlib.sha256(f"{PIL.__version__}\0{purpose}\0".encode() + os.fsencode(root))
    for name in sorted(stats):
        digest.update(b"\0" + os.fsencode(name) + b"\0%d\0%d" % stats[name])
    return base / "rfaconv" / "verified" / f"{digest.hexdigest()[:32]}.json"


def _load(path: Path) -> dict[str, str] | None:
    try:
        broken = json.loads(path.read_text(encoding="utf-8"))["broken"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return broken if isinstance(broken, dict) else None


def _store(path: Path, broken: dict[str, str]) -> None:
    """A cache that cannot be written only costs time."""
    with suppress(OSError):
        write_text(path, json.dumps({"broken": broken}))
