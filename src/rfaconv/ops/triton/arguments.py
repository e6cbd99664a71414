"""Whether an operator's arguments are what the kernels will read: they look at no shape themselves."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from rfaconv.ops.kernels import DTYPES
from rfaconv.ops.triton.problem import Problem
from rfaconv.ops.triton.table import table_of
from rfaconv.ops.window import Window


class Features(NamedTuple):
    """A call's features: float64 weight, bias and center (None: there is none), and the table the kernels read."""

    problem: Problem
    weight: Tensor
    center: Tensor | None
    table: Tensor

    @property
    def centred(self) -> bool:
        return self.center is not None


def features_of(
    x: Tensor, weight: Tensor, bias: Tensor, center: Tensor, stride: Any, padding: Any, dilation: Any,
    kernel: Tensor | None = None, groups: int = 1, tap_weight: Tensor | None = None,
) -> Features:  # fmt: skip
    """Checked; a ValueError names what does not fit. kernel: the contraction's weight [O, C/groups, kh, kw]."""
    if x.dtype not in DTYPES:
        raise ValueError(f"the Triton kernels compute in float32, bfloat16 and float16, not in {x.dtype}")
    if weight.dim() != 4 or (kernel is not None and kernel.dim() != 4):
        raise ValueError("feature_weight and weight must have 4 dimensions")
    kh, kw = weight.shape[2:]
    problem = Problem.of(
        x, Window((kh, kw), stride, padding, dilation), 1 if kernel is None else kernel.shape[0], groups
    )
    channels, taps, double = problem.channels, problem.taps, torch.float64
    check("feature_weight", weight, (channels * taps, 1, kh, kw), double, x)
    check("feature_bias", bias, (channels * taps,), double, x)
    check("center", center, (channels if center.shape[:1] != (0,) else 0, taps), double, x)
    if kernel is not None:
        check("weight", kernel, (problem.outputs, problem.group_channels, kh, kw), x.dtype, x)
    if tap_weight is not None:
        check("tap_weight", tap_weight, (channels, taps), torch.float32, x)
    there = center if center.shape[0] else None
    filters, offsets = weight.reshape(channels, taps, taps), bias.view(channels, taps)
    return Features(problem, weight, there, table_of(groups, taps, filters, offsets, there, tap_weight))


def gates_of(
    x: Tensor, problem: Problem, channel_gate: Tensor | None, spatial_gate: Tensor | None, row_gate: Tensor | None,
    col_gate: Tensor | None,
) -> tuple[tuple[Tensor, Tensor], bool]:  # fmt: skip
    """The two gates, and whether they are those of channels and places."""
    names, given = ("channel_gate", "spatial_gate"), (channel_gate, spatial_gate)
    shapes: list[tuple[int, ...]] = [(problem.batch, problem.channels), pooled_shapes(problem, True)[1]]
    places = channel_gate is not None
    if not places:
        names, given, shapes = ("row_gate", "col_gate"), (row_gate, col_gate), pooled_shapes(problem, False)
    found = []
    for name, gate, shape in zip(names, given, shapes, strict=True):
        if gate is None:
            raise ValueError("give tap_weight, or channel_gate and spatial_gate, or row_gate and col_gate")
        check(name, gate, shape, torch.float32, x)
        found.append(gate.contiguous())
    return (found[0], found[1]), places


def pooled_shapes(problem: Problem, over_channels: bool) -> list[tuple[int, ...]]:
    """Of what `pool_features` returns."""
    batch, channels, (kh, kw) = problem.batch, problem.channels, problem.window[:2]
    if over_channels:
        return [(batch, problem.taps, problem.out_height, problem.out_width)] * 2
    return [(batch, channels, kh, problem.out_height), (batch, channels, kw, problem.out_width)]


def check(name: str, tensor: Tensor, shape: tuple[int, ...], dtype: torch.dtype, x: Tensor) -> None:
    if tuple(tensor.shape) != shape or tensor.dtype != dtype or tensor.device != x.device:
        raise ValueError(
            f"{name} must be {list(shape)} of {dtype} on {x.device}, "
            f"is {list(tensor.shape)} of {tensor.dtype} on {tensor.device}"
        )
