"""Calls of the kernels: from tensors to grids and arguments."""

from __future__ import annotations

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from rfaconv.ops.triton.kernels import backward, forward, norm, sums
from rfaconv.ops.triton.table import empty_table
from rfaconv.ops.triton.problem import (
    TILE,
    Chunk,
    Finish,
    Problem,
    Tile,
    element_tile,
    fused_tile,
    gradient_tile,
    sum_tile,
)

A_SPLIT, MOST_SPLITS = 4096, 64
"""Pixels whose sums one program makes, until there are so many programs a channel."""

MOST_SUMS = {torch.float64: 32, torch.float32: 96}
"""How many sums a lane of `add_products` holds, if one row of factors does not need more: registers."""

OPTIONS: dict[str, Any] = {"num_stages": 2, "enable_fp_fusion": True}


def coefficients(
    feature_weight: Tensor, attention_weight: Tensor, norm_weight: Tensor | None, norm_bias: Tensor | None,
    mean: Tensor | None, var: Tensor | None, moments: Tensor | None, count: int, eps: float, groups: int,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """What the other kernels want of a call's parameters; the features' batch mean and variance, or nothing."""
    channels, taps = attention_weight.shape
    made = empty_table(attention_weight, channels, groups, taps)
    found = 0 if moments is None else channels * taps
    batch_mean, batch_var = made.new_empty(found), made.new_empty(found)
    norm.prepare[(taps, channels)](
        feature_weight, attention_weight, norm_weight, norm_bias, mean, var, moments, count, eps,
        made, batch_mean, batch_var, channels // groups,
        T=taps, PADDED=_padded(taps), num_warps=1, **OPTIONS,
    )  # fmt: skip
    return made, batch_mean, batch_var


def convolve(
    problem: Problem, x: Tensor, made: Tensor, weight: Tensor, end: Finish, out: Tensor, centred: bool, precision: str
) -> None:
    """Fill `out`; weight is `tiled`."""
    tile, outputs = fused_tile(problem)
    tiles = math.ceil(problem.pixels / (tile.q * tile.p))
    forward.convolve[(tiles, math.ceil(problem.group_outputs / outputs), problem.groups)](
        x, made, weight, end.bias, end.scale, end.shift, out,
        problem.pixels, problem.channels, problem.group_channels, problem.group_outputs, *problem.planes,
        *x.stride(), *out.stride(),
        WINDOW=problem.window, CENTRED=centred, ACT=end.act, LAST=problem.last, PRECISION=precision,
        Q=tile.q, P=tile.p, O=outputs, num_warps=tile.warps, **OPTIONS,
    )  # fmt: skip


def generate(
    problem: Problem, x: Tensor, made: Tensor, z: Tensor, begin: int, first_channel: int, centred: bool, attend: bool
) -> None:
    """Fill z [groups, T, some channels, n], of the n pixels from `begin` on."""
    tile = element_tile(problem)
    forward.generate[grid_over(z, tile)](
        x, made, z, begin, begin + z.shape[3], problem.channels, problem.group_channels, z.shape[2], first_channel,
        *problem.planes, *x.stride(), *z.stride(),
        WINDOW=problem.window, CENTRED=centred, ATTEND=attend, LAST=problem.last,
        Q=tile.q, P=tile.p, num_warps=tile.warps, **OPTIONS,
    )  # fmt: skip


def finish(problem: Problem, sums: Tensor, end: Finish, out: Tensor, begin: int) -> None:
    """Write sums [O, n], of the n pixels from `begin` on, through the epilogue into `out`."""
    outputs, count = sums.shape
    o, p = (64, 16) if problem.last else (16, 64)
    forward.finish[(math.ceil(count / p), math.ceil(outputs / o))](
        sums, end.bias, end.scale, end.shift, out, begin, begin + count, outputs, problem.out_height, problem.out_width,
        *sums.stride(), *out.stride(),
        ACT=end.act, O=o, P=p, num_warps=4, **OPTIONS,
    )  # fmt: skip


def differentiate(
    problem: Problem, x: Tensor, made: Tensor, grad: Tensor, z: Tensor, patches: Tensor | None, chunk: Chunk,
    centred: bool,
) -> Tensor:  # fmt: skip
    """Fill z and patches, change grad to that of the features; returns attention_weight's gradient [C, T] in float64.

    grad, z and patches are [groups, T, some channels, n] of the chunk.
    """
    tile = gradient_tile(problem)
    grid = grid_over(z, tile)
    begin = chunk.first_image * problem.plane
    parts = torch.zeros(grid[0], problem.taps, problem.channels, device=x.device)
    backward.differentiate[grid](
        x, made, grad, z, patches, parts, begin, begin + z.shape[3], problem.channels, problem.group_channels,
        chunk.some_channels, chunk.first_channel, *problem.planes, *x.stride(), *z.stride(),
        WINDOW=problem.window, CENTRED=centred, LAST=problem.last,
        Q=tile.q, P=tile.p, num_warps=tile.warps, **OPTIONS,
    )  # fmt: skip
    return parts.sum(0, dtype=torch.float64).T / problem.taps


def gather(problem: Problem, patches: Tensor, out: Tensor, chunk: Chunk, add: bool) -> None:
    """Sum what lies at the same place of x in the chunk's patches, into (or, with `add`, onto) `out`."""
    tile, channels = sum_tile(problem)
    tiles = math.ceil(chunk.images * problem.height * problem.width / tile.p)
    backward.gather[(tiles, math.ceil(chunk.some_channels / channels), problem.groups)](
        patches, out, chunk.first_image, chunk.images, problem.group_channels, chunk.some_channels,
        chunk.first_channel, *problem.planes, *patches.stride(), *out.stride(),
        WINDOW=problem.window, ADD=add, P=tile.p, C=channels, num_warps=tile.warps, **OPTIONS,
    )  # fmt: skip


def add_products(
    problem: Problem, x: Tensor, factors: Tensor | None, made: Tensor | None, chunk: Chunk, dtype: torch.dtype
) -> Tensor:
    """Sums of factors, and of factors times patches, over the chunk's pixels: [C, T + T*T] in float64.

    Args:
        factors: [groups, T, some channels, n], or None for the patches themselves.
        made: the tables, whose means are taken off the patches; or None.
        dtype: in which a lane adds up.
    """
    (tile, channels), taps = sum_tile(problem), problem.taps
    pixels, begin = chunk.images * problem.plane, chunk.first_image * problem.plane
    rows = max(1, min(taps, MOST_SUMS[dtype] // (taps + 1)))
    a_split = math.ceil(pixels / min(MOST_SPLITS, math.ceil(pixels / A_SPLIT)))
    a_split = math.ceil(a_split / tile.p) * tile.p
    splits = math.ceil(pixels / a_split)
    parts = torch.zeros(splits, problem.channels, taps + taps * taps, device=x.device, dtype=torch.float64)
    strides = (0, 0, 0, 0) if factors is None else factors.stride()
    sums.add_products[(splits, math.ceil(taps / rows), math.ceil(chunk.some_channels / channels) * problem.groups)](
        x, factors, made, parts, begin, begin + pixels, problem.channels, problem.group_channels,
        chunk.some_channels, chunk.first_channel, a_split, *problem.planes, *x.stride(), *strides,
        WINDOW=problem.window, ROWS=rows, P=tile.p, C=channels, DTYPE=getattr(tl, str(dtype).removeprefix("torch.")),
        num_warps=tile.warps, **OPTIONS,
    )  # fmt: skip
    return parts.sum(0)


def differentiate_norm(
    feature_weight: Tensor, norm_weight: Tensor | None, mean: Tensor | None, var: Tensor | None,
    moments: Tensor | None, count: int, eps: float, sum_: Tensor, outer: Tensor,
) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor]:  # fmt: skip
    """Gradients of feature_weight, norm_weight and norm_bias; the coefficients of what goes back through the batch."""
    channels, taps = sum_.shape
    grads = (
        torch.empty_like(feature_weight),
        feature_weight.new_empty(channels * taps),
        feature_weight.new_empty(channels * taps),
    )
    scales, through_var = torch.empty_like(sum_), torch.empty_like(sum_)
    meta = {"T": taps, "PADDED": _padded(taps), "num_warps": 1, **OPTIONS}
    norm.differentiate_norm[(taps, channels)](
        feature_weight, norm_weight, mean, var, moments, count, eps, sum_, outer, *grads, scales, through_var, **meta
    )
    made = empty_table(feature_weight, 0 if moments is None else channels, 1, taps)
    if moments is not None:
        norm.correction[(taps, channels)](
            feature_weight, moments, count, sum_, scales, through_var, made, **meta
        )
    return grads, made


def grid_over(z: Tensor, tile: Tile) -> tuple[int, int, int]:
    """Programs (pixel tile, channel tile, group) over z [groups, T, some channels, n]."""
    return math.ceil(z.shape[3] / (tile.q * tile.p)), math.ceil(z.shape[2] / TILE), z.shape[0]


def _padded(taps: int) -> int:
    return max(2, triton.next_power_of_2(taps))
