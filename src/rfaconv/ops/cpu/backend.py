"""The backend "cpu": the C++ kernel, in inference and in training, in float32 (docs/kernels.md has the algorithm)."""

from __future__ import annotations

import torch
from torch import Tensor

from rfaconv.ops.call import GatedCall, RFACall
from rfaconv.ops.cpu import library
from rfaconv.ops.cpu.library import MOST_STRIDE, MOST_TAPS
from rfaconv.ops.operator_call import converted, declines_sizes, dtypes, run, traced_elsewhere

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def declines(call: RFACall) -> str | None:
    """Why the kernel cannot take `call`, or None."""
    return _declines_tensors(call, dtypes(call)) or declines_sizes(call) or _cannot_now()


def declines_gated(call: GatedCall) -> str | None:
    """Why the kernels cannot take a gated convolution, or None."""
    found = {call.input.dtype, call.feature_weight.dtype, call.weight.dtype}
    return _declines_tensors(call, found) or declines_sizes(call) or _cannot_now()


def _declines_tensors(call: RFACall | GatedCall, found: set[torch.dtype]) -> str | None:
    x, weight, window = call.input, call.weight, call.window
    if not x.is_cpu:
        return f"it runs on the CPU, not on '{x.device.type}'"
    for dtype in found:
        if dtype not in DTYPES:
            return f"it computes in float32, not in {dtype}"
    if x.dtype != weight.dtype and not torch.is_autocast_enabled("cpu"):
        return f"input is {x.dtype} and weight {weight.dtype}"
    if x.layout != torch.strided:
        return f"it takes strided tensors, not {x.layout}"
    if window.taps > MOST_TAPS or window.stride[1] > MOST_STRIDE:
        return f"it takes at most {MOST_TAPS} taps and a stride of {MOST_STRIDE}"
    return None


def _cannot_now() -> str | None:
    """Why the kernels can take no call at all, or None; warns if that is because they are not there."""
    if reason := traced_elsewhere():
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
            return run(converted(call, torch.float32)).to(torch.get_autocast_dtype("cpu"))
    if dtypes(call) == {torch.float32}:
        return run(call)
    return run(converted(call, torch.float32)).to(call.input.dtype)
