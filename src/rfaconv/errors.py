"""Errors that speak to the user: one clear sentence, no traceback on the command line (exit code 2)."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable
from typing import Any, NoReturn


class UserError(ValueError):
    """A mistake its reader can mend; the message says what is wrong, where, and what to do."""


class OutputError(OSError):
    """A file or folder cannot be written; the message names it, the reason and the room left (exit code 1)."""


class MissingExtraError(ImportError, UserError):
    """A library of an optional extra is not installed; the message names the pip command."""


def unknown_name(what: str, name: str, known: Iterable[str]) -> NoReturn:
    """Raise a UserError for `name`, with the nearest valid name first and then all of them."""
    names = sorted(known)
    near = difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.5)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    raise UserError(f"Unknown {what} '{name}'.{hint} Known: {', '.join(names)}.")


def require(module: str, extra: str) -> Any:
    """Import and return `module`, of ours or another's, or raise MissingExtraError naming the extra it needs."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        missing = (error.name or module).partition(".")[0]
        raise MissingExtraError(
            f"This needs '{missing}', which is not installed: pip install 'rfaconv[{extra}]'"
        ) from error
