"""A call of RFAConv by the dispatcher's operators, the same for every backend that implements them.

In training the batch's statistics come from the moments of its patches, and the backward pass generates the features
again: no tensor of the size of the features exists at any time.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd import forward_ad

from rfaconv.ops.call import GatedCall, RFACall
from rfaconv.ops.epilogue import ACTS, Epilogue
from rfaconv.ops.gradients import gradients
from rfaconv.ops.shapes import flat
from rfaconv.ops.stages import output_size, update_running

FEWEST_VALUES = 32
"""With less, a gradient through batch statistics is the small difference of two large parts: the kernels add them up
apart, the plain formula value by value (with two values the difference is nearly nothing)."""


def run(call: RFACall) -> Tensor:
    """The output of `call`, whose tensors have the dtypes that the device's implementation takes."""
    if call.process_group is not None and call.training:
        return call.epilogue.apply(_with_common_statistics(call))
    if call.batch_statistics:
        return call.epilogue.apply(_with_batch_statistics(call))
    learns = torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in _tensors(call))
    together, after = (Epilogue(), call.epilogue) if learns else (call.epilogue, Epilogue())
    return after.apply(_operator(call, call.running_mean, call.running_var, None, 0, together)[0])


def declines_sizes(call: RFACall | GatedCall) -> str | None:
    """Why no operator should take a call of these sizes, or None."""
    if isinstance(call, RFACall) and call.process_group is not None:
        return None  # each process of a group must add its share to the statistics, even if it has none
    if call.input.numel() == 0 or min(output_size(call.input, call.window)) < 1:
        return "the input or the output is empty"
    if call.batch_statistics and _count(call) < FEWEST_VALUES:
        return f"batch statistics of fewer than {FEWEST_VALUES} values a channel are more exact the plain way"
    return None


def traced_elsewhere() -> str | None:
    """Why a call that is being traced or transformed should be made of PyTorch's operators, or None."""
    if torch.jit.is_tracing():  # type: ignore[attr-defined]
        return "a TorchScript program runs where rfaconv is not"
    # Asking torch.onnx takes longer than a small layer's arithmetic.
    if torch.compiler.is_compiling() and torch.onnx.is_in_onnx_export():
        return "ONNX has no such operator"
    if torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0:
        return "it has neither forward-mode derivatives nor the transforms of torch.func"
    return None


def dtypes(call: RFACall) -> set[torch.dtype]:
    """Of all tensors of the call but its epilogue's."""
    tensors = (*_tensors(call), call.running_mean, call.running_var)
    return {tensor.dtype for tensor in tensors if tensor is not None}


def converted(call: RFACall, dtype: torch.dtype) -> RFACall:
    """`call` with input and weight in `dtype` and all else in float32, as the operators take them.

    Running statistics that are to be updated stay who they are.
    """
    fields: dict[str, Any] = call._asdict()
    for name, value in fields.items():
        if isinstance(value, Tensor) and not (call.batch_statistics and name.startswith("running")):
            fields[name] = value.to(dtype if name in ("input", "weight") else torch.float32)
    fields["epilogue"] = call.epilogue.float()
    return RFACall(**fields)


def _tensors(call: RFACall) -> tuple[Tensor | None, ...]:
    """What the operator is differentiated by, in its order."""
    return (
        call.input,
        call.feature_weight,
        call.attention_weight,
        call.weight,
        call.bias,
        call.norm_weight,
        call.norm_bias,
    )


def _operator(
    call: RFACall, mean: Tensor | None, var: Tensor | None, moments: Tensor | None, count: int, epilogue: Epilogue
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.ops.rfaconv.rfa(
        *_tensors(call),
        mean,
        var,
        moments,
        count,
        call.eps,
        flat(call.window),
        call.groups,
        epilogue.scale,
        epilogue.shift,
        ACTS.index(epilogue.act),
    )


def _count(call: RFACall | GatedCall) -> int:
    height, width = output_size(call.input, call.window)
    return call.input.shape[0] * height * width


def _with_batch_statistics(call: RFACall) -> Tensor:
    count = _count(call)
    moments = torch.ops.rfaconv.patch_moments(call.input.detach(), flat(call.window))
    out, mean, var = _operator(call, None, None, moments, count, Epilogue())
    _update_running(call, mean, var, count)
    return out


def _update_running(call: RFACall, mean: Tensor, var: Tensor, count: int) -> None:
    if call.training and call.running_mean is not None and call.running_var is not None:
        update_running(call.running_mean, call.running_var, mean, var, count, call.momentum)


class _CommonStatistics(torch.autograd.Function):
    """The operator with statistics of all processes of a group, as SyncBatchNorm has them.

    The parameters' gradients are this process's share, the joint ones divided by the number of processes: their sum, or
    DistributedDataParallel's mean, is what one process would have on the joint batch.
    """

    @staticmethod
    def forward(ctx: Any, call: RFACall, moments: Tensor, count: int, *tensors: Tensor | None) -> Any:
        ctx.save_for_backward(*tensors, None, None, moments)
        ctx.rest, ctx.group = (count, call.eps, flat(call.window), call.groups), call.process_group
        out, mean, var = _operator(call, None, None, moments, count, Epilogue())
        ctx.mark_non_differentiable(mean, var)
        return out, mean, var

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_out: Tensor, *_: Any) -> Any:
        wanted = ctx.needs_input_grad[3:]
        found: list[Any] = [*gradients(ctx.saved_tensors, ctx.rest, grad_out, wanted, ctx.group)]
        processes = dist.get_world_size(ctx.group)
        for place in (1, 5, 6):  # feature_weight, norm_weight, norm_bias: made from the sums of all
            found[place] = found[place] / processes
        return (None, None, None, *(grad if want else None for grad, want in zip(found, wanted, strict=True)))


def _with_common_statistics(call: RFACall) -> Tensor:
    moments = torch.ops.rfaconv.patch_moments(call.input.detach(), flat(call.window))
    count = torch.tensor([_count(call)], device=call.input.device)
    dist.all_reduce(moments, group=call.process_group)
    dist.all_reduce(count, group=call.process_group)
    out, mean, var = _CommonStatistics.apply(call, moments, int(count), *_tensors(call))
    _update_running(call, mean, var, int(count))
    return out
