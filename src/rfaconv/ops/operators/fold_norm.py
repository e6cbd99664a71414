"""`fold_norm`: the batch norm of receptive-field features folded into their filters.

features = relu(weight . (patch - center) + bias). With batch statistics the patches are taken from their mean, so that
filters and bias do not cancel each other on images far from zero; all is float64, because the gradients of weight and
bias are what remains of large parts.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rfaconv.ops.operators.definition import composed_gradients, define, dense_like, needs_composed


def composed(
    weight: Tensor,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    mean: Tensor | None,
    var: Tensor | None,
    moments: Tensor | None,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Fold a norm by given statistics, or by the moments of the batch's patches.

    Args:
        weight: [C*T, 1, kh, kw], the filters, channel-major.
        norm_weight, norm_bias: [C*T] or None.
        mean, var: [C*T], the statistics; not read where there are moments.
        moments: [C, 1 + T + T*T] of `patch_moments`, or None.
        eps: added to the variance.

    Returns:
        weight [C*T, 1, kh, kw], bias [C*T] and center [C, T] ([0, T]: none) in float64; the batch's mean and (biased)
        variance of each feature [C*T], empty where there are no moments.
    """
    taps, filters = weight.shape[2] * weight.shape[3], weight.double()
    if moments is None:
        assert mean is not None
        assert var is not None
        found_mean, found_var = weight.new_empty(0), weight.new_empty(0)
        center, offset, variance = filters.new_empty(0, taps), -mean.double(), var.double()
    else:
        channels = moments.shape[0]
        count, first, second = moments.split([1, taps, taps * taps], 1)
        center, by_channel = first / count, filters.view(channels, taps, taps)
        covariance = (second / count).view(channels, taps, taps) - center.unsqueeze(2) * center.unsqueeze(1)
        variance = ((by_channel @ covariance) * by_channel).sum(2).clamp(min=0).flatten()
        found_mean = (by_channel @ center.unsqueeze(2)).flatten().to(weight.dtype)
        found_var, offset = variance.to(weight.dtype), torch.zeros_like(variance)
    scale = torch.rsqrt(variance + eps)
    if norm_weight is not None:
        scale = scale * norm_weight
    bias = offset * scale
    if norm_bias is not None:
        bias = bias + norm_bias
    return filters * scale.view(-1, 1, 1, 1), bias, center, found_mean, found_var


def _fake(
    weight: Tensor, norm_weight: Any, norm_bias: Any, mean: Any, var: Any, moments: Tensor | None, eps: float
) -> tuple[Tensor, ...]:
    features, taps = weight.shape[0], weight.shape[2] * weight.shape[3]
    found = 0 if moments is None else features
    folded = dense_like(weight, torch.float64)
    center = folded.new_empty((0 if moments is None else moments.shape[0], taps))
    return folded, folded.new_empty(features), center, weight.new_empty(found), weight.new_empty(found)


def _fake_backward(
    grad_weight: Tensor, grad_bias: Tensor, grad_center: Tensor, weight: Tensor, norm_weight: Any, mean: Any, var: Any,
    moments: Tensor | None, eps: float,
) -> tuple[Tensor, ...]:  # fmt: skip
    norm = weight.new_empty(weight.shape[0])
    taps = weight.shape[2] * weight.shape[3]
    found = grad_bias.new_empty((0, 1 + taps + taps * taps)) if moments is None else dense_like(moments)
    return dense_like(weight), norm, torch.empty_like(norm), found


define(
    "fold_norm(Tensor weight, Tensor? norm_weight, Tensor? norm_bias, Tensor? mean, Tensor? var, Tensor? moments, "
    "float eps) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    _fake,
)
define(
    "fold_norm_backward(Tensor grad_weight, Tensor grad_bias, Tensor grad_center, Tensor weight, Tensor? norm_weight, "
    "Tensor? mean, Tensor? var, Tensor? moments, float eps) -> (Tensor, Tensor, Tensor, Tensor)",
    _fake_backward,
)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, ctx.eps = inputs
    ctx.save_for_backward(*tensors)
    ctx.mark_non_differentiable(*output[3:])


def _backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
    weight, norm_weight, _, mean, var, moments = tensors = ctx.saved_tensors
    wanted = ctx.needs_input_grad
    if needs_composed(*grads[:3]):
        return tuple(composed_gradients(composed, (*tensors, ctx.eps), grads[:3], wanted))
    found = torch.ops.rfaconv.fold_norm_backward(*grads[:3], weight, norm_weight, mean, var, moments, ctx.eps)
    to_weight, to_scale, to_bias, to_moments = found
    of = (to_weight, to_scale, to_bias, None, None, to_moments, None)
    return tuple(grad if want else None for grad, want in zip(of, wanted, strict=True))


torch.library.register_autograd("rfaconv::fold_norm", _backward, setup_context=_setup)
