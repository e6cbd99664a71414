"""The backend "cpu": the C++ kernel, in inference and in training, in float32 (docs/kernels.md has the algorithm).

In training the batch's statistics come from the moments of its patches, and the backward pass generates the features
again: no tensor of the size of the features exists at any time.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from rfaconv.ops.call import RFACall
from rfaconv.ops.cpu import library
from rfaconv.ops.cpu.gradients import gradients
from rfaconv.ops.cpu.library import MOST_STRIDE, MOST_TAPS
from rfaconv.ops.cpu.shapes import flat
from rfaconv.ops.epilogue import ACTS, Epilogue
from rfaconv.ops.gated import GatedCall
from rfaconv.ops.stages import output_size, update_running
from rfaconv.ops.window import Window

FEWEST_VALUES = 32
"""With less, a gradient through batch statistics is the small difference of two large parts: the kernel adds them up
apart, the plain formula value by value (with two values the difference is nearly nothing)."""

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def declines(call: RFACall) -> str | None:
    """Why the kernel cannot take `call`, or None."""
    # Each process of a group must add its share to the statistics, even if it has none.
    alone = call.process_group is None
    return (
        _declines_tensors(call.input, call.weight, _dtypes(call), call.window)
        or (_declines_sizes(call.input, call.window, call.batch_statistics) if alone else None)
        or _cannot_now()
    )


def declines_gated(call: GatedCall) -> str | None:
    """Why the kernels cannot take a gated convolution, or None."""
    dtypes = {call.input.dtype, call.feature_weight.dtype, call.weight.dtype}
    return (
        _declines_tensors(call.input, call.weight, dtypes, call.window)
        or _declines_sizes(call.input, call.window, call.batch_statistics)
        or _cannot_now()
    )


def _declines_tensors(x: Tensor, weight: Tensor, dtypes: set[torch.dtype], window: Window) -> str | None:
    if not x.is_cpu:
        return f"it runs on the CPU, not on '{x.device.type}'"
    for dtype in dtypes:
        if dtype not in DTYPES:
            return f"it computes in float32, not in {dtype}"
    if x.dtype != weight.dtype and not torch.is_autocast_enabled("cpu"):
        return f"input is {x.dtype} and weight {weight.dtype}"
    if x.layout != torch.strided:
        return f"it takes strided tensors, not {x.layout}"
    if window.taps > MOST_TAPS or window.stride[1] > MOST_STRIDE:
        return f"it takes at most {MOST_TAPS} taps and a stride of {MOST_STRIDE}"
    return None


def _declines_sizes(x: Tensor, window: Window, batch_statistics: bool) -> str | None:
    if x.numel() == 0 or min(output_size(x, window)) < 1:
        return "the input or the output is empty"
    if batch_statistics and _count(x, window) < FEWEST_VALUES:
        return f"batch statistics of fewer than {FEWEST_VALUES} values a channel are more exact the plain way"
    return None


def _cannot_now() -> str | None:
    """Why the kernels can take no call at all, or None; warns if that is because they are not there."""
    if reason := library.traced_elsewhere():
        return reason
    if library.MISSING is not None:
        library.warn_missing()
    return library.MISSING


def says() -> str:
    """One line for `rfaconv info`."""
    if library.MISSING is None:
        return f"the C++ kernel, {library.instruction_set()}: float32 and lower precision on the CPU"
    return f"not here: {library.MISSING}"


def rfa_cpu(call: RFACall) -> Tensor:
    """The receptive-field attention convolution of `call`; see `rfa_conv2d` for the shapes."""
    if torch.is_autocast_enabled("cpu"):
        with torch.autocast("cpu", enabled=False):
            return _run(_in_float32(call)).to(torch.get_autocast_dtype("cpu"))
    if _dtypes(call) == {torch.float32}:
        return _run(call)
    return _run(_in_float32(call)).to(call.input.dtype)


def _run(call: RFACall) -> Tensor:
    if call.process_group is not None and call.training:
        return call.epilogue.apply(_with_common_statistics(call))
    if call.batch_statistics:
        return call.epilogue.apply(_with_batch_statistics(call))
    learns = torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in _tensors(call))
    together, after = (Epilogue(), call.epilogue) if learns else (call.epilogue, Epilogue())
    return after.apply(_operator(call, call.running_mean, call.running_var, None, 0, together)[0])


def _tensors(call: RFACall) -> tuple[Tensor | None, ...]:
    """What the kernel differentiates by, in the operator's order."""
    return (
        call.input,
        call.feature_weight,
        call.attention_weight,
        call.weight,
        call.bias,
        call.norm_weight,
        call.norm_bias,
    )


def _dtypes(call: RFACall) -> set[torch.dtype]:
    tensors = (*_tensors(call), call.running_mean, call.running_var)
    return {tensor.dtype for tensor in tensors if tensor is not None}


def _in_float32(call: RFACall) -> RFACall:
    """`call` with all it reads in float32; running statistics that are to be updated stay who they are."""
    fields: dict[str, Any] = call._asdict()
    for name, value in fields.items():
        if isinstance(value, Tensor) and not (call.batch_statistics and name.startswith("running")):
            fields[name] = value.float()
    fields["epilogue"] = call.epilogue.float()
    return RFACall(**fields)


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


def _count(x: Tensor, window: Window) -> int:
    height, width = output_size(x, window)
    return x.shape[0] * height * width


def _with_batch_statistics(call: RFACall) -> Tensor:
    count = _count(call.input, call.window)
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
        ctx.call, ctx.count = call._replace(input=None), count  # type: ignore[arg-type]
        out, mean, var = _operator(call, None, None, moments, count, Epilogue())
        ctx.mark_non_differentiable(mean, var)
        return out, mean, var

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_out: Tensor, *_: Any) -> Any:
        call, wanted = ctx.call, ctx.needs_input_grad[3:]
        rest = (ctx.count, call.eps, flat(call.window), call.groups)
        found: list[Any] = [*gradients(ctx.saved_tensors, rest, grad_out, wanted, call.process_group)]
        processes = dist.get_world_size(call.process_group)
        for place in (1, 5, 6):  # feature_weight, norm_weight, norm_bias: made from the sums of all
            found[place] = found[place] / processes
        return (None, None, None, *(grad if want else None for grad, want in zip(found, wanted, strict=True)))


def _with_common_statistics(call: RFACall) -> Tensor:
    moments = torch.ops.rfaconv.patch_moments(call.input.detach(), flat(call.window))
    count = torch.tensor([_count(call.input, call.window)])
    dist.all_reduce(moments, group=call.process_group)
    dist.all_reduce(count, group=call.process_group)
    out, mean, var = _CommonStatistics.apply(call, moments, int(count), *_tensors(call))
    _update_running(call, mean, var, int(count))
    return out
