"""RFAConv composed of PyTorch's own operators, without the rearrangement and with the batch norm folded in eval."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from rfaconv.ops.call import RFACall
from rfaconv.ops.stages import contract, fold_batch_norm, generate, tap_softmax, window_mean


def rfa_composed(call: RFACall) -> Tensor:
    """The receptive-field attention convolution of `call`; see `rfa_conv2d` for the shapes."""
    features = normalised_features(call)
    shares = tap_softmax(window_mean(call.input, call.window), call.attention_weight, call.window.kernel_size)
    return contract(shares * features, call.weight, call.bias, call.groups)


def normalised_features(call: RFACall) -> Tensor:
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
