"""What the backends of kernels share: they call the dispatcher's operators, `torch.ops.rfaconv.*`.

In training the batch's statistics come from the moments of its patches, and the backward pass generates the features
again: no tensor of the size of the features exists at any time.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from rfaconv.ops.backend import Backend, Call, Features, Operands
from rfaconv.ops.epilogue import ACTS, Epilogue
from rfaconv.ops.window import Window, output_size

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
FEWEST_VALUES = 32
"""With less, a gradient through batch statistics is the small difference of two large parts: the kernels add them up
apart, the plain formula value by value (with two values the difference is nearly nothing)."""


class KernelBackend(Backend):
    """The four operators by kernels; a subclass says where they run and what they take."""

    device_type: str
    runs_on: str
    """Where that is, in words."""
    precision: str
    """What it computes in, in words."""
    most_taps: int

    def factor_dtype(self, out_dtype: torch.dtype) -> torch.dtype:
        """What the products' factors are computed in, for an output of that dtype."""
        return out_dtype

    def unsupported_reason(self, call: Call) -> str | None:
        x, weight = call.input, call.weight
        if x.device.type != self.device_type:
            return f"it runs on {self.runs_on}, not on '{x.device.type}'"
        for tensor in (x, call.feature_weight, weight):
            if tensor.dtype not in DTYPES:
                return f"it computes in {self.precision}, not in {tensor.dtype}"
        if x.dtype != weight.dtype and not torch.is_autocast_enabled(self.device_type):
            return f"input is {x.dtype} and weight {weight.dtype}"
        if x.layout != torch.strided:
            return f"it takes strided tensors, not {x.layout}"
        if call.window.taps > self.most_taps:
            return f"it takes at most {self.most_taps} taps"
        return self._wrong_sizes(call) or traced_elsewhere()

    def _wrong_sizes(self, call: Call) -> str | None:
        if call.shares_statistics:
            return None  # each process must add its share to the statistics, even if it has none
        height, width = output_size(call.input, call.window)
        if call.input.numel() == 0 or min(height, width) < 1:
            return "the input or the output is empty"
        if call.batch_statistics and call.input.shape[0] * height * width < FEWEST_VALUES:
            return f"batch statistics of fewer than {FEWEST_VALUES} values a channel are more exact the plain way"
        return None

    def patch_moments(self, x: Tensor, window: Window) -> Tensor:
        return _call(torch.ops.rfaconv.patch_moments, x.to(self.factor_dtype(self._out_dtype(x))), *window)

    def fold_norm(
        self,
        weight: Tensor,
        norm_weight: Tensor | None,
        norm_bias: Tensor | None,
        mean: Tensor | None,
        var: Tensor | None,
        moments: Tensor | None,
        eps: float,
    ) -> tuple[Features, Tensor, Tensor]:
        norm = (None if value is None else value.float() for value in (norm_weight, norm_bias, mean, var))
        *features, found_mean, found_var = _call(torch.ops.rfaconv.fold_norm, weight.float(), *norm, moments, eps)
        return Features(*features), found_mean, found_var

    def pool_features(
        self, x: Tensor, features: Features, window: Window, over_channels: bool
    ) -> tuple[Tensor, Tensor]:
        x = x.to(self.factor_dtype(self._out_dtype(x)))
        learns = torch.is_grad_enabled()
        return _call(torch.ops.rfaconv.pool_features, x, *features, *window[1:], over_channels, learns)[:2]

    def rf_conv2d(
        self,
        x: Tensor,
        features: Features,
        operands: Operands,
        weight: Tensor,
        bias: Tensor | None,
        window: Window,
        groups: int,
        epilogue: Epilogue,
    ) -> Tensor:
        out_dtype = self._out_dtype(x)
        factors = self.factor_dtype(out_dtype)
        given = (None if operand is None else operand.float() for operand in operands)
        kernel_bias = None if bias is None else bias.float()
        # The kernels' epilogue has no gradient.
        together, after = (Epilogue(), epilogue) if torch.is_grad_enabled() else (epilogue.float(), Epilogue())
        out = _call(
            torch.ops.rfaconv.rf_conv2d, x.to(factors), *features, *given, weight.to(factors), kernel_bias,
            *window[1:], groups, together.scale, together.shift, ACTS.index(together.act),
        )  # fmt: skip
        return after.apply(out).to(out_dtype)

    def _out_dtype(self, x: Tensor) -> torch.dtype:
        if torch.is_autocast_enabled(self.device_type):
            return torch.get_autocast_dtype(self.device_type)
        return x.dtype


def _call(operator: Any, *arguments: Any) -> Any:
    """The operator's results. Without gradients past its autograd, which is Python and takes some 20 us a call."""
    if torch.is_grad_enabled() or torch.compiler.is_compiling():
        return operator(*arguments)
    with torch._C._AutoDispatchBelowAutograd():
        return operator(*arguments)


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
