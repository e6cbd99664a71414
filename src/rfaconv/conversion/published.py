"""The paper's own checkpoints: their names for the parameters, read into the layers here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from rfaconv.conversion.reading import read_weights
from rfaconv.errors import UserError
from rfaconv.layers import attention as attentions
from rfaconv.layers.base import ConvLayer
from rfaconv.layers.receptive_field import ReceptiveFieldConv2d

# Published name: ours. A name that ends in a dot stands for all that begin so.
_CONVOLUTION = {"conv.0.": "", "conv.1.": "norm."}
_GENERATE = {"generate.0.weight": "features.weight", "generate.1.": "features.norm.", **_CONVOLUTION}
_COORDINATE = {
    "conv1.": "attention.reduce.",
    "bn1.": "attention.norm.",
    "conv_h.": "attention.expand_rows.",
    "conv_w.": "attention.expand_columns.",
}
_NAMES: dict[tuple[bool, type[Any]], dict[str, str]] = {
    (True, attentions.TapSoftmax): {
        "get_weight.1.weight": "attention.weight",
        "generate_feature.0.weight": "features.weight",
        "generate_feature.1.": "features.norm.",
        **_CONVOLUTION,
    },
    (True, attentions.ChannelSpatialAttention): {
        "get_weight.0.weight": "attention.spatial.conv.weight",
        "se.fc.0.weight": "attention.channel.reduce.weight",
        "se.fc.2.weight": "attention.channel.expand.weight",
        **_GENERATE,
    },
    (True, attentions.CoordinateAttention): {**_COORDINATE, **_GENERATE},
    (False, attentions.ChannelAttention): {
        "mlp.0.weight": "attention.reduce.weight",
        "mlp.2.weight": "attention.expand.weight",
        **_CONVOLUTION,
    },
    (False, attentions.ChannelSpatialAttention): {
        "mlp.0.weight": "attention.channel.reduce.weight",
        "mlp.2.weight": "attention.channel.expand.weight",
        "spatital.weight": "attention.spatial.conv.weight",  # so spelt
        **_CONVOLUTION,
    },
    (False, attentions.CoordinateAttention): {**_COORDINATE, **_CONVOLUTION},
}


def load_published(module: nn.Module, source: str | Path | Mapping[str, Any]) -> None:
    """Load a checkpoint that has the paper's names into a layer or a model with such layers.

    Reads RFAConv, RFCBAMConv, RFCAConv, CAMConv, CBAMConv and CAConv, alone or inside a model; outside the layers the
    names must be the model's own (those of the published ResNets are torchvision's, which
    `create_model("resnet18", conv="rfa")` has too). Layers in the YOLO form need norm_layer="batchnorm2d" and their
    activation. Files are read without unpickling code.

    Args:
        module: changed in place; not changed if anything does not fit.
        source: a state dict, or the path of a file with one.

    Raises:
        UserError: the first name that does not fit, is missing, or has another shape.
    """
    weights = read_weights(source)
    layers = {name: layer for name, layer in module.named_modules() if isinstance(layer, ConvLayer)}
    state = module.state_dict()
    fitting: dict[str, Tensor] = {}
    for name, value in weights.items():
        own = _own_name(name, layers)
        if own not in state:
            raise UserError(f"The checkpoint's '{name}' has no place in this {type(module).__name__}{_advice(name)}.")
        if own in fitting:
            raise UserError(f"The checkpoint has '{own}' twice, as '{name}' too.")
        fitting[own] = _shaped(name, value, state[own])
    missing = [name for name in state if name not in fitting and not name.endswith("num_batches_tracked")]
    if missing:
        raise UserError(
            f"The checkpoint lacks {len(missing)} of the model's tensors, e.g. what is here '{missing[0]}'."
        )
    module.load_state_dict({**state, **fitting})


def _own_name(name: str, layers: Mapping[str, ConvLayer]) -> str:
    """Our name for a published one; names outside the layers, and our own, stay."""
    for prefix, layer in layers.items():
        start = f"{prefix}." if prefix else ""
        if name.startswith(start):
            inner = name[len(start) :]
            kind = isinstance(layer, ReceptiveFieldConv2d), type(layer.attention)
            for theirs, ours in _NAMES.get(kind, {}).items():
                if theirs.endswith(".") and inner.startswith(theirs):
                    return start + ours + inner.removeprefix(theirs)
                if inner == theirs:
                    return start + ours
    return name


def _shaped(name: str, value: Tensor, like: Tensor) -> Tensor:
    """1x1 convolutions there are matrices here; everything else has the same shape."""
    same = value.shape == like.shape
    matrix = like.dim() == 2 and value.dim() == 4 and value.shape[1:].numel() * value.shape[0] == like.numel()
    squeezed = tuple(value.shape[:2]) == tuple(like.shape) or value.shape[1] == 1 if matrix else False
    if same or squeezed:
        return value.reshape(like.shape)
    raise UserError(
        f"The checkpoint's '{name}' has shape {list(value.shape)}, and this model's has {list(like.shape)}: was it "
        "made for other channels or another kernel size?"
    )


def _advice(name: str) -> str:
    if name.endswith("conv.0.bias"):
        return ", whose layer was made with bias=False"
    if ".conv.1." in f".{name}":
        return "; a layer in the YOLO form needs norm_layer='batchnorm2d'"
    return ""
