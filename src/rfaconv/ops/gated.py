"""Receptive-field convolutions whose attention is a product of two gates, by kernels (RFCBAMConv, RFCAConv).

Such an attention looks at the features of the whole map through a few statistics only. So there are two passes, neither
of which keeps the features: a *survey* of them, then, with the gates the attention made of it, *contract*.

Two kinds of survey, and of gates:
    places  first [B, T, h, w], the largest feature over the channels; second, the same shape, their mean.
            Gates: a factor a channel [B, C] and a factor a place [B, T, h, w].
    lines   first [B, C, kh, h], the mean over each row of the map of taps; second [B, C, kw, w], over each column.
            Gates: the same two shapes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from rfaconv.ops.epilogue import ACTS, Epilogue
from rfaconv.ops.shapes import flat
from rfaconv.ops.stages import output_size
from rfaconv.ops.window import Window

Survey = Literal["places", "lines"]
KINDS = {"places": 1, "lines": 2}  # csrc/problem.h: Attention


class Features(NamedTuple):
    """relu(weight . (patch - centre) + bias), the batch norm folded.

    weight [C*T, 1, kh, kw] and bias [C*T], with batch statistics in float64, because their gradient is what remains of
    large parts; centre [C, T] in float64, near the mean of the patches so that weight and bias do not cancel each
    other, or None.
    """

    weight: Tensor
    bias: Tensor
    centre: Tensor | None
    window: Window


def gated_conv2d(
    x: Tensor,
    features: Features,
    kind: Survey,
    gates: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
    weight: Tensor,
    bias: Tensor | None,
    groups: int,
    epilogue: Epilogue,
) -> Tensor:
    """The convolution of the features, weighed by what `gates` makes of their survey.

    On a CPU the kernels compute in float32, on a GPU with the products' factors in the dtype of the output, which is
    the autocast's or x's; sums over the batch are float64. The gates are computed in weight's dtype, or the autocast's.

    Args:
        x: [B, C, H, W].
        features: how they are generated.
        kind, gates: the survey, and the attention as a function of its two results.
        weight: [O, C/groups, kh, kw]; bias: [O] or None.
        epilogue: without gradients, computed together with the rest.

    Returns:
        [B, O, h, w]. Differentiable once; the backward pass generates the features again.
    """
    dtype = torch.get_autocast_dtype(x.device.type) if torch.is_autocast_enabled(x.device.type) else x.dtype

    def gates_in_float32(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        one, two = gates(first.to(weight.dtype), second.to(weight.dtype))
        return one.float(), two.float()

    factors = torch.float32 if x.is_cpu else dtype
    x, kernel, kernel_bias = x.to(factors), weight.to(factors), None if bias is None else bias.float()
    epilogue = epilogue.float()
    if not torch.is_grad_enabled():
        found = gates_in_float32(*_survey(x, features, kind)[:2])
        return _contract(x, features, kind, found, kernel, kernel_bias, groups, epilogue).to(dtype)
    first, second = gates_in_float32(*_SurveyWithGradient.apply(kind, features.window, x, *features[:3]))
    out = _ContractWithGradient.apply(
        kind, features.window, groups, x, *features[:3], first, second, kernel, kernel_bias
    )
    return epilogue.apply(out).to(dtype)


class BatchStatistics(NamedTuple):
    """Of the features before their norm, over a batch: `mean` and (biased) `var` [C*T], of so many `values` each, and
    the mean of the patches they are made of, `centre` [C, T]; all in float64."""

    mean: Tensor
    var: Tensor
    centre: Tensor
    values: int


def batch_statistics(x: Tensor, weight: Tensor, window: Window) -> BatchStatistics:
    """From the moments of the patches of x [B, C, H, W] in double precision; differentiable."""
    channels, taps = x.shape[1], window.taps
    height, width = output_size(x, window)
    count = x.shape[0] * height * width
    moments = torch.ops.rfaconv.patch_moments(x, flat(window)) / count
    filters, centre = weight.double().view(channels, taps, taps), moments[:, :taps]
    first = centre.unsqueeze(2)
    covariance = moments[:, taps:].view(channels, taps, taps) - first * first.transpose(1, 2)
    var = ((filters @ covariance) * filters).sum(2).clamp(min=0)
    return BatchStatistics((filters @ first).flatten(), var.flatten(), centre, count)


def _survey(x: Tensor, features: Features, kind: Survey, count_ties: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    return torch.ops.rfaconv.survey_features(x, *_rounded(features), flat(features.window), KINDS[kind], count_ties)


def _rounded(features: Features) -> tuple[Tensor, Tensor, Tensor | None]:
    """As the kernels take them: weight and bias in float32."""
    return features.weight.float(), features.bias.float(), features.centre


def _contract(
    x: Tensor,
    features: Features,
    kind: Survey,
    gates: tuple[Tensor, Tensor],
    weight: Tensor,
    bias: Tensor | None,
    groups: int,
    epilogue: Epilogue,
) -> Tensor:
    scale, shift, act = epilogue
    return torch.ops.rfaconv.contract_gated(
        x, *_rounded(features), *gates, weight, bias, flat(features.window), groups, KINDS[kind],
        scale, shift, ACTS.index(act),
    )  # fmt: skip


def _of_features(features: Features, outer: Tensor, total: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    """The gradients of weight, bias and centre, from D [C, T, T] and S [C, T]."""
    weight, bias, centre, _ = features
    if centre is not None:
        centre = -(total.unsqueeze(1) @ weight.view_as(outer)).squeeze(1)
    return outer.view_as(weight), total.view_as(bias), centre


class _SurveyWithGradient(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, kind: Survey, window: Window, x: Tensor, weight: Tensor, bias: Tensor, centre: Tensor | None
    ) -> Any:
        first, second, ties = _survey(x, Features(weight, bias, centre, window), kind, count_ties=True)
        ctx.save_for_backward(x, weight, bias, centre, first, ties)
        ctx.kind, ctx.window = kind, window
        return first, second

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_first: Tensor, grad_second: Tensor) -> Any:
        x, weight, bias, centre, first, ties = ctx.saved_tensors
        (kh, kw), (h, w) = ctx.window.kernel_size, output_size(x, ctx.window)
        if ctx.kind == "places":  # channels that share the largest feature share its gradient, as amax has it
            grad_first, grad_second = grad_first / ties, grad_second / x.shape[1]
        else:
            grad_first, grad_second = grad_first / (kw * w), grad_second / (kh * h)
        features = Features(weight, bias, centre, ctx.window)
        grad_x, outer, total = torch.ops.rfaconv.survey_backward(
            first, grad_first, grad_second, x, *_rounded(features), flat(ctx.window), KINDS[ctx.kind]
        )
        return None, None, grad_x, *_of_features(features, outer, total)


class _ContractWithGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, kind: Survey, window: Window, groups: int, *tensors: Any) -> Any:
        x, weight, bias, centre, first, second, kernel, kernel_bias = tensors
        ctx.save_for_backward(x, weight, bias, centre, first, second, kernel)
        ctx.kind, ctx.window, ctx.groups, ctx.has_bias = kind, window, groups, kernel_bias is not None
        features = Features(weight, bias, centre, window)
        return _contract(x, features, kind, (first, second), kernel, kernel_bias, groups, Epilogue())

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_out: Tensor) -> Any:
        x, weight, bias, centre, *rest = ctx.saved_tensors
        features = Features(weight, bias, centre, ctx.window)
        grad_x, outer, total, *grads = torch.ops.rfaconv.contract_gated_backward(
            grad_out, x, *_rounded(features), *rest, flat(ctx.window), ctx.groups, KINDS[ctx.kind]
        )
        kernel_bias = grad_out.sum((0, 2, 3)) if ctx.has_bias else None
        return None, None, None, grad_x, *_of_features(features, outer, total), *grads, kernel_bias
