"""JSON from strangers: a sentence for whatever is wrong with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rfaconv.data.files import quoted, read_text
from rfaconv.errors import UserError


def load_json(path: Path) -> Any:
    """The value in a JSON file.

    Raises:
        UserError: unreadable, no JSON, nested too deep, or with a key twice in one record.
    """
    try:
        return json.loads(read_text(path), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{quoted(path)} cannot be read as JSON ({' '.join(str(error).split()):.120}).") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """JSON lets a key come twice, and readers forget the first, with all that was in it."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is there twice in one record")
    return found
