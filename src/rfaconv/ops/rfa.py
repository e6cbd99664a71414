"""Receptive-field attention convolution, functional form (arXiv 2304.03198, section 3.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from rfaconv.ops.call import RFACall
from rfaconv.ops.dispatch import compute
from rfaconv.ops.epilogue import Epilogue
from rfaconv.ops.window import IntPair, Window

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


def rfa_conv2d(
    input: Tensor,
    feature_weight: Tensor,
    attention_weight: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    norm_weight: Tensor | None = None,
    norm_bias: Tensor | None = None,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    stride: IntPair = 1,
    padding: IntPair = 0,
    dilation: IntPair = 1,
    groups: int = 1,
    epilogue: Epilogue = Epilogue(),  # noqa: B008 (immutable)
    process_group: ProcessGroup | None = None,
    backend: str | None = None,
) -> Tensor:
    """Convolve with an attention weight of its own for each tap of each receptive field.

    With T = kh*kw taps, F = relu(batch_norm(depthwise_conv(input))) read as [B, C, T, h, w], m the mean of each
    receptive field (padding counted) and A = softmax over t of attention_weight[c, t] * m[b, c, y, x]::

        out[b, o, y, x] = bias[o] + sum over c, t of weight[o, c, t] * A[b, c, t, y, x] * F[b, c, t, y, x]

    Args:
        input: [B, C, H, W]; B may be 0.
        feature_weight: [C*T, 1, kh, kw], the depthwise filters, channel-major.
        attention_weight: [C, T].
        weight: [O, C/groups, kh, kw], as Conv2d's.
        bias: [O] or None.
        norm_weight, norm_bias: [C*T] or None, the batch norm's affine part.
        running_mean, running_var: [C*T], or both None to use the batch's statistics always. Updated in place when
            `training`, as F.batch_norm does.
        training: normalise by the batch's statistics.
        momentum: of the running statistics; eps: added to the variance.
        stride, padding, dilation: int or (vertical, horizontal); padding is with zeros.
        groups: of the contraction; must divide C and O.
        epilogue: what follows, act(out * scale + shift) for each output channel, for inference; computed together
            where the backend can.
        process_group: whose processes share the batch's statistics (SyncBatchNorm); None for this one alone.
        backend: a name from `rfaconv.ops.backends()`, "auto", or None for the one of `use_backend` (else "auto").

    Returns:
        [B, O, h, w], the size Conv2d gives.

    Raises:
        ValueError: a shape or window argument does not fit; the message names it.
        UserError: the named backend is unknown or declines the call.
    """
    window = Window.of((weight.shape[-2], weight.shape[-1]), stride, padding, dilation)
    call = RFACall(
        input,
        feature_weight,
        attention_weight,
        weight,
        bias,
        norm_weight,
        norm_bias,
        running_mean,
        running_var,
        training,
        momentum,
        eps,
        window,
        groups,
        epilogue,
        process_group,
    )
    call.check()
    return compute(call, backend)
