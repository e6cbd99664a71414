"""RFAConv as one function of tensors, by the functional operators or by the plain formula; small random calls of it."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rfaconv.ops import Operands, fold_norm, patch_moments, rf_conv2d
from rfaconv.ops.stages import update_running


def rfa_conv2d(
    input: Tensor,
    feature_weight: Tensor,
    attention_weight: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    norm_weight: Tensor | None = None,
    norm_bias: Tensor | None = None,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    backend: str | None = None,
    groups: int = 1,
    **geometry: Any,
) -> Tensor:
    """The receptive-field attention convolution; "reference" is the plain formula below. Running statistics are updated
    in training."""
    if backend == "reference":
        return plain_rfa_conv2d(
            input, feature_weight, attention_weight, weight, bias, norm_weight, norm_bias, running_mean, running_var,
            training, momentum, eps, groups, **geometry,
        )  # fmt: skip
    moments, given = None, {"running_mean": running_mean, "running_var": running_var}
    if training or running_mean is None:
        given = {}
        moments = patch_moments(input, tuple(weight.shape[2:]), **geometry, backend=backend)
    features, mean, var = fold_norm(
        feature_weight, norm_weight, norm_bias, **given, moments=moments, eps=eps, backend=backend
    )
    if training and running_mean is not None and running_var is not None and moments is not None:
        update_running(running_mean, running_var, mean, var, moments.detach()[0, 0], momentum)
    operands = Operands(tap_weight=attention_weight)
    return rf_conv2d(input, features, operands, weight, bias, **geometry, groups=groups, backend=backend)


def plain_rfa_conv2d(
    x: Tensor,
    feature_weight: Tensor,
    attention_weight: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
    groups: int,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
) -> Tensor:
    """The same as the paper writes it, sharing no code with the package: every tensor it names is there."""
    channels, (kh, kw) = x.shape[1], weight.shape[2:]
    stride, padding, dilation = ((v, v) if isinstance(v, int) else v for v in (stride, padding, dilation))
    taps, by_batch = kh * kw, training or running_mean is None

    # Generate: a depthwise convolution with one output for each tap, BatchNorm, ReLU.
    features = F.conv2d(x, feature_weight, None, stride, padding, dilation, groups=channels)
    norm = (norm_weight, norm_bias, by_batch, momentum, eps)
    features = torch.relu(F.batch_norm(features, running_mean, running_var, *norm))
    batch, _, h, w = features.shape
    features = features.view(batch, channels, taps, h, w)

    # Attend: each tap's share is a softmax over the taps of a weight times the mean of the receptive field.
    padded = F.pad(x, (padding[1], padding[1], padding[0], padding[0]))
    patches = F.unfold(padded, (kh, kw), dilation, 0, stride)
    mean = patches.view(batch, channels, taps, h, w).mean(2)
    logits = F.conv2d(mean, attention_weight.reshape(channels * taps, 1, 1, 1), groups=channels)
    attended = torch.softmax(logits.view(batch, channels, taps, h, w), dim=2) * features

    # Contract: tap (i, j) of position (y, x) goes to (y*kh + i, x*kw + j), where a kernel of that stride finds it.
    plane = attended.view(batch, channels, kh, kw, h, w).permute(0, 1, 4, 2, 5, 3)
    plane = plane.reshape(batch, channels, h * kh, w * kw)
    return F.conv2d(plane, weight, bias, stride=(kh, kw), groups=groups)


def call(
    shape: tuple[int, int, int, int] = (3, 4, 8, 8), kernel: tuple[int, int] = (3, 3), outputs: int = 6, **changes: Any
) -> dict[str, Any]:
    """Arguments of `rfa_conv2d`."""
    channels, taps = shape[1], kernel[0] * kernel[1]
    return {
        "input": torch.randn(shape),
        "feature_weight": torch.randn(channels * taps, 1, *kernel),
        "attention_weight": torch.randn(channels, taps),
        "weight": torch.randn(outputs, channels, *kernel),
        "running_mean": torch.randn(channels * taps),
        "running_var": torch.rand(channels * taps) + 0.1,
    } | changes


def cast(arguments: dict[str, Any], to: Any) -> dict[str, Any]:
    """The arguments with all tensors of another dtype or on another device."""
    return {name: value.to(to) if isinstance(value, Tensor) else value for name, value in arguments.items()}
