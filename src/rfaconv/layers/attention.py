"""The attentions of the family, each written once for spatial and for receptive-field features.

Features are [B, C, kh, kw, h, w] (see `rfaconv.ops.stages`); a spatial map is the case kh = kw = 1. An attention gets
the features, the layer's input x [B, C, H, W] they were made from, and the window between the two, and returns the
features weighed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rfaconv.ops.backend import Operands
from rfaconv.ops.dispatch import preferred_backend
from rfaconv.ops.stages import from_map, tap_softmax, to_map, window_mean
from rfaconv.ops.window import Window

Pool = Literal["max", "avg"]


Pooled = Callable[[bool], tuple[Tensor, Tensor]]
"""Features pooled over the channels (True) or over rows and columns (False): `rfaconv.ops.pool_features`."""


class Attention(nn.Module):
    """Base class: weighs features [B, C, kh, kw, h, w] and returns them in the same shape.

    Kernels compute an attention that also defines `operands`; any other is computed by its `forward`.
    """

    has_operands = False
    """Whether `operands` says the same as `forward`; so it is where one class defines both."""
    pools_features = False
    """Whether `operands` asks for pooled features."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "forward" in vars(cls):
            cls.has_operands = "operands" in vars(cls)

    def forward(self, features: Tensor, x: Tensor, window: Window) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} must define forward")

    def operands(self, x: Tensor, pooled: Pooled, window: Window) -> Operands:
        """What weighs the features of x, for kernels that never hold them."""
        raise NotImplementedError(f"{type(self).__name__} has no operands")


class MapAttention(Attention):
    """Any module from [B, C, H, W] to the same shape as an attention: it sees the taps laid out in the plane.

    This is how an attention written for ordinary feature maps (SE, ECA, your own) gets its receptive-field form.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, features: Tensor, x: Tensor, window: Window) -> Tensor:
        return from_map(self.module(to_map(features)), (features.shape[2], features.shape[3]))


class TapSoftmax(Attention):
    """RFAConv's attention: each tap's share of its receptive field, a softmax over the taps (section 3.2).

    Args:
        channels: C.
        taps: T = kh*kw.
    """

    def __init__(self, channels: int, taps: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels, taps))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        # What Conv2d draws for the 1x1 convolution with one input channel a group that this weight is.
        nn.init.uniform_(self.weight, -1.0, 1.0)

    def forward(self, features: Tensor, x: Tensor, window: Window) -> Tensor:
        plain = preferred_backend() == "reference"
        return features * tap_softmax(window_mean(x, window), self.weight, window.kernel_size, plain)

    def operands(self, x: Tensor, pooled: Pooled, window: Window) -> Operands:
        return Operands(tap_weight=self.weight)

    def extra_repr(self) -> str:
        return f"{self.weight.shape[0]}, taps={self.weight.shape[1]}"


class ChannelAttention(Attention):
    """A weight a channel: sigmoid of the sum, over the pools of x, of expand(relu(reduce(pool))).

    Args:
        channels: C.
        hidden: width between the two linear layers; None is max(1, C // 16), as in CAM.
        pools: what x is pooled by over its plane.
    """

    def __init__(self, channels: int, hidden: int | None = None, pools: Sequence[Pool] = ("max", "avg")) -> None:
        super().__init__()
        hidden = max(1, channels // 16) if hidden is None else hidden
        self.pools = tuple(pools)
        self.reduce = nn.Linear(channels, hidden, bias=False)
        self.expand = nn.Linear(hidden, channels, bias=False)

    def weights(self, x: Tensor) -> Tensor:
        """[B, C, 1, 1, 1, 1] from x [B, C, H, W]."""
        logits = [self.expand(F.relu(self.reduce(_pool(x, kind)))) for kind in self.pools]
        return sum(logits[1:], start=logits[0]).sigmoid()[:, :, None, None, None, None]

    def forward(self, features: Tensor, x: Tensor, window: Window) -> Tensor:
        return features * self.weights(x)

    def extra_repr(self) -> str:
        return f"pools={self.pools}"


class SpatialAttention(Attention):
    """A weight a place of the map: sigmoid of a convolution over [max over C, mean over C].

    Args:
        kernel_size: of that convolution, odd.
    """

    def __init__(self, kernel_size: int = 7) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, kernel_size, padding=kernel_size // 2, bias=False)

    def weights(self, features: Tensor) -> Tensor:
        """[B, 1, kh, kw, h, w]. Only the two pooled channels are laid out as a map, not all C."""
        return self.from_pooled(torch.cat([features.amax(1, keepdim=True), features.mean(1, keepdim=True)], dim=1))

    def from_pooled(self, pooled: Tensor) -> Tensor:
        """[B, 1, kh, kw, h, w] from the maximum and the mean over C, [B, 2, kh, kw, h, w]."""
        return from_map(self.conv(to_map(pooled)).sigmoid(), (pooled.shape[2], pooled.shape[3]))

    def forward(self, features: Tensor, x: Tensor, window: Window) -> Tensor:
        return features * self.weights(features)


class ChannelSpatialAttention(Attention):
    """CBAM's pair: channel attention from x and spatial attention.

    Args:
        channels: C.
        hidden, pools: of the channel attention.
        kernel_size: of the spatial attention.
        spatial_sees: "weighted": the spatial attention looks at features already weighed by channel (CBAM);
            "raw": at the features as they came (RFCBAMConv).
    """

    pools_features = True

    def __init__(
        self,
        channels: int,
        hidden: int | None = None,
        pools: Sequence[Pool] = ("max", "avg"),
        kernel_size: int = 7,
        spatial_sees: Literal["weighted", "raw"] = "weighted",
    ) -> None:
        super().__init__()
        self.channel = ChannelAttention(channels, hidden, pools)
        self.spatial = SpatialAttention(kernel_size)
        self.spatial_sees = spatial_sees
        self.has_operands = spatial_sees == "raw"

    def operands(self, x: Tensor, pooled: Pooled, window: Window) -> Operands:
        both = torch.stack(pooled(True), dim=1).unflatten(2, window.kernel_size)
        return Operands(
            channel_gate=self.channel.weights(x).flatten(1), spatial_gate=self.spatial.from_pooled(both).flatten(1, 3)
        )

    def forward(self, features: Tensor, x: Tensor, window: Window) -> Tensor:
        # The channel's weights do not depend on the features, so whoever sees them raw goes first.
        first, second = (
            (self.channel, self.spatial) if self.spatial_sees == "weighted" else (self.spatial, self.channel)
        )
        return second(first(features, x, window), x, window)

    def extra_repr(self) -> str:
        return f"spatial_sees={self.spatial_sees!r}"


class CoordinateAttention(Attention):
    """A weight a row and a weight a column of the map, from its means along the other direction.

    Args:
        channels: C.
        hidden: width of the shared 1x1 convolution; None is max(8, C // 32).
    """

    pools_features = True

    def __init__(self, channels: int, hidden: int | None = None) -> None:
        super().__init__()
        hidden = max(8, channels // 32) if hidden is None else hidden
        self.reduce = nn.Conv2d(channels, hidden, 1)
        self.norm = nn.BatchNorm2d(hidden)
        self.expand_rows = nn.Conv2d(hidden, channels, 1)
        self.expand_columns = nn.Conv2d(hidden, channels, 1)

    def gates(self, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
        """The weights of rows [B, C, kh, h] and columns [B, C, kw, w], from the means over each."""
        (_, _, kh, h), (_, _, kw, w) = rows.shape, columns.shape
        rows, columns = (lines.transpose(2, 3).flatten(2) for lines in (rows, columns))
        both = torch.cat([rows, columns], dim=2).unsqueeze(3)
        both = F.hardswish(self.norm(self.reduce(both)))
        rows, columns = both.split([h * kh, w * kw], dim=2)
        rows = self.expand_rows(rows).sigmoid().squeeze(3).unfold(2, kh, kh).transpose(2, 3)
        columns = self.expand_columns(columns).sigmoid().squeeze(3).unfold(2, kw, kw).transpose(2, 3)
        return rows, columns

    def forward(self, features: Tensor, x: Tensor, window: Window) -> Tensor:
        rows, columns = self.gates(features.mean((3, 5)), features.mean((2, 4)))
        return features * rows[:, :, :, None, :, None] * columns[:, :, None, :, None, :]

    def operands(self, x: Tensor, pooled: Pooled, window: Window) -> Operands:
        rows, columns = self.gates(*pooled(False))
        return Operands(row_gate=rows, col_gate=columns)


def _pool(x: Tensor, kind: Pool) -> Tensor:
    """[B, C, H, W] to [B, C]; reductions, because adaptive pooling has no deterministic backward on CUDA."""
    return x.amax((2, 3)) if kind == "max" else x.mean((2, 3))
