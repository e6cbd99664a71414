"""The backend "triton": kernels for NVIDIA GPUs, in inference and in training (docs/kernels.md has the algorithm)."""

from __future__ import annotations

import torch
from torch import Tensor

from rfaconv.ops.call import GatedCall, RFACall
from rfaconv.ops.operator_call import converted, declines_sizes, dtypes, run, traced_elsewhere
from rfaconv.ops.triton import library
from rfaconv.ops.triton.arguments import DTYPES
from rfaconv.ops.triton.problem import MOST_TAPS


def declines(call: RFACall) -> str | None:
    """Why the kernels cannot take `call`, or None."""
    x = call.input
    if not x.is_cuda:
        return f"it runs on CUDA devices, not on '{x.device.type}'"
    return declines_call(call) or library.too_old(x.device)


def declines_call(call: RFACall) -> str | None:
    """Why the kernels cannot take `call`, on whatever device, or None."""
    return _declines_tensors(call, dtypes(call))


def declines_gated(call: GatedCall) -> str | None:
    """Why the kernels cannot take a gated convolution, or None."""
    if not call.input.is_cuda:
        return f"it runs on CUDA devices, not on '{call.input.device.type}'"
    return declines_gated_call(call) or library.too_old(call.input.device)


def declines_gated_call(call: GatedCall) -> str | None:
    """The same on whatever device."""
    if torch.is_grad_enabled():
        return "it has no gradients for an attention of two gates (torch.no_grad() says that none are wanted)"
    return _declines_tensors(call, {call.input.dtype, call.feature_weight.dtype, call.weight.dtype})


def _declines_tensors(call: RFACall | GatedCall, found: set[torch.dtype]) -> str | None:
    x = call.input
    for dtype in found:
        if dtype not in DTYPES:
            return f"it computes in float32, bfloat16 and float16, not in {dtype}"
    if x.dtype != call.weight.dtype and not torch.is_autocast_enabled("cuda"):
        return f"input is {x.dtype} and weight {call.weight.dtype}"
    if x.layout != torch.strided:
        return f"it takes strided tensors, not {x.layout}"
    if call.window.taps > MOST_TAPS:
        return f"it takes at most {MOST_TAPS} taps"
    return declines_sizes(call) or traced_elsewhere() or library.MISSING


def says() -> str:
    """One line for `rfaconv info`."""
    if library.MISSING is not None:
        return f"not here: {library.MISSING}"
    where = "" if torch.cuda.is_available() else "; none is here"
    return f"Triton kernels for NVIDIA GPUs, by this name only{where}"


def rfa_triton(call: RFACall) -> Tensor:
    """The receptive-field attention convolution of `call`; see `rfa_conv2d` for the shapes."""
    if torch.is_autocast_enabled("cuda"):
        with torch.autocast("cuda", enabled=False):
            return run(converted(call, torch.get_autocast_dtype("cuda")))
    return run(converted(call, call.input.dtype))
