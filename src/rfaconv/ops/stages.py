"""The stages of a receptive-field convolution: generate features for each tap, attend, contract.

Features are [B, C, kh, kw, h, w]: for every channel and output position one value a tap. A plain feature map is the
case of one tap, [B, C, 1, 1, H, W], which is why one attention serves both columns of the family.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from rfaconv.ops.window import Window, output_size


def generate(x: Tensor, weight: Tensor, bias: Tensor | None, window: Window) -> Tensor:
    """Linear receptive-field features: a depthwise convolution with T outputs for each channel.

    Args:
        x: [B, C, H, W].
        weight: [C*T, 1, kh, kw], channel-major: the T filters of channel 0 first.
        bias: [C*T] or None.

    Returns:
        [B, C, kh, kw, h, w].
    """
    if bias is None and _prefers_patches(x, weight, window):
        return generate_by_patches(x, weight, window)
    return generate_by_convolution(x, weight, bias, window)


def generate_by_convolution(x: Tensor, weight: Tensor, bias: Tensor | None, window: Window) -> Tensor:
    """`generate` as one depthwise convolution."""
    kernel_size, stride, padding, dilation = window
    if any(pad > step * (size - 1) for pad, step, size in zip(padding, dilation, kernel_size, strict=True)):
        # More padding than kernel: in a layout that every version of torch takes.
        x = x.contiguous()
    features = F.conv2d(x, weight, bias, stride, padding, dilation, groups=x.shape[1])
    return features.unflatten(1, (x.shape[1], *kernel_size))


def generate_by_patches(x: Tensor, weight: Tensor, window: Window) -> Tensor:
    """`generate` as patches and a product of small matrices for each channel."""
    kernel_size, stride, padding, dilation = window
    channels, taps = x.shape[1], window.taps
    patches = F.unfold(x, kernel_size, dilation, padding, stride).unflatten(1, (channels, taps))
    features = torch.matmul(weight.view(channels, taps, taps), patches)
    return features.unflatten(3, output_size(x, window)).unflatten(2, kernel_size)


def _prefers_patches(x: Tensor, weight: Tensor, window: Window) -> bool:
    """Where patches and a batched product beat the depthwise convolution: training with a stride on the CPU.

    There a strided depthwise convolution, forward and backward, takes 1.4 to 3 times as long
    (benchmarks/strided_features.py, docs/benchmarks.md).
    """
    learns = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)
    return learns and x.device.type == "cpu" and max(window.stride) > 1 and x.numel() > 0


def folded_features(x: Tensor, weight: Tensor, bias: Tensor, center: Tensor, window: Window) -> Tensor:
    """relu(weight . (patch - center) + bias), as `fold_norm` returns them: [B, C, kh, kw, h, w] in x's dtype."""
    if center.shape[0]:
        taken = (weight.view(*center.shape, -1) @ center.unsqueeze(2)).flatten()
        bias = bias - taken
    return F.relu(generate_by_convolution(x, weight.to(x.dtype), bias.to(x.dtype), window), inplace=True)


def window_mean(x: Tensor, window: Window) -> Tensor:
    """The mean of each receptive field, padding counted: [B, C, H, W] to [B, C, h, w]."""
    kernel_size, stride, (pad_h, pad_w), dilation = window
    if dilation != (1, 1):
        ones = torch.ones(1, device=x.device, dtype=x.dtype) / window.taps
        weight = ones.expand(x.shape[1], 1, *kernel_size)
        return F.conv2d(x, weight, None, stride, (pad_h, pad_w), dilation, groups=x.shape[1])
    if pad_h > kernel_size[0] // 2 or pad_w > kernel_size[1] // 2:  # more than pooling accepts
        x, pad_h, pad_w = F.pad(x, (pad_w, pad_w, pad_h, pad_h)), 0, 0
    return F.avg_pool2d(x, kernel_size, stride, (pad_h, pad_w))


def tap_softmax(mean: Tensor, weight: Tensor, kernel_size: tuple[int, int], plain: bool = False) -> Tensor:
    """RFAConv's attention: softmax over the taps of weight[c, t] * mean[b, c, y, x].

    Args:
        mean: [B, C, h, w], the mean of each receptive field.
        weight: [C, T].
        plain: make the logits by a 1x1 convolution, as the paper does: a counter of multiply-adds wants to see it.

    Returns:
        [B, C, kh, kw, h, w]; the taps of each receptive field sum to one.
    """
    if plain:
        logits = F.conv2d(mean, weight.reshape(-1, 1, 1, 1), groups=mean.shape[1]).unflatten(1, weight.shape)
    else:
        logits = mean.unsqueeze(2) * weight.view(*weight.shape, 1, 1)
    return logits.softmax(2).unflatten(2, kernel_size)


def contract(features: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> Tensor:
    """The layer's own convolution, applied to features that already lie tap by tap.

    The same as a convolution of stride (kh, kw) over the map of `to_map`, without the rearrangement.

    Args:
        features: [B, C, kh, kw, h, w].
        weight: [O, C/groups, kh, kw], as Conv2d's.
        bias: [O] or None.

    Returns:
        [B, O, h, w].
    """
    return F.conv2d(features.flatten(1, 3), weight.reshape(weight.shape[0], -1, 1, 1), bias, groups=groups)


def contract_map(features: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> Tensor:
    """`contract` as the paper writes it: a convolution of stride (kh, kw) over the map of taps."""
    return F.conv2d(to_map(features), weight, bias, stride=tuple(weight.shape[2:]), groups=groups)


def to_map(features: Tensor) -> Tensor:
    """Lay the taps out in the plane: [B, C, kh, kw, h, w] to [B, C, h*kh, w*kw].

    Tap (i, j) of position (y, x) goes to (y*kh + i, x*kw + j).
    """
    # Not reshape: torch.export with sizes left open cannot see that h divides h * kh.
    return features.permute(0, 1, 4, 2, 5, 3).flatten(4, 5).flatten(2, 3)


def from_map(plane: Tensor, kernel_size: tuple[int, int]) -> Tensor:
    """The inverse of `to_map`."""
    kh, kw = kernel_size
    # Not unflatten: of a map with a stride, torch.export cannot see that its kernel size divides it.
    return plane.unfold(2, kh, kh).unfold(3, kw, kw).permute(0, 1, 4, 5, 2, 3)


def fold_batch_norm(
    weight: Tensor,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    running_mean: Tensor,
    running_var: Tensor,
    eps: float,
) -> tuple[Tensor, Tensor]:
    """Weight and bias of the convolution that equals `weight` followed by a batch norm with fixed statistics."""
    scale, bias = norm_as_line(norm_weight, norm_bias, running_mean, running_var, eps)
    return weight * scale.to(weight.dtype).view(-1, 1, 1, 1), bias.to(weight.dtype)


def norm_as_line(
    weight: Tensor | None, bias: Tensor | None, mean: Tensor, var: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """A batch norm with fixed statistics as scale * x + shift."""
    scale = torch.rsqrt(var + eps)
    if weight is not None:
        scale = scale * weight
    shift = -mean * scale
    return scale, shift if bias is None else shift + bias


def update_running(
    running_mean: Tensor, running_var: Tensor, mean: Tensor, var: Tensor, count: Tensor, momentum: float
) -> None:
    """Move running statistics towards a batch's as F.batch_norm does: to the unbiased variance of `count` values."""
    running_mean.lerp_(mean.detach().to(running_mean.dtype), momentum)
    running_var.lerp_((var.detach() * (count / (count - 1))).to(running_var.dtype), momentum)
