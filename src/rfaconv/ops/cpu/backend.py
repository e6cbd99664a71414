"""The backend "cpu": the C++ kernels, in inference and in training, in float32 (docs/kernels.md has the algorithm)."""

from __future__ import annotations

import torch

from rfaconv.ops.backend import Call
from rfaconv.ops.cpu import library
from rfaconv.ops.cpu.library import MOST_STRIDE, MOST_TAPS
from rfaconv.ops.kernels import KernelBackend


class CpuBackend(KernelBackend):
    """Lower precision and autocast are computed in float32."""

    name = "cpu"
    device_type, runs_on, precision, most_taps = "cpu", "the CPU", "float32", MOST_TAPS

    def description(self) -> str:
        if library.MISSING is None:
            return f"the C++ kernels, {library.instruction_set()}: float32 and lower precision on the CPU"
        return f"not here: {library.MISSING}"

    def unsupported_reason(self, call: Call) -> str | None:
        if reason := super().unsupported_reason(call):
            return reason
        if call.window.stride[1] > MOST_STRIDE:
            return f"it takes a stride of {MOST_STRIDE} at most"
        if library.MISSING is not None:
            library.warn_missing()
        return library.MISSING

    def factor_dtype(self, out_dtype: torch.dtype) -> torch.dtype:
        return torch.float32
