"""`rf_conv2d`: receptive-field features, weighed by an attention, contracted with a convolution's own weight."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from rfaconv.ops.epilogue import ACTS, Epilogue
from rfaconv.ops.operators.definition import (
    FEATURES,
    GEOMETRY,
    composed_gradients,
    define,
    dense_like,
    map_like,
    needs_composed,
)
from rfaconv.ops.stages import contract, folded_features, tap_softmax, window_mean
from rfaconv.ops.window import Window, output_height_width, output_size


def composed(
    x: Tensor, feature_weight: Tensor, feature_bias: Tensor, center: Tensor, tap_weight: Tensor | None,
    channel_gate: Tensor | None, spatial_gate: Tensor | None, row_gate: Tensor | None, col_gate: Tensor | None,
    weight: Tensor, bias: Tensor | None, stride: Any, padding: Any, dilation: Any, groups: int,
    scale: Tensor | None = None, shift: Tensor | None = None, act: int = 0,
) -> Tensor:  # fmt: skip
    """The operator of PyTorch's operators; `rfaconv.ops.rf_conv2d` describes the arguments."""
    window = Window(tuple(weight.shape[2:]), tuple(stride), tuple(padding), tuple(dilation))  # type: ignore[arg-type]
    features = folded_features(x, feature_weight, feature_bias, center, window)
    if tap_weight is not None:
        features = features * tap_softmax(window_mean(x, window), tap_weight, window.kernel_size)
    if channel_gate is not None:
        features = features * channel_gate[:, :, None, None, None, None]
    if spatial_gate is not None:
        features = features * spatial_gate.unflatten(1, window.kernel_size).unsqueeze(1)
    if row_gate is not None:
        features = features * row_gate[:, :, :, None, :, None]
    if col_gate is not None:
        features = features * col_gate[:, :, None, :, None, :]
    return Epilogue(scale, shift, ACTS[act]).apply(contract(features, weight, bias, groups))


def _fake(x: Tensor, *rest: Any) -> Tensor:
    weight, geometry = rest[8], rest[10:13]
    window = Window(tuple(weight.shape[2:]), *geometry)
    return map_like(x, weight.shape[0], *output_size(x, window))


def _fake_backward(
    grad: Tensor, x: Tensor, feature_weight: Tensor, feature_bias: Tensor, center: Tensor, *rest: Any
) -> tuple[Tensor, ...]:
    given, weight, input_too = [operand for operand in rest[:5] if operand is not None], rest[5], rest[-1]
    second = dense_like(given[1]) if len(given) > 1 else x.new_empty(0)
    return (
        map_like(x, *x.shape[1:]) if input_too else x.new_empty(0),
        *(dense_like(part) for part in (feature_weight, feature_bias, center, weight, given[0])),
        second,
    )


def _flops(x: Any, feature_weight: Any, bias: Any, center: Any, tap_weight: Any, *rest: Any, **kwargs: Any) -> int:
    """Twice the multiply-adds of the convolutions the paper writes: features, attention (RFAConv's), contraction."""
    weight, geometry = rest[4], rest[6:9]
    places = x[0] * math.prod(output_height_width(x[2], x[3], Window(tuple(weight[2:]), *geometry)))
    attention = 0 if tap_weight is None else math.prod(tap_weight)
    return 2 * places * (math.prod(feature_weight) + attention + math.prod(weight))


def _backward_flops(
    grad: Any, x: Any, feature_weight: Any, bias: Any, center: Any, tap_weight: Any, *rest: Any, **kwargs: Any
) -> int:
    """The gradients of input and weights, and the features once more."""
    attention = 0 if tap_weight is None else math.prod(tap_weight)
    features, kernel = math.prod(feature_weight), math.prod(rest[4])
    return 2 * grad[0] * grad[2] * grad[3] * (3 * features + 2 * attention + 2 * kernel)


_OPERANDS = "Tensor? tap_weight, Tensor? channel_gate, Tensor? spatial_gate, Tensor? row_gate, Tensor? col_gate"
define(
    f"rf_conv2d({FEATURES}, {_OPERANDS}, Tensor weight, Tensor? bias, {GEOMETRY}, int groups, Tensor? scale, "
    "Tensor? shift, int act) -> Tensor",
    _fake,
    _flops,
)
define(
    f"rf_conv2d_backward(Tensor grad_out, {FEATURES}, {_OPERANDS}, Tensor weight, {GEOMETRY}, int groups, "
    "bool input_too) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    _fake_backward,
    _backward_flops,
)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    scale, shift, act = inputs[15:]
    if scale is not None or shift is not None or act:
        raise RuntimeError("rfaconv::rf_conv2d has no gradient with a scale, shift or activation: apply them after it")
    ctx.save_for_backward(*inputs[:11])
    ctx.rest = inputs[11:15]


def _backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    tensors, wanted = ctx.saved_tensors, ctx.needs_input_grad
    if needs_composed(grad):
        found = composed_gradients(composed, (*tensors, *ctx.rest), [grad], wanted[:15])
        return (*found, None, None, None)
    *most, bias = tensors
    to_x, to_weight, to_bias, to_center, to_kernel, *to_operands = torch.ops.rfaconv.rf_conv2d_backward(
        grad, *most, *ctx.rest, wanted[0]
    )
    gates = iter(to_operands)
    operands = [None if operand is None else next(gates) for operand in tensors[4:9]]
    to_kernel_bias = grad.sum((0, 2, 3), dtype=bias.dtype) if bias is not None and wanted[10] else None
    found = [to_x, to_weight, to_bias, to_center, *operands, to_kernel, to_kernel_bias]
    return (*(one if want else None for one, want in zip(found, wanted, strict=False)), *[None] * 7)


torch.library.register_autograd("rfaconv::rf_conv2d", _backward, setup_context=_setup)
