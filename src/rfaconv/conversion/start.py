"""Parameters with which a layer computes the very convolution it replaces.

Receptive-field layers compute contract(attention * relu(norm(depthwise))). Depthwise kernels that pick one tap each
make the features the taps; the norm's affine part undoes its normalisation and adds a shift that keeps every feature on
the linear side of the ReLU; the bias takes the shift off again. Zero padding is exact too: a padded tap is a zero like
any other. An attention is brought to a constant by zeroing its last weights, which still get gradients: uniform shares
1/T for the softmax, sigmoid(0) = 1/2 for each gate. The norm multiplies by the inverse, so that the convolution's own
weight stays as it was, the same Parameter, and learns as fast as before. Layers of the spatial column have no norm:
there the weight itself is multiplied, by a power of two, which floating point does exactly.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from rfaconv.errors import UserError
from rfaconv.layers.attention import (
    ChannelAttention,
    ChannelSpatialAttention,
    CoordinateAttention,
    MapAttention,
    SpatialAttention,
    TapSoftmax,
)
from rfaconv.layers.base import ConvLayer
from rfaconv.layers.receptive_field import ReceptiveFieldConv2d, ReceptiveFieldFeatures

SLACK = 0.5
"""Standard deviations by which the shift exceeds what the bound asks for: in training mode, where each batch is
normalised by its own statistics, the smallest values would else fall below zero now and then."""


def looks_at_features(layer: ConvLayer) -> bool:
    """Whether the layer has a ReLU of its own, so that it needs a bound for its input."""
    return isinstance(layer, ReceptiveFieldConv2d)


def start_as(
    layer: ConvLayer, conv: nn.Conv2d, low: Tensor | None = None, moments: tuple[Tensor, Tensor] | None = None
) -> None:
    """Make `layer`, which `new_layer` made for `conv`, compute the same function; weight and bias may become shared.

    Args:
        layer: changed in place.
        conv: stays as it is.
        low: what the input never falls below, [] or [C]; needed by receptive-field layers.
        moments: mean and variance of each tap, [C, T] each; these become the running statistics.

    Raises:
        UserError: no such start is known for the layer's attention.
    """
    factor = 1 / neutral(layer.attention)
    bias: Tensor | None = conv.bias
    if looks_at_features(layer):
        assert low is not None
        assert moments is not None
        assert isinstance(layer.features, ReceptiveFieldFeatures)
        layer.weight = _parameter(conv.weight)
        shift = _shift(low, *moments)
        _start_features(layer.features, *moments, shift, factor)
        if shift.any():
            bias = _corrected_bias(conv, shift)
    else:
        layer.weight = _parameter(conv.weight if factor == 1 else conv.weight.detach() * factor)
    layer.bias = None if bias is None else _parameter(bias)


def _parameter(value: Tensor) -> nn.Parameter:
    """`value` itself where it is one."""
    return value if isinstance(value, nn.Parameter) else nn.Parameter(value)


def scales_weight(layer: ConvLayer) -> bool:
    """Whether the layer cannot share the convolution's Parameter."""
    return not looks_at_features(layer) and layer.attention is not None


def _shift(low: Tensor, mean: Tensor, var: Tensor) -> Tensor:
    """[C]: at least -low, and no less than 0 for the sake of padded zeros, with `SLACK` above it."""
    slack = SLACK * var.amax(1).clamp(min=0).sqrt()
    return (-low.double().expand(mean.shape[0])).clamp(min=0) + slack


def _start_features(features: ReceptiveFieldFeatures, mean: Tensor, var: Tensor, shift: Tensor, factor: float) -> None:
    channels, taps, norm = features.channels, features.window.taps, features.norm
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    with torch.no_grad():
        one_hot = torch.eye(taps).view(taps, 1, *features.window.kernel_size).repeat(channels, 1, 1, 1)
        features.weight.copy_(one_hot)
        norm.running_mean.copy_(mean.flatten())
        norm.running_var.copy_(var.flatten())
        # What the running statistics became in their own precision, for the affine part to undo.
        kept_mean, kept_var = norm.running_mean.cpu().double(), norm.running_var.cpu().double()
        moved = shift[:, None].expand(-1, taps).flatten()
        norm.weight.copy_(factor * torch.sqrt(kept_var + norm.eps))
        norm.bias.copy_(factor * (kept_mean + moved))


def _corrected_bias(conv: nn.Conv2d, shift: Tensor) -> Tensor:
    """The bias without what the shift adds: sum over channels and taps of weight * shift."""
    weight = conv.weight.detach().cpu().double()  # not every device has float64
    per_group = weight.shape[1]
    added = torch.empty(weight.shape[0], dtype=torch.float64)
    for group, part in enumerate(weight.chunk(conv.groups)):
        moved = shift[group * per_group : (group + 1) * per_group]
        rows = slice(group * part.shape[0], (group + 1) * part.shape[0])
        added[rows] = (part.sum((2, 3)) * moved).sum(1)
    before = torch.zeros_like(added) if conv.bias is None else conv.bias.detach().cpu().double()
    return (before - added).to(conv.weight)


def neutral(attention: nn.Module | None) -> float:
    """Zero the attention's last weights; returns the constant by which it then multiplies everything.

    Raises:
        UserError: it is of a kind not known here; `register_neutral` adds one.
    """
    if attention is None:
        return 1.0
    inner = attention.module if isinstance(attention, MapAttention) else attention
    assert isinstance(inner, nn.Module)
    for kind in type(inner).__mro__:
        if kind in _NEUTRAL:
            return _NEUTRAL[kind](inner)
    raise UserError(
        f"No start that preserves the function is known for the attention {type(inner).__name__}: tell "
        "rfaconv.conversion.register_neutral how to make it constant."
    )


def constant(attention: nn.Module | None) -> float | None:
    """The number by which the attention multiplies everything as its weights are now; None if it is not constant."""
    if attention is None:
        return 1.0
    inner = attention.module if isinstance(attention, MapAttention) else attention
    if not isinstance(inner, tuple(_NEUTRAL)):
        return None
    again = copy.deepcopy(inner)
    factor = neutral(again)
    return factor if _equal(again, inner) else None


def _equal(first: nn.Module, second: Any) -> bool:
    mine, theirs = first.state_dict(), second.state_dict()
    return all(torch.equal(value, theirs[name]) for name, value in mine.items())


def register_neutral(kind: type[nn.Module], make_constant: Callable[[Any], float]) -> None:
    """Say how an attention module of your own becomes constant, so that `convert` can start from it.

    Args:
        kind: its class; subclasses follow.
        make_constant: changes the module's parameters in place so that it multiplies every input by one number other
            than zero, in training and in eval mode, and returns that number. Zero the last weights before a sigmoid and
            return 0.5: they still get gradients.
    """
    _NEUTRAL[kind] = make_constant


def _zeroed(*layers: nn.Module) -> float:
    """Zero these layers before a sigmoid each; their product of gates is then a constant."""
    for layer in layers:
        for parameter in layer.parameters():
            nn.init.zeros_(parameter)
    return math.prod([0.5] * len(layers))


def _uniform(attention: TapSoftmax) -> float:
    nn.init.zeros_(attention.weight)
    return 1 / attention.weight.shape[1]


_NEUTRAL: dict[type[nn.Module], Callable[[Any], float]] = {
    nn.Identity: lambda attention: 1.0,
    TapSoftmax: _uniform,
    ChannelAttention: lambda attention: _zeroed(attention.expand),
    SpatialAttention: lambda attention: _zeroed(attention.conv),
    ChannelSpatialAttention: lambda attention: _zeroed(attention.channel.expand, attention.spatial.conv),
    CoordinateAttention: lambda attention: _zeroed(attention.expand_rows, attention.expand_columns),
}
