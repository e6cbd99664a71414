"""Layers of the user's own for the command line: Python files that register them."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

from rfaconv.errors import UserError

_loaded: set[Path] = set()


def load_plugins(paths: Sequence[str]) -> None:
    """Run each file once; it calls `rfaconv.register_conv` or `rfaconv.register_attention`.

    Raises:
        UserError: no such file, or it fails.
    """
    for name in paths:
        path = Path(name).resolve()
        if path in _loaded:
            continue
        if not path.is_file():
            raise UserError(f"There is no plugin file '{name}'.")
        spec = importlib.util.spec_from_file_location(f"rfaconv_plugin_{path.stem}", path)
        if spec is None or spec.loader is None:
            raise UserError(f"The plugin '{name}' is no Python file.")
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # so that its classes can be pickled
        try:
            spec.loader.exec_module(module)
        except Exception as error:
            raise UserError(f"The plugin '{name}' fails: {type(error).__name__}: {error}") from error
        _loaded.add(path)


def loaded_plugins() -> list[Path]:
    """The files loaded so far."""
    return sorted(_loaded)
