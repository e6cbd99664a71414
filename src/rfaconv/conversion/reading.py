"""Weights from files, without unpickling code."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rfaconv.errors import UserError, require

_WRAPPERS = ("state_dict", "model", "model_state_dict", "state_dict_ema", "model_ema")


def read_weights(source: str | Path | Mapping[str, Any]) -> dict[str, Tensor]:
    """A state dict from a .safetensors file, from what torch.save wrote (read with weights_only), or as it is.

    A training checkpoint's state dict is taken out of it, and DistributedDataParallel's "module." off the names.

    Raises:
        UserError: no such file, one that cannot be read without running code, or one without a state dict.
    """
    what = "The state dict" if isinstance(source, Mapping) else f"'{source}'"
    found: Any = source if isinstance(source, Mapping) else _read(Path(source).expanduser())
    for name in _WRAPPERS:
        if isinstance(found, Mapping) and isinstance(found.get(name), Mapping):
            found = found[name]
            break
    if not isinstance(found, Mapping) or not found or not all(isinstance(value, Tensor) for value in found.values()):
        raise UserError(f"{what} holds no state dict: names and tensors, or a checkpoint with one under 'state_dict'.")
    weights = {str(name): value for name, value in found.items()}
    if all(name.startswith("module.") for name in weights):
        weights = {name.removeprefix("module."): value for name, value in weights.items()}
    return weights


def _read(path: Path) -> Any:
    if not path.is_file():
        raise UserError(f"There is no file '{path}' with weights.")
    if path.suffix == ".safetensors":
        safetensors = require("safetensors.torch", "classify")
        try:
            return safetensors.load_file(path)
        except Exception as error:
            raise UserError(f"'{path}' is no safetensors file that can be read ({error}).") from error
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"'{path}' cannot be read as weights alone ({reason}); nothing else is read, because it could run code. "
            "Save the model's state_dict() and give that."
        ) from error
