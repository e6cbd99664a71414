"""What computes receptive-field convolutions: a backend, by its four operators; here all of them of PyTorch's own."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from rfaconv.ops.epilogue import ACTS, Epilogue
from rfaconv.ops.operators import fold_norm, patch_moments, pool_features, rf_conv2d
from rfaconv.ops.window import Window


class Features(NamedTuple):
    """Receptive-field features, relu(weight . (patch - center) + bias): the batch norm folded into the filters.

    weight [C*T, 1, kh, kw], bias [C*T], and center [C, T] or none [0, T], in float64.
    """

    weight: Tensor
    bias: Tensor
    center: Tensor


class Operands(NamedTuple):
    """What weighs the features; which fields are given says which attention it is.

    RFAConv: tap_weight [C, T], whose product with the mean of the receptive field goes through a softmax over the taps.
    RFCBAMConv: channel_gate [B, C] and spatial_gate [B, T, h, w]. RFCAConv: row_gate [B, C, kh, h] and col_gate
    [B, C, kw, w]. None of them: the features as they are (composed of PyTorch's operators only).
    """

    tap_weight: Tensor | None = None
    channel_gate: Tensor | None = None
    spatial_gate: Tensor | None = None
    row_gate: Tensor | None = None
    col_gate: Tensor | None = None


class Call(NamedTuple):
    """What a backend must know of a layer's call to say whether it computes it."""

    input: Tensor
    feature_weight: Tensor
    weight: Tensor
    window: Window
    batch_statistics: bool
    """Whether the features are normalised by this batch's statistics rather than by running ones."""
    shares_statistics: bool = False
    """Whether several processes have common statistics (SyncBatchNorm)."""
    gated: bool = False
    """Whether the attention is two gates, made of pooled features."""


class Backend:
    """A way to compute receptive-field convolutions. To add one, derive from it, override what it computes, and call
    `rfaconv.ops.register_backend`; what it does not override is composed of PyTorch's operators."""

    name: str
    """What users type, e.g. "torch"."""
    auto = True
    """Whether "auto" asks it; else it computes where it is named only."""
    composes_modules = False
    """Whether the layers call their own modules one by one instead of this backend's operators."""

    def description(self) -> str:
        """One line for `rfaconv info`."""
        return ""

    def unsupported_reason(self, call: Call) -> str | None:
        """Why it cannot compute a call, as half a sentence, or None if it can."""
        return None

    def patch_moments(self, x: Tensor, window: Window) -> Tensor:
        """[C, 1 + T + T*T] in float64: number, sum, and sums of products of the patches of x [B, C, H, W]."""
        return patch_moments.composed(x, *window)

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
        """The folded features, and the batch's mean and variance; see `rfaconv.ops.fold_norm`."""
        *features, found_mean, found_var = fold_norm.composed(weight, norm_weight, norm_bias, mean, var, moments, eps)
        return Features(*features), found_mean, found_var

    def pool_features(
        self, x: Tensor, features: Features, window: Window, over_channels: bool
    ) -> tuple[Tensor, Tensor]:
        """Largest and mean feature over the channels, or the means over rows and columns of the map of taps."""
        return pool_features.composed(x, *features, *window[1:], over_channels, False)[:2]

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
        """The weighed features, contracted; see `rfaconv.ops.rf_conv2d`."""
        scale, shift, act = epilogue
        return rf_conv2d.composed(
            x, *features, *operands, weight, bias, *window[1:], groups, scale, shift, ACTS.index(act)
        )
