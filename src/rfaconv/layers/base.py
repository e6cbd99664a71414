"""What every layer of the family shares with Conv2d: arguments, weight and bias, checks, and how it prints itself."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from rfaconv.errors import unknown_name
from rfaconv.layers.attention import Attention, MapAttention
from rfaconv.layers.folding import as_epilogue
from rfaconv.ops.epilogue import Epilogue
from rfaconv.ops.window import IntPair, Window, pair

NormLayer: TypeAlias = str | Callable[[int], nn.Module] | None
"""A class or function of the channel count, or the name of a torch.nn class ("batchnorm2d")."""
ActLayer: TypeAlias = str | Callable[[], nn.Module] | None
"""A class or function without arguments, or the name of a torch.nn class ("relu", "silu")."""


class ConvLayer(nn.Module):
    """Conv2d's arguments, parameters and checks; a subclass computes `_convolve`.

    Args:
        in_channels, out_channels: C and O.
        kernel_size: int or (vertical, horizontal); odd or even.
        stride: int or pair.
        padding: int, pair, "valid" or "same" (only where it is symmetric); None, the one default that is not Conv2d's,
            is half of the kernel, dilation counted: (dilation * (kernel_size - 1) + 1) // 2, as in the paper.
        dilation: int or pair.
        groups: of the convolution itself; attention and features are per channel or over all channels as ever.
        bias: whether the convolution has one.
        attention: from the channel count, an `Attention` or any module from [B, C, H, W] to the same shape; None for
            the layer's own.
        norm_layer: applied to the output: a class or function of the channel count, or a torch.nn class by name.
        act_layer: applied last: a class or function without arguments, or a torch.nn class by name.
        device, dtype: where and as what the parameters are made.

    Shape:
        [B, C, H, W] or [C, H, W] to [B, O, h, w] or [O, h, w], sizes as Conv2d's.

    Attributes:
        weight: [O, C/groups, kh, kw]; bias: [O] or None: the same names and shapes as Conv2d's.

    Raises:
        ValueError: an argument is not one Conv2d could take; the message names it.
    """

    padding_mode = "zeros"
    short_name: str | None = None
    """The registered name a conversion made it by; `rfaconv.save` writes it down."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: IntPair = 3,
        stride: IntPair = 1,
        padding: IntPair | str | None = None,
        dilation: IntPair = 1,
        groups: int = 1,
        bias: bool = True,
        *,
        attention: Callable[[int], nn.Module] | None = None,
        norm_layer: NormLayer = None,
        act_layer: ActLayer = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if min(in_channels, out_channels, groups) < 1 or in_channels % groups or out_channels % groups:
            raise ValueError(
                f"groups={groups} must divide in_channels={in_channels} and out_channels={out_channels}, all positive"
            )
        self.window = Window.of(kernel_size, stride, _resolve_padding(padding, kernel_size, stride, dilation), dilation)
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        shape = (out_channels, in_channels // groups, *self.window.kernel_size)
        self.weight = nn.Parameter(torch.empty(shape, device=device, dtype=dtype))
        if bias:
            self.bias: nn.Parameter | None = nn.Parameter(torch.empty(out_channels, device=device, dtype=dtype))
        else:
            self.register_parameter("bias", None)
        with torch.device(device if device is not None else torch.get_default_device()):
            self.features = self._own_features()
            self.attention = _as_attention((attention or self._own_attention)(in_channels))
            norm = _named(norm_layer, "norm_layer")
            act = _named(act_layer, "act_layer")
            self.norm = None if norm is None else norm(out_channels)
            self.act = None if act is None else act()
        if dtype is not None:
            self.to(dtype=dtype)
        self._reset_convolution()

    def _own_features(self) -> nn.Module | None:
        """What makes the features the attention looks at; None where that is the input itself."""
        return None

    def _own_attention(self, channels: int) -> nn.Module | None:
        """The attention of the layer if its user gives none."""
        return None

    @property
    def kernel_size(self) -> tuple[int, int]:
        return self.window.kernel_size

    @property
    def stride(self) -> tuple[int, int]:
        return self.window.stride

    @property
    def padding(self) -> tuple[int, int]:
        return self.window.padding

    @property
    def dilation(self) -> tuple[int, int]:
        return self.window.dilation

    def reset_parameters(self) -> None:
        """Draw all parameters anew, the convolution's as Conv2d draws its own."""
        self._reset_convolution()
        for child in self.modules():
            if child is not self and callable(reset := getattr(child, "reset_parameters", None)):
                reset()

    def _reset_convolution(self) -> None:
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            bound = 1 / math.sqrt(self.weight[0].numel())
            nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() == 3:
            return self.forward(x.unsqueeze(0)).squeeze(0)
        if x.dim() != 4 or x.shape[1] != self.in_channels:
            raise ValueError(
                f"{type(self).__name__} expects [B, {self.in_channels}, H, W] or [{self.in_channels}, H, W], "
                f"got shape {list(x.shape)}"
            )
        epilogue = as_epilogue(self.norm, self.act) if self._folds_norm() else None
        if epilogue is not None:
            return self._convolve(x, epilogue)
        out = self._convolve(x, Epilogue())
        if self.norm is not None:
            out = self.norm(out)
        return out if self.act is None else self.act(out)

    def _folds_norm(self) -> bool:
        """Whether `_convolve` computes an epilogue."""
        return False

    def _convolve(self, x: Tensor, epilogue: Epilogue) -> Tensor:
        """The layer without its norm and activation, or with them as `epilogue`."""
        raise NotImplementedError(f"{type(self).__name__} must define _convolve")

    def extra_repr(self) -> str:
        """Conv2d's own line: what differs from the defaults is shown."""
        parts = [f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"]
        if self.padding != (0, 0):
            parts.append(f"padding={self.padding}")
        if self.dilation != (1, 1):
            parts.append(f"dilation={self.dilation}")
        if self.groups != 1:
            parts.append(f"groups={self.groups}")
        if self.bias is None:
            parts.append("bias=False")
        return ", ".join(parts)


def _resolve_padding(
    padding: IntPair | str | None, kernel_size: IntPair, stride: IntPair, dilation: IntPair
) -> tuple[int, int]:
    kernel = pair(kernel_size, "kernel_size")
    if padding is None:
        steps = pair(dilation, "dilation")
        return (steps[0] * (kernel[0] - 1) + 1) // 2, (steps[1] * (kernel[1] - 1) + 1) // 2
    if padding == "valid":
        return 0, 0
    if padding == "same":
        if pair(stride, "stride") != (1, 1):
            raise ValueError(f"padding='same' needs stride 1, got stride={stride}")
        total = [step * (size - 1) for step, size in zip(pair(dilation, "dilation"), kernel, strict=True)]
        if total[0] % 2 or total[1] % 2:
            raise ValueError(
                f"padding='same' is not symmetric for kernel_size={kernel} and dilation={dilation}; "
                "pad the input with torch.nn.functional.pad and use padding=0"
            )
        return total[0] // 2, total[1] // 2
    if isinstance(padding, str):
        raise ValueError(f"padding must be an int, a pair, 'same', 'valid' or None, got {padding!r}")
    return pair(padding, "padding")


def _as_attention(module: nn.Module | None) -> Attention | None:
    """`module`; one that is no Attention is taken as an attention over ordinary maps."""
    if module is None or isinstance(module, Attention):
        return module
    if not isinstance(module, nn.Module):
        raise TypeError(f"attention must make a torch module from the channel count, got {module!r}")
    return MapAttention(module)


def _named(layer: str | Callable[..., nn.Module] | None, what: str) -> Callable[..., Any] | None:
    """`layer` itself, or the torch.nn class of that name in any case."""
    if not isinstance(layer, str):
        return layer
    classes = {
        name.lower(): value
        for name, value in vars(nn).items()
        if isinstance(value, type) and issubclass(value, nn.Module)
    }
    return classes[layer.lower()] if layer.lower() in classes else unknown_name(what, layer, classes)
