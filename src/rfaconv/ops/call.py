"""What a backend receives: one call of the operator, checked; or what it must know of a gated convolution."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

from rfaconv.ops.epilogue import Epilogue
from rfaconv.ops.window import Window

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


class RFACall(NamedTuple):
    """The arguments of `rfa_conv2d`; its docstring gives the shapes."""

    input: Tensor
    feature_weight: Tensor
    attention_weight: Tensor
    weight: Tensor
    bias: Tensor | None
    norm_weight: Tensor | None
    norm_bias: Tensor | None
    running_mean: Tensor | None
    running_var: Tensor | None
    training: bool
    momentum: float
    eps: float
    window: Window
    groups: int
    epilogue: Epilogue = Epilogue()
    process_group: ProcessGroup | None = None

    @property
    def batch_statistics(self) -> bool:
        """Whether the features are normalised by this batch's statistics rather than the running ones."""
        return self.training or self.running_mean is None

    def check(self) -> None:
        """Raise a ValueError that names the argument whose shape does not fit."""
        if self.input.dim() != 4:
            raise ValueError(f"input must be [B, C, H, W], got shape {list(self.input.shape)}")
        channels, taps = self.input.shape[1], self.window.taps
        if self.weight.dim() != 4 or self.weight.shape[0] % self.groups or channels % self.groups:
            raise ValueError(
                f"groups={self.groups} must divide the {channels} input channels and the first dimension of "
                f"weight, which is [O, C/groups, kh, kw], got shape {list(self.weight.shape)}"
            )
        expected: dict[str, tuple[int, ...]] = {
            "feature_weight": (channels * taps, 1, *self.window.kernel_size),
            "attention_weight": (channels, taps),
            "weight": (self.weight.shape[0], channels // self.groups, *self.window.kernel_size),
            "bias": (self.weight.shape[0],),
            "norm_weight": (channels * taps,),
            "norm_bias": (channels * taps,),
            "running_mean": (channels * taps,),
            "running_var": (channels * taps,),
        }
        for name, shape in expected.items():
            tensor = getattr(self, name)
            if tensor is not None and tuple(tensor.shape) != shape:
                raise ValueError(
                    f"{name} must have shape {list(shape)} for {channels} input channels and a "
                    f"{self.window.kernel_size} kernel, got {list(tensor.shape)}"
                )


class GatedCall(NamedTuple):
    """What a backend must know of a gated convolution to say whether its kernels take it."""

    input: Tensor
    feature_weight: Tensor
    weight: Tensor
    window: Window
    batch_statistics: bool
