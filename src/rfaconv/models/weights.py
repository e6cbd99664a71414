"""A classifier's weights for an encoder: files read without running code, and checked against the model."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from rfaconv.errors import UserError


def load_encoder(model: nn.Module, path: Path, encoder: str, conv: str) -> None:
    """Load a classifier's weights into `model`, the same network without its classifier.

    Args:
        model: timm's, made with features_only=True.
        path: model.safetensors of `rfaconv train`, its folder, or a state dict (.safetensors, .pth).
        encoder: the network's name, for the check and the messages.
        conv: its convolution's.

    Raises:
        UserError: no such file, not one of ours, another network or another convolution; the message names the first
            weight that does not fit.
    """
    weights, record = _read(path / "model.safetensors" if path.is_dir() else path)
    trained = record.get("conv", conv)
    if trained != conv:
        raise UserError(f"'{path}' holds a model with '{trained}' convolutions, and the encoder has '{conv}'.")
    weights = {name: value for name, value in weights.items() if not name.startswith("fc.")}
    state = model.state_dict()
    wrong = _first_wrong(weights, state)
    if wrong is not None:
        raise UserError(f"'{path}' holds no weights for {encoder} with '{conv}' convolutions: {wrong}.")
    model.load_state_dict(weights, strict=False)


def _first_wrong(weights: dict[str, Tensor], state: dict[str, Tensor]) -> str | None:
    for name, value in state.items():
        if name not in weights:
            if name.endswith("num_batches_tracked"):
                continue
            return f"it lacks '{name}'"
        if weights[name].shape != value.shape:
            return f"'{name}' has shape {list(weights[name].shape)} there and {list(value.shape)} here"
    # An encoder that is not used in its full depth lacks whole stages of the classifier, but no part of one.
    tops = {name.partition(".")[0] for name in state}
    extra = (name for name in weights if name not in state and name.partition(".")[0] in tops)
    return next((f"'{name}' is not in this one" for name in extra), None)


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors by name, and the record that `rfaconv train` wrote beside them ({} where there is none)."""
    if not path.is_file():
        raise UserError(f"There is no weights file '{path}'.")
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, "pt") as file:
                record = json.loads((file.metadata() or {}).get("rfaconv", "{}"))
                return {name: file.get_tensor(name) for name in file.keys()}, record  # noqa: SIM118 - no mapping
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, OSError, ValueError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise UserError(f"'{path}' cannot be read as weights ({type(error).__name__}).") from error
    found = found.get("state_dict", found) if isinstance(found, dict) else found
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise UserError(f"'{path}' holds no state dict.")
    return found, {}
