"""RFAConv composed of PyTorch's own operators, without the rearrangement and with the batch norm folded in eval."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from rfaconv.ops.call import RFACall
from rfaconv.ops.stages import contract, fold_batch_norm, generate, output_size, tap_softmax, window_mean

PART = 2**20
"""Feature values computed at a time in inference on a CPU: 4 MiB in float32, which caches hold (docs/benchmarks.md)."""


def rfa_composed(call: RFACall) -> Tensor:
    """The receptive-field attention convolution of `call`; see `rfa_conv2d` for the shapes."""
    images = _images_at_a_time(call)
    if images >= call.input.shape[0]:
        return _compose(call)
    return torch.cat([_compose(call._replace(input=part)) for part in call.input.split(images)])


def _images_at_a_time(call: RFACall) -> int:
    """All of them, but for inference on a CPU, where tensors larger than the caches cost more than anything else."""
    x = call.input
    traced = torch.compiler.is_compiling() or torch.jit.is_tracing()  # type: ignore[attr-defined]
    whole = call.batch_statistics or torch.is_grad_enabled() or traced or x.device.type != "cpu"
    if whole or not x.numel():
        return x.shape[0]
    height, width = output_size(x, call.window)
    return max(1, PART // max(1, x.shape[1] * call.window.taps * height * width))


def _compose(call: RFACall) -> Tensor:
    features = _normalised_features(call)
    shares = tap_softmax(window_mean(call.input, call.window), call.attention_weight, call.window.kernel_size)
    return contract(shares * features, call.weight, call.bias, call.groups)


def _normalised_features(call: RFACall) -> Tensor:
    """relu(batch_norm(generate(input))): [B, C, kh, kw, h, w]."""
    if call.batch_statistics or call.running_mean is None or call.running_var is None:
        features = generate(call.input, call.feature_weight, None, call.window)
        normalised = F.batch_norm(
            features.flatten(1, 3),
            call.running_mean,
            call.running_var,
            call.norm_weight,
            call.norm_bias,
            True,
            call.momentum,
            call.eps,
        )
        return F.relu(normalised, inplace=True).view_as(features)
    weight, bias = fold_batch_norm(
        call.feature_weight, call.norm_weight, call.norm_bias, call.running_mean, call.running_var, call.eps
    )
    return F.relu(generate(call.input, weight, bias, call.window), inplace=True)
