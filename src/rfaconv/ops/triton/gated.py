"""The dispatcher's operators for attentions of two gates on CUDA tensors, in inference (RFCBAMConv, RFCAConv).

Input and weight have one dtype: float32, bfloat16 or float16. The surveys and gates are float32, centres float64.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rfaconv.ops.epilogue import ACTS
from rfaconv.ops.shapes import map_like
from rfaconv.ops.triton import launch
from rfaconv.ops.triton.arguments import check, dense, problem_of
from rfaconv.ops.triton.kernels import gated as kernels
from rfaconv.ops.triton.launch import OPTIONS
from rfaconv.ops.triton.operators import packed, pieces, product
from rfaconv.ops.triton.problem import FEW_TAPS, TILE, Finish, Problem, element_tile
from rfaconv.ops.triton.table import filled_table

PLACES, LINES = 1, 2  # rfaconv.ops.gated.KINDS
ROWS = 3
"""Taps whose largest and mean a program of `survey_places` keeps for each element, if there are many: registers."""


def survey_features(
    x: Tensor, feature_weight: Tensor, feature_bias: Tensor, centre: Tensor | None, window: list[int], kind: int,
    count_ties: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Places: the largest and the mean feature over C, [B, T, h, w]. Lines: means [B, C, kh, h] and [B, C, kw, w]."""
    if count_ties:
        raise ValueError("the Triton kernels count no ties: they have no gradient of a survey")
    problem = problem_of(x, window)
    made = _coefficients(problem, x, feature_weight, feature_bias, centre)
    first, second = (x.new_empty(shape, dtype=torch.float32) for shape in _survey_shapes(problem, kind))
    if problem.pixels > 0:
        survey = _survey_places if kind == PLACES else _survey_lines
        survey(problem, x, made, first, second, centre is not None)
    return first, second, x.new_empty(0, dtype=torch.float32)


def contract_gated(
    x: Tensor, feature_weight: Tensor, feature_bias: Tensor, centre: Tensor | None, first: Tensor, second: Tensor,
    weight: Tensor, bias: Tensor | None, window: list[int], groups: int, kind: int, scale: Tensor | None,
    shift: Tensor | None, act: int,
) -> Tensor:  # fmt: skip
    """The convolution of the features times both gates; `operators.convolve_by_chunks` with another operand."""
    problem = problem_of(x, window, weight, groups)
    made = _coefficients(problem, x, feature_weight, feature_bias, centre)
    bias, scale, shift = dense(problem, x, bias=bias, scale=scale, shift=shift)
    shapes = _survey_shapes(problem, kind)
    if kind == PLACES:
        shapes = [(problem.batch, problem.channels), shapes[1]]
    for name, gate, shape in zip(("first", "second"), (first, second), shapes, strict=True):
        check(name, gate, shape, torch.float32, x)
    if act not in range(len(ACTS)):
        raise ValueError(f"act must be 0 to {len(ACTS) - 1}, got {act}")
    out = map_like(x, problem.outputs, problem.out_height, problem.out_width)
    kernel = packed(weight).view(groups, problem.group_outputs, -1)
    gates, end = (first.contiguous(), second.contiguous()), Finish(bias, scale, shift, act)
    for begin, count in pieces(problem, x):
        z = problem.operand(x, count, problem.group_channels)
        _generate(problem, x, made, gates, z, begin, centre is not None, kind)
        sums = product(kernel, z.flatten(1, 2), problem.last).flatten(0, 1)
        launch.finish(problem, sums, end, out, begin)
    return out


def _survey_shapes(problem: Problem, kind: int) -> list[tuple[int, ...]]:
    if kind not in (PLACES, LINES):
        raise ValueError(f"kind must be {PLACES} or {LINES}, got {kind}")
    batch, channels, (kh, kw) = problem.batch, problem.channels, problem.window[:2]
    if kind == PLACES:
        return [(batch, problem.taps, problem.out_height, problem.out_width)] * 2
    return [(batch, channels, kh, problem.out_height), (batch, channels, kw, problem.out_width)]


def _coefficients(problem: Problem, x: Tensor, weight: Tensor, bias: Tensor, centre: Tensor | None) -> Tensor:
    """The tables, without attention."""
    channels, taps = problem.channels, problem.taps
    weight, bias, centre = dense(problem, x, feature_weight=weight, norm_bias=bias, centre=centre)
    filters, offset = weight.view(channels, taps, taps), bias.view(channels, taps)
    if centre is None:
        return filled_table(problem.groups, taps, filters, offset)
    rounded = centre.float()
    offset = offset + (filters.double() @ (rounded.double() - centre).unsqueeze(2)).squeeze(2)
    return filled_table(problem.groups, taps, filters, offset, rounded)


def _survey_places(problem: Problem, x: Tensor, made: Tensor, first: Tensor, second: Tensor, centred: bool) -> None:
    tile, rows = element_tile(problem)._replace(q=1), problem.taps if problem.taps <= FEW_TAPS else ROWS
    grid = math.ceil(problem.pixels / (tile.q * tile.p)), math.ceil(problem.taps / rows)
    kernels.survey_places[grid](
        x, made, first, second, problem.pixels, problem.channels, *problem.planes, *x.stride(),
        WINDOW=problem.window, CENTRED=centred, LAST=problem.last, ROWS=rows,
        Q=tile.q, P=tile.p, num_warps=tile.warps, **OPTIONS,
    )  # fmt: skip


def _survey_lines(problem: Problem, x: Tensor, made: Tensor, first: Tensor, second: Tensor, centred: bool) -> None:
    p = 16 if problem.taps <= 25 else 8  # one value a thread, which then keeps the table in registers
    tiles = math.ceil(problem.channels / TILE)
    for means, rows in ((first, True), (second, False)):
        lines = problem.out_height if rows else math.ceil(problem.out_width / p)
        kernels.survey_lines[(problem.batch * lines, tiles)](
            x, made, means, problem.channels, *problem.planes, *x.stride(),
            WINDOW=problem.window, CENTRED=centred, LAST=problem.last, ROWS=rows, P=p,
            num_warps=p // 2, **OPTIONS,
        )  # fmt: skip


def _generate(
    problem: Problem, x: Tensor, made: Tensor, gates: tuple[Tensor, Tensor], z: Tensor, begin: int, centred: bool,
    kind: int,
) -> None:  # fmt: skip
    """Fill z [groups, T, group channels, n], of the n pixels from `begin` on."""
    tile = element_tile(problem)
    kernels.generate_gated[launch.grid_over(z, tile)](
        x, made, *gates, z, begin, begin + z.shape[3], problem.channels, problem.group_channels,
        *problem.planes, *x.stride(), *z.stride(),
        WINDOW=problem.window, CENTRED=centred, PLACES=kind == PLACES, LAST=problem.last,
        Q=tile.q, P=tile.p, num_warps=tile.warps, **OPTIONS,
    )  # fmt: skip
