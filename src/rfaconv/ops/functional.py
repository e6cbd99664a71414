"""Receptive-field convolutions in functional form: the four steps that the layers call too (arXiv 2304.03198).

moments = patch_moments(x, 3, padding=1)                                     # in training only
features, mean, var = fold_norm(filters, gamma, beta, moments=moments)       # or running_mean=, running_var=
largest, average = pool_features(x, features, over="channels", padding=1)    # for gates, where there are some
out = rf_conv2d(x, features, Operands(tap_weight=attention), weight, bias, padding=1)
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from rfaconv.ops.backend import Backend, Call, Features, Operands
from rfaconv.ops.dispatch import choose_backend
from rfaconv.ops.epilogue import Epilogue
from rfaconv.ops.window import IntPair, Window


def patch_moments(
    x: Tensor,
    kernel_size: IntPair,
    stride: IntPair = 1,
    padding: IntPair = 0,
    dilation: IntPair = 1,
    *,
    backend: str | None = None,
) -> Tensor:
    """The moments of the patches of x, from which `fold_norm` has the features' batch statistics.

    Args:
        x: [B, C, H, W].
        kernel_size, stride, padding, dilation: int or (vertical, horizontal).
        backend: as in `rf_conv2d`.

    Returns:
        [C, 1 + T + T*T] in float64, T = kh*kw: how many patches, their sum, the sums of products of their taps. Moments
        of several parts of a batch, or of several processes, add up.
    """
    window = Window.of(kernel_size, stride, padding, dilation)
    return _choose(backend, x, x, x, window).patch_moments(x, window)


def fold_norm(
    weight: Tensor,
    norm_weight: Tensor | None = None,
    norm_bias: Tensor | None = None,
    *,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    moments: Tensor | None = None,
    eps: float = 1e-5,
    backend: str | None = None,
) -> tuple[Features, Tensor, Tensor]:
    """Fold the features' batch norm into their filters: by running statistics, or by the batch's own.

    Args:
        weight: [C*T, 1, kh, kw], the depthwise filters, channel-major.
        norm_weight, norm_bias: [C*T] or None, the norm's affine part.
        running_mean, running_var: [C*T]; not read where there are moments.
        moments: of `patch_moments`.
        eps: added to the variance.
        backend: as in `rf_conv2d`.

    Returns:
        The features for `rf_conv2d`, and the batch's mean and biased variance of each [C*T] (empty without moments).

    Raises:
        ValueError: neither statistics nor moments.
    """
    if moments is None and (running_mean is None or running_var is None):
        raise ValueError("fold_norm needs running_mean and running_var, or the moments of patch_moments")
    chosen = _choose(backend, weight, weight, weight, Window((1, 1)))
    return chosen.fold_norm(weight, norm_weight, norm_bias, running_mean, running_var, moments, eps)


def pool_features(
    x: Tensor,
    features: Features,
    over: Literal["channels", "lines"],
    stride: IntPair = 1,
    padding: IntPair = 0,
    dilation: IntPair = 1,
    *,
    backend: str | None = None,
) -> tuple[Tensor, Tensor]:
    """Pool the features of x [B, C, H, W] without holding them.

    Args:
        over: "channels": the largest and the mean feature over C, [B, T, h, w] each. "lines": the means over the rows
            and over the columns of the map in which the taps are laid out, [B, C, kh, h] and [B, C, kw, w].
        backend: as in `rf_conv2d`.
    """
    kernel_size = (features.weight.shape[2], features.weight.shape[3])
    window = Window.of(kernel_size, stride, padding, dilation)
    return _choose(backend, x, x, x, window).pool_features(x, features, window, over == "channels")


def rf_conv2d(
    x: Tensor,
    features: Features,
    operands: Operands,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: IntPair = 1,
    padding: IntPair = 0,
    dilation: IntPair = 1,
    groups: int = 1,
    *,
    epilogue: Epilogue = Epilogue(),  # noqa: B008 (immutable)
    backend: str | None = None,
) -> Tensor:
    """Convolve with an attention weight for each tap of each receptive field.

    With F[b, c, t, y, x] the features and A their weights::

        out[b, o, y, x] = bias[o] + sum over c, t of weight[o, c, t] * A[b, c, t, y, x] * F[b, c, t, y, x]

    Args:
        x: [B, C, H, W]; B may be 0.
        features: of `fold_norm`.
        operands: A. tap_weight [C, T]: softmax over t of tap_weight[c, t] times the mean of the receptive field,
            padding counted (RFAConv, section 3.2). channel_gate [B, C] and spatial_gate [B, T, h, w]: their product
            (RFCBAMConv). row_gate [B, C, kh, h] and col_gate [B, C, kw, w]: theirs (RFCAConv).
        weight: [O, C/groups, kh, kw], as Conv2d's; bias: [O] or None.
        stride, padding, dilation: int or (vertical, horizontal); padding is with zeros.
        groups: of the contraction; must divide C and O.
        epilogue: what follows, act(out * scale + shift) for each output channel; computed together without gradients.
        backend: a name from `rfaconv.ops.backends()`, "auto", or None for the one of `use_backend` (else "auto").

    Returns:
        [B, O, h, w], the size Conv2d gives.

    Raises:
        ValueError: a window argument is wrong; RuntimeError: a shape does not fit.
        UserError: the named backend is unknown or cannot compute the call.
    """
    window = Window.of((weight.shape[-2], weight.shape[-1]), stride, padding, dilation)
    chosen = _choose(backend, x, x, weight, window)
    return chosen.rf_conv2d(x, features, operands, weight, bias, window, groups, epilogue)


def _choose(name: str | None, x: Tensor, filters: Tensor, weight: Tensor, window: Window) -> Backend:
    return choose_backend(name, Call(x, filters, weight, window, batch_statistics=False))
