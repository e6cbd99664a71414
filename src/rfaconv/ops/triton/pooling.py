"""`pool_features` and the operand of gated convolutions by Triton (RFCBAMConv, RFCAConv), in inference."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from rfaconv.ops.triton import launch
from rfaconv.ops.triton.arguments import Features, features_of, pooled_shapes
from rfaconv.ops.triton.kernels import gated as kernels
from rfaconv.ops.triton.launch import OPTIONS
from rfaconv.ops.triton.problem import FEW_TAPS, TILE, element_tile

ROWS = 3
"""Taps whose largest and mean a program of `survey_places` keeps for each element, if there are many: registers."""


def pool_features(
    x: Tensor, feature_weight: Tensor, feature_bias: Tensor, center: Tensor, stride: Any, padding: Any, dilation: Any,
    over_channels: bool, count_ties: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Largest and mean feature over C, [B, T, h, w]; or means [B, C, kh, h] and [B, C, kw, w]."""
    if count_ties and over_channels:
        raise ValueError("the Triton kernels count no ties: they have no gradient of pooled features")
    features = features_of(x, feature_weight, feature_bias, center, stride, padding, dilation)
    problem = features.problem
    first, second = (x.new_empty(shape, dtype=torch.float32) for shape in pooled_shapes(problem, over_channels))
    if problem.pixels > 0:
        (_pool_channels if over_channels else _pool_lines)(features, x, first, second)
    return first, second, x.new_empty(0, dtype=torch.float32)


def _pool_channels(features: Features, x: Tensor, first: Tensor, second: Tensor) -> None:
    problem = features.problem
    tile, rows = element_tile(problem)._replace(q=1), problem.taps if problem.taps <= FEW_TAPS else ROWS
    grid = math.ceil(problem.pixels / (tile.q * tile.p)), math.ceil(problem.taps / rows)
    kernels.survey_places[grid](
        x, features.table, first, second, problem.pixels, problem.channels, *problem.planes, *x.stride(),
        WINDOW=problem.window, CENTRED=features.centred, LAST=problem.last, ROWS=rows,
        Q=tile.q, P=tile.p, num_warps=tile.warps, **OPTIONS,
    )  # fmt: skip


def _pool_lines(features: Features, x: Tensor, first: Tensor, second: Tensor) -> None:
    problem = features.problem
    p = 16 if problem.taps <= 25 else 8  # one value a thread, which then keeps the table in registers
    tiles = math.ceil(problem.channels / TILE)
    for means, rows in ((first, True), (second, False)):
        lines = problem.out_height if rows else math.ceil(problem.out_width / p)
        kernels.survey_lines[(problem.batch * lines, tiles)](
            x, features.table, means, problem.channels, *problem.planes, *x.stride(),
            WINDOW=problem.window, CENTRED=features.centred, LAST=problem.last, ROWS=rows, P=p,
            num_warps=p // 2, **OPTIONS,
        )  # fmt: skip


def generate_gated(
    features: Features, x: Tensor, gates: tuple[Tensor, Tensor], z: Tensor, begin: int, places: bool
) -> None:
    """Fill z [groups, T, group channels, n], of the n pixels from `begin` on, with the features times both gates."""
    problem = features.problem
    tile = element_tile(problem)
    kernels.generate_gated[launch.grid_over(z, tile)](
        x, features.table, *gates, z, begin, begin + z.shape[3], problem.channels, problem.group_channels,
        *problem.planes, *x.stride(), *z.stride(),
        WINDOW=problem.window, CENTRED=features.centred, PLACES=places, LAST=problem.last,
        Q=tile.q, P=tile.p, num_warps=tile.warps, **OPTIONS,
    )  # fmt: skip
