"""Calls of the kernels: from tensors to grids and arguments."""

from __future__ import annotations

import math
from typing import Any

import torch
import triton.language as tl
from torch import Tensor

from rfaconv.ops.triton.kernels import backward, forward, sums
from rfaconv.ops.triton.problem import (
    FEW_TAPS,
    TILE,
    Chunk,
    Finish,
    Problem,
    Tile,
    element_tile,
    fused_tile,
    gradient_tile,
)

A_SEGMENT = 8
"""Rows of x that a program of `gather` walks."""

LONGEST_EXACT = 64
"""Products of bfloat16, of 16 bits, whose sum float32 holds exactly where they are of one size; rows of a segment."""

WARPS, MOST_SPLITS = 4096, 256
"""Programs of one warp for `add_products`, and how many may share a channel: their sums are added afterwards."""

MOST_SUMS = 96
"""How many sums a lane of it holds where there are more than FEW_TAPS taps: registers, float64 takes two."""

OPTIONS: dict[str, Any] = {"num_stages": 2, "enable_fp_fusion": True}


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
    p, channels = (8, TILE) if problem.last else (128, 1)
    columns, segments = math.ceil(chunk.images * problem.width / p), math.ceil(problem.height / A_SEGMENT)
    sums.gather[(columns * segments, math.ceil(chunk.some_channels / channels), problem.groups)](
        patches, out, chunk.first_image, chunk.images, A_SEGMENT, problem.group_channels, chunk.some_channels,
        chunk.first_channel, *problem.planes, *patches.stride(), *out.stride(),
        WINDOW=problem.window, ADD=add, P=p, C=channels, num_warps=4, **OPTIONS,
    )  # fmt: skip


def add_products(
    problem: Problem, x: Tensor, factors: Tensor | None, made: Tensor | None, chunk: Chunk, exact: bool
) -> Tensor:
    """Sums of factors, and of factors times patches, over the chunk's pixels: [C, T + T*T] in float64.

    Args:
        factors: [groups, T, some channels, n], or None for the patches themselves.
        made: the tables, whose means are taken off the patches; or None.
        exact: add up in float64 (bfloat16 only what is longer than a segment: its products are exact in float32, and
            so are a segment's sums, but for values of different size); else a lane adds up in float32.
    """
    taps, last = problem.taps, problem.last
    segment = min(problem.out_height, LONGEST_EXACT)
    total = tl.float64 if exact else tl.float32
    dtype = tl.float32 if x.dtype == torch.bfloat16 else total
    rows = taps if taps <= FEW_TAPS else max(1, MOST_SUMS // (taps + 1) // (2 if exact else 1))
    # A warp that reduces little at its end: two columns of 16 channels, or 32 columns of one.
    p, channels = (2, TILE) if last else (32, 1)
    tiles = math.ceil(chunk.some_channels / channels) * problem.groups
    pieces = math.ceil(chunk.images * problem.out_width / p) * math.ceil(problem.out_height / segment)
    units = math.ceil(pieces / min(MOST_SPLITS, max(1, WARPS // tiles)))
    splits = math.ceil(pieces / units)
    parts = torch.zeros(splits, problem.channels, taps + taps * taps, device=x.device, dtype=torch.float64)
    strides = (0, 0, 0, 0) if factors is None else factors.stride()
    sums.add_products[(splits, math.ceil(taps / rows), tiles)](
        x, factors, made, parts, chunk.first_image, chunk.images, units, segment, problem.channels,
        problem.group_channels, chunk.some_channels, chunk.first_channel, *problem.planes, *x.stride(), *strides,
        WINDOW=problem.window, ROWS=rows, P=p, C=channels, DTYPE=dtype, TOTAL=total, num_warps=1, **OPTIONS,
    )  # fmt: skip
    return parts.sum(0)


def grid_over(z: Tensor, tile: Tile) -> tuple[int, int, int]:
    """Programs (pixel tile, channel tile, group) over z [groups, T, some channels, n]."""
    return math.ceil(z.shape[3] / (tile.q * tile.p)), math.ceil(z.shape[2] / TILE), z.shape[0]
