"""Small random calls of `rfa_conv2d`, which the tests of every backend change one thing of."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


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
