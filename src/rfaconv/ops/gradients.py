"""How the operators are differentiated, whoever computes them.

`rfa_backward` gives the gradients for fixed statistics and the sums S and D over the batch; `norm_backward` makes of
these the gradients of what lies before the ReLU, and adds to the input's what goes through the batch's statistics.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from rfaconv.ops.call import RFACall
from rfaconv.ops.composed import rfa_composed
from rfaconv.ops.window import Window


def register() -> None:
    """Tell PyTorch, once the operators are defined."""
    torch.library.register_autograd("rfaconv::rfa", _backward, setup_context=_setup)
    torch.library.register_autograd("rfaconv::patch_moments", _moments_backward, setup_context=_moments_setup)
    torch.library.register_autograd("rfaconv::patch_moments_backward", _no_second_gradient)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    tensors, (count, eps, window, groups, scale, shift, act) = inputs[:10], inputs[10:]
    if scale is not None or shift is not None or act:
        raise RuntimeError("rfaconv::rfa has no gradient with a scale, shift or activation: apply them after it")
    ctx.save_for_backward(*tensors)
    ctx.rest = (count, eps, window, groups)
    ctx.mark_non_differentiable(*output[1:])


def _backward(ctx: Any, grad_out: Tensor, *_: Any) -> tuple[Any, ...]:
    tensors, wanted = ctx.saved_tensors, ctx.needs_input_grad
    if torch.is_grad_enabled():
        return (*_composed_gradients(tensors, ctx.rest, grad_out, wanted), *[None] * 10)
    grads = gradients(tensors, ctx.rest, grad_out, wanted)
    return (*(grad if want else None for grad, want in zip(grads, wanted, strict=False)), *[None] * 10)


def gradients(
    tensors: tuple[Any, ...],
    rest: tuple[int, float, list[int], int],
    grad_out: Tensor,
    wanted: tuple[bool, ...],
    group: dist.ProcessGroup | None = None,
) -> tuple[Tensor | None, ...]:
    """Of input, feature_weight, attention_weight, weight, bias, norm_weight and norm_bias."""
    x, feature_weight, attention_weight, weight, bias, norm_weight, norm_bias, mean, var, moments = tensors
    count, eps, window, groups = rest
    ops = torch.ops.rfaconv
    grad_x, grad_attention, grad_weight, total, outer = ops.rfa_backward(
        grad_out, x, feature_weight, attention_weight, weight, norm_weight, norm_bias, mean, var, moments,
        count, eps, window, groups, wanted[0],
    )  # fmt: skip
    if group is not None:
        dist.all_reduce(total, group=group)
        dist.all_reduce(outer, group=group)
    grad_features, grad_norm_weight, grad_norm_bias = ops.norm_backward(
        grad_x, x, feature_weight, norm_weight, mean, var, moments, total, outer, count, eps, window
    )
    grad_bias = grad_out.sum((0, 2, 3), dtype=bias.dtype) if bias is not None and wanted[4] else None
    return grad_x, grad_features, grad_attention, grad_weight, grad_bias, grad_norm_weight, grad_norm_bias


def _composed_gradients(
    tensors: tuple[Any, ...], rest: tuple[Any, ...], grad_out: Tensor, wanted: tuple[bool, ...]
) -> list[Tensor | None]:
    """The gradients as something to differentiate once more, by PyTorch's own operators."""
    (x, feature_weight, attention_weight, weight, bias, norm_weight, norm_bias, mean, var, moments), (_, eps, w, g) = (
        tensors,
        rest,
    )
    window = Window((w[0], w[1]), (w[2], w[3]), (w[4], w[5]), (w[6], w[7]))
    call = RFACall(
        x, feature_weight, attention_weight, weight, bias, norm_weight, norm_bias, mean, var,
        moments is not None, 0.0, eps, window, g,
    )  # fmt: skip
    inputs = [tensor for tensor, want in zip(tensors[:7], wanted, strict=False) if want]
    found = iter(torch.autograd.grad(rfa_composed(call), inputs, grad_out, create_graph=True))
    return [next(found) if want else None for want in wanted[:7]]


def _moments_setup(ctx: Any, inputs: tuple[Tensor, list[int]], output: Tensor) -> None:
    ctx.save_for_backward(inputs[0])
    ctx.window = inputs[1]


def _moments_backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
    (x,) = ctx.saved_tensors
    return torch.ops.rfaconv.patch_moments_backward(grad, x, ctx.window), None


def _no_second_gradient(ctx: Any, grad: Tensor) -> None:
    raise RuntimeError("rfaconv cannot differentiate twice through batch statistics: use_backend('torch') can")
