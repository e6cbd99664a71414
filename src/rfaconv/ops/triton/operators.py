"""The dispatcher's operators for RFAConv on CUDA tensors (ops/operators.py has the schemas).

Input, weight and gradient of the output have one dtype: float32, bfloat16 or float16. All else is float32, moments and
sums over the batch float64. Features and attention are computed in float32, products add up in float32.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from rfaconv.ops.epilogue import ACTS
from rfaconv.ops.shapes import map_like
from rfaconv.ops.triton import launch
from rfaconv.ops.triton.arguments import check_map, check_statistics, dense, problem_of
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
from rfaconv.ops.triton.table import filled_table

Maybe = Tensor | None


def patch_moments(x: Tensor, window: list[int]) -> Tensor:
    """Sums over all patches of x of the taps and of their products, [C, T + T*T] in float64."""
    problem = problem_of(x, window)
    if problem.pixels == 0:
        return x.new_zeros(problem.channels, problem.taps * (problem.taps + 1), dtype=torch.float64)
    return launch.add_products(problem, x, None, None, _whole(problem), exact=True)


def patch_moments_backward(grad: Tensor, x: Tensor, window: list[int]) -> Tensor:
    """The gradient of x from that of its moments. A product's share goes to both its factors."""
    problem = problem_of(x, window)
    channels, taps = problem.channels, problem.taps
    (grad,) = dense(problem, x, moments=grad)
    first, second = grad.split([taps, taps * taps], 1)
    second = second.view(channels, taps, taps)
    made = filled_table(1, taps, second + second.mT, first)
    grad_x = map_like(x, channels, problem.height, problem.width)
    _go_back(problem, x, made, grad_x, add=False)
    return grad_x


def rfa(
    x: Tensor, feature_weight: Tensor, attention_weight: Tensor, weight: Tensor, bias: Maybe, norm_weight: Maybe,
    norm_bias: Maybe, mean: Maybe, var: Maybe, moments: Maybe, count: int, eps: float, window: list[int], groups: int,
    scale: Maybe, shift: Maybe, act: int,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """The convolution, and the batch's mean and variance where there are moments."""
    problem = problem_of(x, window, weight, groups)
    made, batch_mean, batch_var = _coefficients(
        problem, x, feature_weight, attention_weight, norm_weight, norm_bias, mean, var, moments, count, eps
    )
    bias, scale, shift = dense(problem, x, bias=bias, scale=scale, shift=shift)
    if act not in range(len(ACTS)):
        raise ValueError(f"act must be 0 to {len(ACTS) - 1}, got {act}")
    out = map_like(x, problem.outputs, problem.out_height, problem.out_width)
    if problem.pixels > 0:
        end, centred = Finish(bias, scale, shift, act), moments is not None
        if fuses(problem, x.dtype):
            precision = "tf32" if convolution_allows_tf32() else "ieee"
            launch.convolve(problem, x, made, tiled(problem, weight), end, out, centred, precision)
        else:
            convolve_by_chunks(problem, x, made, packed(weight), end, out, centred)
    return out, batch_mean, batch_var


def fuses(problem: Problem, dtype: torch.dtype) -> bool:
    """Whether to generate and multiply in one kernel rather than leave the product to cuBLAS. Not tuned.

    One program must make all outputs of a group, or the operand is generated several times; and products of float32
    without TF32 have no tensor cores, where Triton's are slow. The kernel for 7x7 takes minutes to compile.
    """
    if problem.taps > MOST_FUSED_TAPS or problem.group_outputs > MOST_FUSED_OUTPUTS:
        return False
    return dtype != torch.float32 or convolution_allows_tf32()


def convolve_by_chunks(
    problem: Problem, x: Tensor, made: Tensor, weight: Tensor, end: Finish, out: Tensor, centred: bool
) -> None:
    """Fill `out`, chunk of pixels by chunk: the operand into a buffer, the product by torch, the epilogue."""
    kernel = weight.view(problem.groups, problem.group_outputs, -1)
    for begin, count in pieces(problem, x):
        z = problem.operand(x, count, problem.group_channels)
        launch.generate(problem, x, made, z, begin, 0, centred, attend=True)
        sums = product(kernel, z.flatten(1, 2), problem.last).flatten(0, 1)
        launch.finish(problem, sums, end, out, begin)


def pieces(problem: Problem, x: Tensor) -> Iterator[tuple[int, int]]:
    """First pixel and number of pixels of each chunk whose operand stays in the second cache."""
    a_pixel = problem.taps * problem.channels * x.element_size()
    most = max(64, OPERAND_BYTES // a_pixel // 64 * 64)
    for begin in range(0, problem.pixels, most):
        yield begin, min(most, problem.pixels - begin)


def rfa_backward(
    grad_out: Tensor, x: Tensor, feature_weight: Tensor, attention_weight: Tensor, weight: Tensor, norm_weight: Maybe,
    norm_bias: Maybe, mean: Maybe, var: Maybe, moments: Maybe, count: int, eps: float, window: list[int], groups: int,
    input_too: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of input (with fixed statistics), attention_weight and weight; S and D over the batch."""
    problem = problem_of(x, window, weight, groups)
    check_map("grad_out", grad_out, problem, x, outputs=True)
    made, _, _ = _coefficients(
        problem, x, feature_weight, attention_weight, norm_weight, norm_bias, mean, var, moments, count, eps
    )
    taps, channels = problem.taps, problem.channels
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
        grad_attention += launch.differentiate(problem, x, made, grad_z, z, patches, chunk, moments is not None)
        some_grad = product(upstream, z.flatten(1, 2).mT, False).unflatten(2, (taps, -1))
        grad_kernel[..., chunk.first_channel : last] += some_grad
        products += launch.add_products(problem, x, grad_z, made if moments is not None else None, chunk, exact=False)
        if patches is not None:
            launch.gather(problem, patches, grad_x, chunk, add=False)
    if input_too and problem.pixels == 0:
        grad_x.zero_()
    return (
        grad_x,
        grad_attention.float(),
        grad_kernel.transpose(2, 3).reshape(weight.shape).to(weight.dtype).contiguous(),
        products[:, :taps].contiguous(),
        products[:, taps:].reshape(channels, taps, taps).contiguous(),
    )


def norm_backward(
    grad_x: Tensor, x: Tensor, feature_weight: Tensor, norm_weight: Maybe, mean: Maybe, var: Maybe, moments: Maybe,
    sum_: Tensor, outer: Tensor, count: int, eps: float, window: list[int],
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """From S and D: gradients of feature_weight, norm_weight and norm_bias; grad_x gains what goes by the batch."""
    problem = problem_of(x, window)
    check_statistics(mean, var, moments, count)
    if grad_x.numel() > 0:  # else nobody wants it
        check_map("grad_x", grad_x, problem, x)
    feature_weight, norm_weight, mean, var, moments, sum_, outer = dense(
        problem, x, feature_weight=feature_weight, norm_weight=norm_weight, mean=mean, var=var, moments=moments,
        sum=sum_, outer=outer,
    )  # fmt: skip
    grads, made = launch.differentiate_norm(feature_weight, norm_weight, mean, var, moments, count, eps, sum_, outer)
    if moments is not None and grad_x.numel() > 0 and problem.pixels > 0:
        _go_back(problem, x, made, grad_x, add=True)
    return grads


def _coefficients(
    problem: Problem, x: Tensor, feature_weight: Tensor, attention_weight: Tensor, norm_weight: Maybe,
    norm_bias: Maybe, mean: Maybe, var: Maybe, moments: Maybe, count: int, eps: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """`launch.coefficients` of checked arguments."""
    check_statistics(mean, var, moments, count)
    feature_weight, attention_weight, norm_weight, norm_bias, mean, var, moments = dense(
        problem, x, feature_weight=feature_weight, attention_weight=attention_weight, norm_weight=norm_weight,
        norm_bias=norm_bias, mean=mean, var=var, moments=moments,
    )  # fmt: skip
    return launch.coefficients(
        feature_weight, attention_weight, norm_weight, norm_bias, mean, var, moments, count, eps, problem.groups
    )


def _go_back(problem: Problem, x: Tensor, made: Tensor, grad_x: Tensor, add: bool) -> None:
    """grad_x becomes, or gains, the sum over the windows of linear features of x's patches, one for each tap."""
    for chunk in _chunks(problem, x):
        patches = problem.operand(x, chunk.images * problem.plane, chunk.some_channels)
        begin = chunk.first_image * problem.plane
        launch.generate(problem, x, made, patches, begin, chunk.first_channel, centred=False, attend=False)
        launch.gather(problem, patches, grad_x, chunk, add)


def product(left: Tensor, right: Tensor, last: bool) -> Tensor:
    """left @ right, of matrices [groups, ., .]; with `last`, columns of the result are neighbours in memory."""
    with products_as_convolutions():
        return torch.bmm(right.mT, left.mT).mT if last else torch.bmm(left, right)


def _chunks(problem: Problem, x: Tensor) -> list[Chunk]:
    return [*chunks(problem, x.element_size(), gradient_bytes(x))] if problem.pixels > 0 else []


def _whole(problem: Problem) -> Chunk:
    return Chunk(0, problem.batch, 0, problem.group_channels)


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
