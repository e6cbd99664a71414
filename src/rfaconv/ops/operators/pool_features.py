"""`pool_features`: what RFCBAMConv and RFCAConv look at, without ever holding the features of the whole map."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from rfaconv.ops.operators.definition import (
    FEATURES,
    GEOMETRY,
    composed_gradients,
    define,
    dense_like,
    map_like,
    needs_composed,
)
from rfaconv.ops.stages import folded_features
from rfaconv.ops.window import Window, output_height_width, output_size


def composed(
    x: Tensor, feature_weight: Tensor, feature_bias: Tensor, center: Tensor, stride: Any, padding: Any, dilation: Any,
    over_channels: bool, count_ties: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """The features of x [B, C, H, W], folded as `fold_norm` returns them, pooled.

    Returns:
        over_channels: the largest and the mean feature over C, [B, T, h, w] each, and how many channels have the
        largest (with `count_ties`, else empty). Otherwise the means over the rows and over the columns of the map of
        taps, [B, C, kh, h] and [B, C, kw, w], and nothing.
    """
    window = Window(tuple(feature_weight.shape[2:]), tuple(stride), tuple(padding), tuple(dilation))  # type: ignore[arg-type]
    features = folded_features(x, feature_weight, feature_bias, center, window)
    if not over_channels:
        return features.mean((3, 5)), features.mean((2, 4)), x.new_empty(0)
    features = features.flatten(2, 3)
    largest = features.amax(1)
    ties = (features == largest.unsqueeze(1)).sum(1).to(x.dtype) if count_ties else x.new_empty(0)
    return largest, features.mean(1), ties


def _fake(
    x: Tensor, feature_weight: Tensor, feature_bias: Tensor, center: Tensor, stride: Any, padding: Any, dilation: Any,
    over_channels: bool, count_ties: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    kh, kw = feature_weight.shape[2:]
    (batch, channels), (h, w) = x.shape[:2], output_size(x, Window((kh, kw), stride, padding, dilation))
    if not over_channels:
        return x.new_empty((batch, channels, kh, h)), x.new_empty((batch, channels, kw, w)), x.new_empty(0)
    places = (batch, kh * kw, h, w)
    return x.new_empty(places), x.new_empty(places), x.new_empty(places if count_ties else 0)


def _fake_backward(
    grad_first: Tensor, grad_second: Tensor, largest: Tensor, x: Tensor, feature_weight: Tensor, feature_bias: Tensor,
    center: Tensor, *rest: Any,
) -> tuple[Tensor, ...]:  # fmt: skip
    return (map_like(x, *x.shape[1:]), *(dense_like(part) for part in (feature_weight, feature_bias, center)))


def _backward_flops(
    first: Any, second: Any, largest: Any, x: Any, weight: Any, bias: Any, center: Any, stride: Any, padding: Any,
    dilation: Any, *rest: Any, **kwargs: Any,
) -> int:  # fmt: skip
    """The features once more and the gradients of both their factors. The forward pass counts nothing: its features
    are those that `rf_conv2d` counts."""
    places = math.prod(output_height_width(x[2], x[3], Window(tuple(weight[2:]), stride, padding, dilation)))
    return 3 * 2 * x[0] * places * math.prod(weight)


define(f"pool_features({FEATURES}, {GEOMETRY}, bool over_channels, bool count_ties) -> (Tensor, Tensor, Tensor)", _fake)
define(
    f"pool_features_backward(Tensor grad_first, Tensor grad_second, Tensor largest, {FEATURES}, {GEOMETRY}, "
    "bool over_channels) -> (Tensor, Tensor, Tensor, Tensor)",
    _fake_backward,
    _backward_flops,
)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    first, _, ties = output
    ctx.save_for_backward(*inputs[:4], first, ties)
    ctx.rest = inputs[4:]
    ctx.mark_non_differentiable(ties)


def _backward(ctx: Any, grad_first: Tensor, grad_second: Tensor, _: Any) -> tuple[Any, ...]:
    *tensors, first, ties = ctx.saved_tensors
    wanted = ctx.needs_input_grad
    if needs_composed(grad_first, grad_second):
        return tuple(composed_gradients(composed, (*tensors, *ctx.rest), [grad_first, grad_second], wanted))
    x, weight = tensors[:2]
    *geometry, over_channels, counted = ctx.rest
    if over_channels:  # channels that share the largest feature share its gradient, as amax has it
        if not counted:
            raise RuntimeError("rfaconv::pool_features needs count_ties for its gradient")
        grad_first, grad_second = grad_first / ties, grad_second / x.shape[1]
    else:
        (kh, kw), (h, w) = weight.shape[2:], output_size(x, Window(tuple(weight.shape[2:]), *geometry))
        grad_first, grad_second = grad_first / (kw * w), grad_second / (kh * h)
    found = torch.ops.rfaconv.pool_features_backward(grad_first, grad_second, first, *tensors, *geometry, over_channels)
    return (*(grad if want else None for grad, want in zip(found, wanted, strict=False)), *[None] * 5)


torch.library.register_autograd("rfaconv::pool_features", _backward, setup_context=_setup)
