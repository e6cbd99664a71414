"""`fold_norm` on CUDA tensors: of PyTorch's operators, since it is little work and no kernel's."""

from __future__ import annotations

import torch
from torch import Tensor

from rfaconv.ops.operators.fold_norm import composed

Maybe = Tensor | None


def fold_norm(
    weight: Tensor, norm_weight: Maybe, norm_bias: Maybe, mean: Maybe, var: Maybe, moments: Maybe, eps: float
) -> tuple[Tensor, ...]:
    """See `rfaconv.ops.fold_norm`."""
    if moments is None and (mean is None or var is None):
        raise ValueError("mean and var, or moments, must be given")
    return composed(weight, norm_weight, norm_bias, mean, var, moments, eps)


def fold_norm_backward(
    grad_weight: Tensor, grad_bias: Tensor, grad_center: Tensor, weight: Tensor, norm_weight: Maybe, mean: Maybe,
    var: Maybe, moments: Maybe, eps: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of weight, norm_weight, norm_bias and moments (docs/kernels.md has the formulas)."""
    taps = weight.shape[2] * weight.shape[3]
    channels = weight.shape[0] // taps
    filters, outer = (part.double().reshape(channels, taps, taps) for part in (weight, grad_weight))
    total = grad_bias.view(channels, taps)
    to_scale = (filters * outer).sum(2)
    if moments is None:
        assert mean is not None
        assert var is not None
        variance, to_scale = var.double().view_as(total), to_scale - mean.double().view_as(total) * total
    else:
        count, first, second = moments.split([1, taps, taps * taps], 1)
        center = (first / count).unsqueeze(2)
        through = filters @ ((second / count).view_as(outer) - center * center.mT)
        variance = (through * filters).sum(2).clamp(min=0)
    inverse = torch.rsqrt(variance + eps)
    scale = inverse if norm_weight is None else inverse * norm_weight.double().view_as(total)
    to_filters = scale.unsqueeze(2) * outer
    to_moments = outer.new_empty(0, 1 + taps + taps * taps)
    if moments is not None:
        to_variance = (-0.5 * to_scale * scale * inverse**2).unsqueeze(2)
        to_filters = to_filters + 2 * to_variance * through
        to_covariance = filters.mT @ (to_variance * filters)
        to_mean = grad_center - 2 * (to_covariance @ center).squeeze(2)
        none = torch.zeros_like(count)
        to_moments = torch.cat([none, to_mean / count, to_covariance.flatten(1) / count], 1)
    return (
        to_filters.view_as(weight).to(weight.dtype),
        (inverse * to_scale).flatten().to(weight.dtype),
        total.flatten().to(weight.dtype),
        to_moments,
    )
