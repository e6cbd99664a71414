"""The backend "triton": kernels for NVIDIA GPUs, in inference and in training (docs/kernels.md has the algorithm)."""

from __future__ import annotations

import torch

from rfaconv.ops.backend import Call
from rfaconv.ops.kernels import KernelBackend
from rfaconv.ops.triton import library
from rfaconv.ops.triton.problem import MOST_TAPS


class TritonBackend(KernelBackend):
    """The products' factors have the dtype of the output, which is the autocast's or the input's."""

    name = "triton"
    auto = False  # until it has run on a GPU
    device_type, runs_on, precision = "cuda", "CUDA devices", "float32, bfloat16 and float16"
    most_taps = MOST_TAPS

    def description(self) -> str:
        if library.MISSING is not None:
            return f"not here: {library.MISSING}"
        return "Triton kernels for NVIDIA GPUs, by this name only"

    def unsupported_reason(self, call: Call) -> str | None:
        return self.unsupported_call(call) or library.too_old(call.input.device)

    def unsupported_call(self, call: Call) -> str | None:
        """The same but for the device's age."""
        if reason := super().unsupported_reason(call) or library.MISSING:
            return reason
        if call.gated and torch.is_grad_enabled():
            return "it has no gradients for an attention of two gates (torch.no_grad() says that none are wanted)"
        return None
