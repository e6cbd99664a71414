"""Pretrained weights for the ResNets: timm's own or a file's, and the layers started from them."""

from __future__ import annotations

from typing import Any

import timm
import torch
from timm.models import adapt_input_conv
from torch import Tensor, nn

from rfaconv.conversion import convert
from rfaconv.conversion.reading import read_weights
from rfaconv.errors import UserError
from rfaconv.layers.base import ConvLayer


def fetch(name: str, **kwargs: Any) -> nn.Module:
    """timm's model of that name with its pretrained weights, fetched or from the cache.

    Raises:
        UserError: they cannot be had here; the message says what to do.
    """
    if not timm.is_model_pretrained(name):
        raise UserError(
            f"There are no published weights for {name}: train it (rfaconv train --conv conv --model {name}) and give "
            "the file, pretrained='PATH'."
        )
    try:
        model: nn.Module = timm.create_model(name, pretrained=True, **kwargs)
    except Exception as error:
        raise UserError(
            f"timm's weights for {name} cannot be fetched ({type(error).__name__}): download them where there is a "
            "network and give the file, pretrained='PATH' (a state dict as .safetensors or .pth)."
        ) from error
    return model


def load_file(model: nn.Module, path: str) -> None:
    """Load a file's weights into the plain `model`; a classifier for other classes starts anew, as timm has it.

    The first convolution is adapted where the file's images have another number of channels.

    Raises:
        UserError: the file cannot be read, or holds another model's weights; the first name that does not fit is named.
    """
    weights, state = read_weights(path), model.state_dict()
    first = next(name for name, value in state.items() if value.dim() == 4)
    if first in weights and weights[first].shape != state[first].shape:
        weights[first] = adapt_input_conv(state[first].shape[1], weights[first])
    if any(name in weights and weights[name].shape != state[name].shape for name in ("fc.weight", "fc.bias")):
        weights = {name: value for name, value in weights.items() if not name.startswith("fc.")}
    optional = [name for name in state if name.startswith("fc.") or name.endswith("num_batches_tracked")]
    wrong = _first_wrong(weights, state, optional)
    if wrong:
        raise UserError(f"'{path}' holds weights of another model: {wrong}.")
    model.load_state_dict(weights, strict=False)


def _first_wrong(weights: dict[str, Tensor], state: dict[str, Tensor], optional: list[str]) -> str | None:
    for name, value in weights.items():
        if name.startswith("fc.") and name not in state:
            continue  # features_only
        if name not in state:
            return f"'{name}' is not in this one"
        if value.shape != state[name].shape:
            return f"'{name}' has shape {list(value.shape)} there and {list(state[name].shape)} here"
    return next((f"it lacks '{name}'" for name in state if name not in weights and name not in optional), None)


def start_layers(model: nn.Module, conv: str, calibrate: Any = None) -> None:
    """Put `conv` in the paper's places of a plain ResNet, computing the same; `calibrate` as for `convert`."""
    if conv != "conv":
        convert(model, conv, where="resnet", calibrate=calibrate)
        add_biases(model)


def add_biases(model: nn.Module) -> None:
    """A bias of zeros for layers without one: in `create_model` they have one, as published."""
    for layer in model.modules():
        if isinstance(layer, ConvLayer) and layer.bias is None:
            layer.bias = nn.Parameter(torch.zeros_like(layer.weight[:, 0, 0, 0]))
