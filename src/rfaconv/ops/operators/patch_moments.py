"""`patch_moments`: what a batch norm of receptive-field features must know of the input, without the features.

A generated feature is linear in the patch, so its mean and variance over a batch follow from the first and second
moments of the patches: 1 + T + T*T numbers a channel, summed in double precision (docs/kernels.md).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rfaconv.ops.operators.definition import GEOMETRY, composed_gradients, define, map_like, needs_composed


def composed(x: Tensor, kernel_size: Any, stride: Any, padding: Any, dilation: Any) -> Tensor:
    """[C, 1 + T + T*T] in float64: the number of patches of x [B, C, H, W], their sum, the sums of products of taps."""
    channels, taps = x.shape[1], kernel_size[0] * kernel_size[1]
    patches = F.unfold(x.double(), kernel_size, dilation, padding, stride).unflatten(1, (channels, taps))
    patches = patches.permute(1, 2, 0, 3).flatten(2)
    count = patches.new_ones(()).expand(patches.shape[2]).sum()
    return torch.cat([count.expand(channels, 1), patches.sum(2), (patches @ patches.mT).flatten(1)], 1)


def _fake(x: Tensor, kernel_size: Any, stride: Any, padding: Any, dilation: Any) -> Tensor:
    taps = kernel_size[0] * kernel_size[1]
    return x.new_empty((x.shape[1], 1 + taps + taps * taps), dtype=torch.float64)


def _fake_backward(grad: Tensor, x: Tensor, *window: Any) -> Tensor:
    return map_like(x, *x.shape[1:])


define(f"patch_moments(Tensor input, int[2] kernel_size, {GEOMETRY}) -> Tensor", _fake)
define(f"patch_moments_backward(Tensor grad, Tensor input, int[2] kernel_size, {GEOMETRY}) -> Tensor", _fake_backward)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(inputs[0])
    ctx.window = inputs[1:]


def _backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    arguments = (*ctx.saved_tensors, *ctx.window)
    if needs_composed(grad):
        return tuple(composed_gradients(composed, arguments, [grad], ctx.needs_input_grad))
    return (torch.ops.rfaconv.patch_moments_backward(grad, *arguments), None, None, None, None)


torch.library.register_autograd("rfaconv::patch_moments", _backward, setup_context=_setup)
