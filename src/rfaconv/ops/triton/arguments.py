"""Whether an operator's arguments are what the kernels will read: they look at no shape themselves."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rfaconv.ops.triton.problem import Problem

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
"""Of input, weight and the output's gradient; all else is float32, or float64 where it is a sum over the batch."""


def problem_of(x: Tensor, window: list[int], weight: Tensor | None = None, groups: int = 1) -> Problem:
    """The sizes of a call; a ValueError names what does not fit."""
    if x.dtype not in DTYPES:
        raise ValueError(f"the Triton kernels compute in float32, bfloat16 and float16, not in {x.dtype}")
    if weight is None:
        return Problem.of(x, window)
    problem = Problem.of(x, window, weight.shape[0], groups)
    check("weight", weight, (problem.outputs, problem.group_channels, *window[:2]), x.dtype, x)
    return problem


def dense(problem: Problem, x: Tensor, **tensors: Tensor | None) -> list[Any]:
    """The tensors in contiguous memory; a ValueError names one whose shape, dtype or device does not fit."""
    channels, taps, outputs = problem.channels, problem.taps, (problem.outputs,)
    features = (channels * taps,)
    sums = {
        "moments": (channels, taps + taps * taps),
        "sum": (channels, taps),
        "outer": (channels, taps, taps),
        "centre": (channels, taps),
    }
    shapes: dict[str, tuple[int, ...]] = {
        "feature_weight": (*features, 1, *problem.window[:2]),
        "attention_weight": (channels, taps),
        **dict.fromkeys(("norm_weight", "norm_bias", "mean", "var"), features),
        **dict.fromkeys(("bias", "scale", "shift"), outputs),
        **sums,
    }
    for name, tensor in tensors.items():
        if tensor is not None:
            check(name, tensor, shapes[name], torch.float64 if name in sums else torch.float32, x)
    return [None if tensor is None else tensor.contiguous() for tensor in tensors.values()]


def check_map(name: str, tensor: Tensor, problem: Problem, x: Tensor, outputs: bool = False) -> None:
    """A ValueError unless the tensor has x's shape, or the output's, and x's dtype."""
    size = (problem.outputs, problem.out_height, problem.out_width) if outputs else x.shape[1:]
    check(name, tensor, (problem.batch, *size), x.dtype, x)


def check_statistics(mean: Tensor | None, var: Tensor | None, moments: Tensor | None, count: int) -> None:
    """A ValueError unless the statistics are given one way or the other."""
    if moments is None and (mean is None or var is None):
        raise ValueError("mean and var, or moments, must be given")
    if moments is not None and count < 1:
        raise ValueError(f"count must be at least 1, got {count}")


def check(name: str, tensor: Tensor, shape: tuple[int, ...], dtype: torch.dtype, x: Tensor) -> None:
    if tuple(tensor.shape) != shape or tensor.dtype != dtype or tensor.device != x.device:
        raise ValueError(
            f"{name} must be {list(shape)} of {dtype} on {x.device}, "
            f"is {list(tensor.shape)} of {tensor.dtype} on {tensor.device}"
        )
