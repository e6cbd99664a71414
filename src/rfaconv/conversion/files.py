"""From one file to another: a state dict and the name of its model in, a converted model out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rfaconv.conversion.converter import convert
from rfaconv.conversion.places import Where
from rfaconv.conversion.reading import read_weights
from rfaconv.conversion.saving import build_base, save
from rfaconv.conversion.summary import Summary
from rfaconv.errors import UserError


def convert_file(
    source: Path,
    out: Path,
    conv: str,
    base: str,
    arguments: Mapping[str, Any],
    *,
    where: Where = None,
    calibrate: Any = None,
) -> Summary:
    """Build the plain model, load its weights from `source`, convert it and save it to `out` for `rfaconv.load`.

    Args:
        base, arguments: as for `save`. where, calibrate: as for `convert`.

    Raises:
        UserError: the weights do not fit the model, or as `convert`.
    """
    model = build_base(base, arguments)
    try:
        model.load_state_dict(read_weights(source))
    except RuntimeError as error:
        raise UserError(f"The weights in '{source}' do not fit {base}: {' '.join(str(error).split())}") from error
    summary = convert(model, conv, where=where, calibrate=calibrate)
    save(model, out, base, **arguments)
    return summary
