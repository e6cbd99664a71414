"""Receptive-field convolutions whose attention is a product of two gates, by the C++ kernels (RFCBAMConv, RFCAConv).

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

from rfaconv.ops.cpu import library
from rfaconv.ops.epilogue import ACTS, Epilogue
from rfaconv.ops.operator_call import traced_elsewhere
from rfaconv.ops.shapes import flat
from rfaconv.ops.stages import output_size
from rfaconv.ops.window import Window

Survey = Literal["places", "lines"]
KINDS = {"places": 1, "lines": 2}  # csrc/problem.h: Attention


class Features(NamedTuple):
    """relu(weight * x + bias), the batch norm folded: weight [C*T, 1, kh, kw], bias [C*T]."""

    weight: Tensor
    bias: Tensor
    window: Window


def can_take(x: Tensor, weight: Tensor, window: Window) -> bool:
    """Whether the kernels can compute this; there is always the composition of the layer's own modules."""
    return (
        library.MISSING is None
        and x.is_cpu
        and x.dtype == weight.dtype == torch.float32
        and x.layout == torch.strided
        and not torch.is_autocast_enabled("cpu")
        and traced_elsewhere() is None
        and window.taps <= library.MOST_TAPS
        and window.stride[1] <= library.MOST_STRIDE
        and x.numel() > 0
        and min(output_size(x, window)) >= 1
    )


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

    Args:
        x: [B, C, H, W], float32.
        features: how they are generated.
        kind, gates: the survey, and the attention as a function of its two results.
        weight: [O, C/groups, kh, kw]; bias: [O] or None.
        epilogue: without gradients, computed together with the rest.

    Returns:
        [B, O, h, w]. Differentiable once; the backward pass generates the features again.
    """
    if not torch.is_grad_enabled():
        found = gates(*_survey(x, features, kind)[:2])
        return _contract(x, features, kind, found, weight, bias, groups, epilogue)
    first, second = gates(*_SurveyWithGradient.apply(kind, features.window, x, features.weight, features.bias))
    out = _ContractWithGradient.apply(
        kind, features.window, groups, x, features.weight, features.bias, first, second, weight, bias
    )
    return epilogue.apply(out)


def batch_statistics(x: Tensor, weight: Tensor, window: Window) -> tuple[Tensor, Tensor, int]:
    """Mean and (biased) variance over the batch of the features before their norm, [C*T], and the number of values.

    From the moments of the patches, in double precision; differentiable.
    """
    channels, taps = x.shape[1], window.taps
    height, width = output_size(x, window)
    count = x.shape[0] * height * width
    moments = torch.ops.rfaconv.patch_moments(x, flat(window)) / count
    filters, first = weight.double().view(channels, taps, taps), moments[:, :taps].unsqueeze(2)
    covariance = moments[:, taps:].view(channels, taps, taps) - first * first.transpose(1, 2)
    var = ((filters @ covariance) * filters).sum(2).clamp(min=0)
    return (filters @ first).flatten().float(), var.flatten().float(), count


def _survey(x: Tensor, features: Features, kind: Survey, count_ties: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    weight, bias, window = features
    return torch.ops.rfaconv.survey_features(x, weight, bias, flat(window), KINDS[kind], count_ties)


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
        x, features.weight, features.bias, *gates, weight, bias, flat(features.window), groups, KINDS[kind],
        scale, shift, ACTS.index(act),
    )  # fmt: skip


class _SurveyWithGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, kind: Survey, window: Window, x: Tensor, weight: Tensor, bias: Tensor) -> Any:
        first, second, ties = _survey(x, Features(weight, bias, window), kind, count_ties=True)
        ctx.save_for_backward(x, weight, bias, first, ties)
        ctx.kind, ctx.window = kind, window
        return first, second

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_first: Tensor, grad_second: Tensor) -> Any:
        x, weight, bias, first, ties = ctx.saved_tensors
        (kh, kw), (h, w) = ctx.window.kernel_size, output_size(x, ctx.window)
        if ctx.kind == "places":  # channels that share the largest feature share its gradient, as amax has it
            grad_first, grad_second = grad_first / ties, grad_second / x.shape[1]
        else:
            grad_first, grad_second = grad_first / (kw * w), grad_second / (kh * h)
        grads = torch.ops.rfaconv.survey_backward(
            first, grad_first, grad_second, x, weight, bias, flat(ctx.window), KINDS[ctx.kind]
        )
        return None, None, *grads


class _ContractWithGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, kind: Survey, window: Window, groups: int, *tensors: Any) -> Any:
        x, weight, bias, first, second, kernel, kernel_bias = tensors
        ctx.save_for_backward(x, weight, bias, first, second, kernel)
        ctx.kind, ctx.window, ctx.groups, ctx.has_bias = kind, window, groups, kernel_bias is not None
        features = Features(weight, bias, window)
        return _contract(x, features, kind, (first, second), kernel, kernel_bias, groups, Epilogue())

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_out: Tensor) -> Any:
        grads = torch.ops.rfaconv.contract_gated_backward(
            grad_out, *ctx.saved_tensors, flat(ctx.window), ctx.groups, KINDS[ctx.kind]
        )
        return None, None, None, *grads, grad_out.sum((0, 2, 3)) if ctx.has_bias else None
