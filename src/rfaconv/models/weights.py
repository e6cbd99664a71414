"""A classifier's weights for an encoder: files read without running code, and checked against the model."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from rfaconv.conversion.reading import read_weights
from rfaconv.errors import UserError
from rfaconv.models.create import create_model


class EncoderWeights:
    """What a classifier's file holds for an encoder.

    Args:
        path: model.safetensors of `rfaconv train`, its folder, or a state dict (.safetensors, .pth) with timm's names.
        encoder: the network's name.

    Attributes:
        is_plain: whether they are those of the plain network, without a layer of the family.

    Raises:
        UserError: no such file, or it holds no state dict.
    """

    def __init__(self, path: Path, encoder: str) -> None:
        self.path = path / "model.safetensors" if path.is_dir() else path
        self.encoder = encoder
        found = read_weights(self.path)
        self.weights = {name: value for name, value in found.items() if not name.startswith("fc.")}
        self.is_plain = set(self.weights) <= set(create_model(encoder, "conv", num_classes=0).state_dict())
        self.conv = _recorded_conv(self.path)

    def load_into(self, model: nn.Module, conv: str) -> None:
        """Load them into `model`, the network with `conv` and without its classifier (timm's features_only).

        Raises:
            UserError: another network or another convolution; the message names the first weight that does not fit.
        """
        if self.conv not in (None, conv):
            raise UserError(f"'{self.path}' holds a model with '{self.conv}' convolutions, not with '{conv}'.")
        wrong = _first_wrong(self.weights, model.state_dict())
        if wrong is not None:
            raise UserError(f"'{self.path}' holds no weights for {self.encoder} with '{conv}' convolutions: {wrong}.")
        model.load_state_dict(self.weights, strict=False)


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


def _recorded_conv(path: Path) -> str | None:
    """The convolution that `rfaconv train` wrote into the file; None where there is no record."""
    if path.suffix != ".safetensors":
        return None
    try:
        with safe_open(path, "pt") as file:
            conv = json.loads((file.metadata() or {}).get("rfaconv", "{}")).get("conv")
    except (SafetensorError, ValueError, AttributeError):
        return None
    return conv if isinstance(conv, str) else None
