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

from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from rfaconv.ops.cpu import library
from rfaconv.ops.cpu.shapes import flat
from rfaconv.ops.epilogue import ACTS, Epilogue
from rfaconv.ops.stages import contract, generate, output_size
from rfaconv.ops.window import Window

Survey = Literal["places", "lines"]
KINDS = {"places": 1, "lines": 2}  # csrc/problem.h: Attention

PART = 2**19
"""Feature values that the backward pass generates at a time: 2 MiB."""


class Features(NamedTuple):
    """relu(weight * x + bias), the batch norm folded: weight [C*T, 1, kh, kw], bias [C*T]."""

    weight: Tensor
    bias: Tensor
    window: Window


def can_take(x: Tensor, weight: Tensor, window: Window) -> bool:
    """Whether the kernels can compute this; there is always the composition of the layer's own modules."""
    return (
        library.MISSING is None
        and x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and x.layout == torch.strided
        and not torch.is_autocast_enabled("cpu")
        and not torch.onnx.is_in_onnx_export()
        and not (torch.compiler.is_compiling() and torch.is_grad_enabled())  # the backward pass is a loop over blocks
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
        [B, O, h, w]. Differentiable once; the backward pass generates the features again, some channels at a time.
    """
    if not torch.is_grad_enabled():
        first, second = gates(*_survey(x, features, kind))
        return _contract(x, features, kind, first, second, weight, bias, groups, epilogue)
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


def _fixed(features: Features) -> tuple[Any, ...]:
    """The norm as the operators take it, when it is folded already: weight, bias, mean, var, eps."""
    ones = torch.ones_like(features.bias)
    return None, features.bias, torch.zeros_like(ones), ones, 0.0


def _survey(x: Tensor, features: Features, kind: Survey) -> tuple[Tensor, Tensor]:
    return torch.ops.rfaconv.survey_features(x, features.weight, *_fixed(features), flat(features.window), KINDS[kind])


def _contract(
    x: Tensor,
    features: Features,
    kind: Survey,
    first: Tensor,
    second: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    groups: int,
    epilogue: Epilogue,
) -> Tensor:
    return torch.ops.rfaconv.contract_gated(
        x, features.weight, *_fixed(features), first, second, weight, bias, flat(features.window), groups, KINDS[kind],
        epilogue.scale, epilogue.shift, ACTS.index(epilogue.act),
    )  # fmt: skip


# ---- Gradients: the plain formula, a block of images and channels at a time -----------------------------------------


class _Block(NamedTuple):
    images: slice
    channels: slice
    features: slice  # the channels' C*T features


def _blocks(x: Tensor, window: Window, groups: int = 1) -> Iterator[_Block]:
    """Blocks of about PART feature values; each lies within a group."""
    height, width = output_size(x, window)
    each = window.taps * height * width
    channels = max(1, min(x.shape[1] // groups, PART // each))
    images = max(1, PART // (each * channels))
    a_group = x.shape[1] // groups
    for image in range(0, x.shape[0], images):
        for group in range(0, x.shape[1], a_group):
            for first in range(group, group + a_group, channels):
                last = min(first + channels, group + a_group)
                yield _Block(
                    slice(image, image + images), slice(first, last), slice(first * window.taps, last * window.taps)
                )


def _generate(x: Tensor, features: Features, block: _Block | None = None) -> Tensor:
    """The features [b, c, kh, kw, h, w] of a block, or of an x and filters that are cut out already."""
    weight, bias, window = features
    if block is not None:
        x, weight, bias = x[block.images, block.channels], weight[block.features], bias[block.features]
    linear = generate(x, weight, None, window)
    return F.relu(linear + bias.view(x.shape[1], *window.kernel_size, 1, 1))


def _leaves(*tensors: Tensor) -> list[Tensor]:
    return [tensor.detach().requires_grad_() for tensor in tensors]


def _add(grads: list[Tensor | None], places: list[Any], found: tuple[Tensor, ...]) -> None:
    for grad, place, value in zip(grads, places, found, strict=True):
        if grad is not None:
            grad[place] += value


class _SurveyWithGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, kind: Survey, window: Window, x: Tensor, weight: Tensor, bias: Tensor) -> Any:
        first, second = _survey(x, Features(weight, bias, window), kind)
        ctx.save_for_backward(x, weight, bias)
        ctx.kind, ctx.window = kind, window
        return first, second

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_first: Tensor, grad_second: Tensor) -> Any:
        x, weight, bias = ctx.saved_tensors
        grads = [torch.zeros_like(tensor) for tensor in (x, weight, bias)]
        largest = None
        if ctx.kind == "places":
            largest, ties = _largest(x, Features(weight, bias, ctx.window))
            grad_first, grad_second = grad_first / ties, grad_second / x.shape[1]
        for block in _blocks(x, ctx.window):
            with torch.enable_grad():
                leaves = _leaves(x[block.images, block.channels], weight[block.features], bias[block.features])
                features = _generate(leaves[0], Features(leaves[1], leaves[2], ctx.window))
            grad = _survey_gradient(features, block, largest, grad_first, grad_second)
            places = [(block.images, block.channels), block.features, block.features]
            _add([*grads], places, torch.autograd.grad(features, leaves, grad))
        return None, None, *grads


def _largest(x: Tensor, features: Features) -> tuple[Tensor, Tensor]:
    """The largest feature over the channels at each place, and how many share it: they share its gradient, as in amax.

    Made by the operators that make the features below, so that equal ones are equal in every bit.
    """
    height, width = output_size(x, features.window)
    largest = x.new_full((x.shape[0], features.window.taps, height, width), -torch.inf)
    ties = torch.zeros_like(largest)
    for block in _blocks(x, features.window):
        found = _generate(x, features, block).flatten(2, 3)
        before = largest[block.images]
        now = torch.maximum(before, found.amax(1))
        ties[block.images] = ties[block.images] * (before == now) + (found == now.unsqueeze(1)).sum(1)
        largest[block.images] = now
    return largest, ties.clamp_(min=1)


def _survey_gradient(
    features: Tensor, block: _Block, largest: Tensor | None, grad_first: Tensor, grad_second: Tensor
) -> Tensor:
    """The gradient of features [b, c, kh, kw, h, w] from those of their survey; `largest` is for places alone."""
    kh, kw, h, w = features.shape[2:]
    if largest is not None:
        chosen = features.detach().flatten(2, 3) == largest[block.images].unsqueeze(1)
        grad = chosen * grad_first[block.images].unsqueeze(1) + grad_second[block.images].unsqueeze(1)
        return grad.view_as(features)
    rows = grad_first[block.images, block.channels] / (kw * w)
    columns = grad_second[block.images, block.channels] / (kh * h)
    return rows[:, :, :, None, :, None] + columns[:, :, None, :, None, :]


class _ContractWithGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, kind: Survey, window: Window, groups: int, *tensors: Any) -> Any:
        x, weight, bias, first, second, kernel, kernel_bias = tensors
        ctx.save_for_backward(x, weight, bias, first, second, kernel)
        ctx.kind, ctx.window, ctx.groups, ctx.has_bias = kind, window, groups, kernel_bias is not None
        return _contract(
            x, Features(weight, bias, window), kind, first, second, kernel, kernel_bias, groups, Epilogue()
        )

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_out: Tensor) -> Any:
        x, kernel = ctx.saved_tensors[0], ctx.saved_tensors[5]
        grads = [torch.zeros_like(tensor) for tensor in ctx.saved_tensors]
        outputs, inputs = kernel.shape[0] // ctx.groups, kernel.shape[1]
        for block in _blocks(x, ctx.window, ctx.groups):
            group = block.channels.start // inputs
            out = slice(group * outputs, (group + 1) * outputs)
            within = slice(block.channels.start - group * inputs, block.channels.stop - group * inputs)
            both = (block.images, block.channels)
            second_at: Any = block.images if ctx.kind == "places" else both
            places: list[Any] = [both, block.features, block.features, both, second_at, (out, within)]
            with torch.enable_grad():
                leaves = _leaves(*(tensor[place] for tensor, place in zip(ctx.saved_tensors, places, strict=True)))
                features = _generate(leaves[0], Features(leaves[1], leaves[2], ctx.window))
                weighed = features * _factors(ctx.kind, leaves[3], leaves[4], ctx.window)
                part = contract(weighed, leaves[5], None, 1)
            _add([*grads], places, torch.autograd.grad(part, leaves, grad_out[block.images, out]))
        return None, None, None, *grads, grad_out.sum((0, 2, 3)) if ctx.has_bias else None


def _factors(kind: Survey, first: Tensor, second: Tensor, window: Window) -> Tensor:
    """The gates as one tensor that multiplies features [B, C, kh, kw, h, w]."""
    if kind == "places":
        return first[:, :, None, None, None, None] * second.unflatten(1, window.kernel_size).unsqueeze(1)
    return first[:, :, :, None, :, None] * second[:, :, None, :, None, :]
