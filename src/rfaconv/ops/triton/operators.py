"""The dispatcher's operators on CUDA tensors (ops/operators/ has their schemas), but those of pooling.py and fold.py.

Input, weight and gradient of the output have one dtype: float32, bfloat16 or float16. Operands are float32; features,
moments and sums over the batch float64. Features and attention are computed in float32, products add up in float32.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rfaconv.ops.epilogue import ACTS
from rfaconv.ops.kernels import DTYPES
from rfaconv.ops.operators.definition import map_like
from rfaconv.ops.triton import launch
from rfaconv.ops.triton.arguments import Features, check, features_of, gates_of
from rfaconv.ops.triton.pooling import generate_gated
from rfaconv.ops.triton.precision import convolution_allows_tf32, products_as_convolutions
from rfaconv.ops.triton.problem import (
    JOINED,
    MOST_FUSED_OUTPUTS,
    MOST_FUSED_TAPS,
    OPERAND_BYTES,
    TILE,
    Chunk,
    Finish,
    Problem,
    chunks,
    gradient_bytes,
)
from rfaconv.ops.triton.table import table_of
from rfaconv.ops.window import Window

Maybe = Tensor | None


def patch_moments(x: Tensor, kernel_size: Any, stride: Any, padding: Any, dilation: Any) -> Tensor:
    """How many patches x has, the sums of their taps and of products of these: [C, 1 + T + T*T] in float64."""
    problem = _problem(x, kernel_size, stride, padding, dilation)
    count = x.new_full((problem.channels, 1), problem.pixels, dtype=torch.float64)
    if problem.pixels == 0:
        return F.pad(count, (0, problem.taps * (problem.taps + 1)))
    whole = Chunk(0, problem.batch, 0, problem.group_channels)
    return torch.cat([count, launch.add_products(problem, x, None, None, whole, exact=True)], 1)


def patch_moments_backward(
    grad: Tensor, x: Tensor, kernel_size: Any, stride: Any, padding: Any, dilation: Any
) -> Tensor:
    """The gradient of x from that of its moments. A product's share goes to both its factors."""
    problem = _problem(x, kernel_size, stride, padding, dilation)
    channels, taps = problem.channels, problem.taps
    check("grad", grad, (channels, 1 + taps + taps * taps), torch.float64, x)
    _, first, second = grad.split([1, taps, taps * taps], 1)
    second = second.reshape(channels, taps, taps)
    made = table_of(1, taps, second + second.mT, first)
    grad_x = map_like(x, channels, problem.height, problem.width)
    for chunk in _chunks(problem, x):
        patches = problem.operand(x, chunk.images * problem.plane, chunk.some_channels)
        begin = chunk.first_image * problem.plane
        launch.generate(problem, x, made, patches, begin, chunk.first_channel, centred=False, attend=False)
        launch.gather(problem, patches, grad_x, chunk, add=False)
    return grad_x if problem.pixels else grad_x.zero_()


def rf_conv2d(
    x: Tensor, feature_weight: Tensor, feature_bias: Tensor, center: Tensor, tap_weight: Maybe, channel_gate: Maybe,
    spatial_gate: Maybe, row_gate: Maybe, col_gate: Maybe, weight: Tensor, bias: Maybe, stride: Any, padding: Any,
    dilation: Any, groups: int, scale: Maybe, shift: Maybe, act: int,
) -> Tensor:  # fmt: skip
    """The features, weighed and contracted."""
    features = features_of(
        x, feature_weight, feature_bias, center, stride, padding, dilation, weight, groups, tap_weight
    )
    problem = features.problem
    for name, value in (("bias", bias), ("scale", scale), ("shift", shift)):
        if value is not None:
            check(name, value, (problem.outputs,), torch.float32, x)
    if act not in range(len(ACTS)):
        raise ValueError(f"act must be 0 to {len(ACTS) - 1}, got {act}")
    dense = [None if value is None else value.contiguous() for value in (bias, scale, shift)]
    end = Finish(dense[0], dense[1], dense[2], act)
    gates = None if tap_weight is not None else gates_of(x, problem, channel_gate, spatial_gate, row_gate, col_gate)
    out = map_like(x, problem.outputs, problem.out_height, problem.out_width)
    if problem.pixels == 0:
        return out
    if gates is None and fuses(problem, x.dtype):
        precision = "tf32" if convolution_allows_tf32() else "ieee"
        launch.convolve(problem, x, features.table, tiled(problem, weight), end, out, features.centred, precision)
        return out
    kernel = packed(weight).view(problem.groups, problem.group_outputs, -1)
    for begin, count in pieces(problem, x):
        z = problem.operand(x, count, problem.group_channels)
        if gates is None:
            launch.generate(problem, x, features.table, z, begin, 0, features.centred, attend=True)
        else:
            generate_gated(features, x, gates[0], z, begin, places=gates[1])
        sums = product(kernel, z.flatten(1, 2), problem.last).flatten(0, 1)
        launch.finish(problem, sums, end, out, begin)
    return out


def fuses(problem: Problem, dtype: torch.dtype) -> bool:
    """Whether to generate and multiply in one kernel rather than leave the product to cuBLAS. Not tuned.

    One program must make all outputs of a group, or the operand is generated several times; and products of float32
    without TF32 have no tensor cores, where Triton's are slow. The kernel for 7x7 takes minutes to compile.
    """
    if problem.taps > MOST_FUSED_TAPS or problem.group_outputs > MOST_FUSED_OUTPUTS:
        return False
    return dtype != torch.float32 or convolution_allows_tf32()


def pieces(problem: Problem, x: Tensor) -> Iterator[tuple[int, int]]:
    """First pixel and number of pixels of each chunk whose operand stays in the second cache."""
    a_pixel = problem.taps * problem.channels * x.element_size()
    most = max(64, OPERAND_BYTES // a_pixel // 64 * 64)
    for begin in range(0, problem.pixels, most):
        yield begin, min(most, problem.pixels - begin)


def rf_conv2d_backward(
    grad_out: Tensor, x: Tensor, feature_weight: Tensor, feature_bias: Tensor, center: Tensor, tap_weight: Maybe,
    channel_gate: Maybe, spatial_gate: Maybe, row_gate: Maybe, col_gate: Maybe, weight: Tensor, stride: Any,
    padding: Any, dilation: Any, groups: int, input_too: bool,
) -> tuple[Tensor, ...]:  # fmt: skip
    """Gradients of input, feature_weight, feature_bias, center, weight and tap_weight; gates have none here."""
    if tap_weight is None:
        raise ValueError("the Triton kernels have no gradients for an attention of two gates")
    features = features_of(
        x, feature_weight, feature_bias, center, stride, padding, dilation, weight, groups, tap_weight
    )
    problem = features.problem
    check("grad_out", grad_out, (problem.batch, problem.outputs, problem.out_height, problem.out_width), x.dtype, x)
    taps, channels, made, centred = problem.taps, problem.channels, features.table, features.centred
    kernel = packed(weight).view(groups, problem.group_outputs, taps, problem.group_channels)
    grad_kernel = torch.zeros_like(kernel, dtype=torch.float32)
    grad_attention = torch.zeros(channels, taps, device=x.device, dtype=torch.float64)
    products = torch.zeros(channels, taps + taps * taps, device=x.device, dtype=torch.float64)
    grad_x = map_like(x, channels, problem.height, problem.width) if input_too else x.new_empty(0)
    for chunk in _chunks(problem, x):
        last = chunk.first_channel + chunk.some_channels
        upstream = grad_out[chunk.first_image : chunk.first_image + chunk.images].transpose(0, 1)
        upstream = upstream.reshape(groups, problem.group_outputs, -1)
        some_kernel = kernel[..., chunk.first_channel : last].flatten(2)
        grad_z = product(some_kernel.mT, upstream, problem.last).unflatten(1, (taps, -1))
        z = problem.operand(x, upstream.shape[2], chunk.some_channels)
        patches = torch.empty_like(z) if input_too else None
        grad_attention += launch.differentiate(problem, x, made, grad_z, z, patches, chunk, centred)
        some_grad = product(upstream, z.flatten(1, 2).mT, False).unflatten(2, (taps, -1))
        grad_kernel[..., chunk.first_channel : last] += some_grad
        products += launch.add_products(problem, x, grad_z, made if centred else None, chunk, exact=False)
        if patches is not None:
            launch.gather(problem, patches, grad_x, chunk, add=False)
    if input_too and problem.pixels == 0:
        grad_x.zero_()
    to_features = _of_features(features, products)
    to_kernel = grad_kernel.transpose(2, 3).reshape(weight.shape).to(weight.dtype).contiguous()
    return grad_x, *to_features, to_kernel, grad_attention.float(), x.new_empty(0, dtype=torch.float32)


def _of_features(features: Features, products: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of weight, bias and center, from S and D with the patches taken from the rounded center."""
    taps, center = features.problem.taps, features.center
    total, outer = products[:, :taps], products[:, taps:].view(-1, taps, taps)
    to_center = total.new_empty(0, taps)
    if center is not None:
        outer = outer - total.unsqueeze(2) * (center - center.float().double()).unsqueeze(1)
        to_center = -(total.unsqueeze(1) @ features.weight.view_as(outer)).squeeze(1)
    return outer.reshape(features.weight.shape).contiguous(), total.reshape(-1).contiguous(), to_center


def _problem(x: Tensor, kernel_size: Any, stride: Any, padding: Any, dilation: Any) -> Problem:
    if x.dtype not in DTYPES:
        raise ValueError(f"the Triton kernels compute in float32, bfloat16 and float16, not in {x.dtype}")
    return Problem.of(x, Window(kernel_size, stride, padding, dilation))


def product(left: Tensor, right: Tensor, last: bool) -> Tensor:
    """left @ right, of matrices [groups, ., .]; with `last`, columns of the result are neighbours in memory."""
    with products_as_convolutions():
        return torch.bmm(right.mT, left.mT).mT if last else torch.bmm(left, right)


def _chunks(problem: Problem, x: Tensor) -> list[Chunk]:
    return [*chunks(problem, x.element_size(), gradient_bytes(x))] if problem.pixels > 0 else []


def packed(weight: Tensor) -> Tensor:
    """[O, C/groups, kh, kw] as [O, T, C/groups]."""
    return weight.flatten(2).transpose(1, 2).contiguous()


def tiled(problem: Problem, weight: Tensor) -> Tensor:
    """[O, C/groups, kh, kw] as [O, tiles of channels, T * TILE], in the order in which `convolve` joins its operand.

    Of each tile first T // JOINED times TILE channels of JOINED taps, then each tap that is left; zeros for channels
    that are not there.
    """
    weight = F.pad(weight.flatten(2), (0, 0, 0, -problem.group_channels % TILE)).unflatten(1, (-1, TILE))
    joined = problem.taps // JOINED * JOINED
    first = weight[..., :joined].unflatten(3, (-1, JOINED)).transpose(2, 3)
    return torch.cat([first.flatten(2), weight[..., joined:].transpose(2, 3).flatten(2)], 2)
