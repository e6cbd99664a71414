"""RFAConv as the paper writes it, step by step: the oracle of the tests and the plain formula of the benchmarks.

Deliberately plain: it shares no code with the other backends, materialises every tensor the paper names, and works for
any dtype and device.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from rfaconv.ops.call import RFACall


def rfa_reference(call: RFACall) -> Tensor:
    """The receptive-field attention convolution of `call`; see `rfa_conv2d` for the shapes."""
    x, channels = call.input, call.input.shape[1]
    (kh, kw), stride, padding, dilation = call.window
    taps = kh * kw

    # Generate: a depthwise convolution with one output for each tap, BatchNorm, ReLU.
    features = F.conv2d(x, call.feature_weight, None, stride, padding, dilation, groups=channels)
    features = F.batch_norm(
        features,
        call.running_mean,
        call.running_var,
        call.norm_weight,
        call.norm_bias,
        call.batch_statistics,
        call.momentum,
        call.eps,
    )
    features = torch.relu(features)
    batch, _, h, w = features.shape
    features = features.view(batch, channels, taps, h, w)

    # Attend: each tap's share is a softmax over the taps of a weight times the mean of the receptive field.
    padded = F.pad(x, (padding[1], padding[1], padding[0], padding[0]))
    if dilation == (1, 1):
        mean = F.avg_pool2d(padded, (kh, kw), stride)
    else:
        patches = F.unfold(padded, (kh, kw), dilation, 0, stride)
        mean = patches.view(batch, channels, taps, h, w).mean(2)
    weight = call.attention_weight.reshape(channels * taps, 1, 1, 1)
    logits = F.conv2d(mean, weight, groups=channels).view(batch, channels, taps, h, w)
    attended = torch.softmax(logits, dim=2) * features

    # Contract: tap (i, j) of position (y, x) goes to (y*kh + i, x*kw + j), where a kernel of that stride finds it.
    plane = attended.view(batch, channels, kh, kw, h, w).permute(0, 1, 4, 2, 5, 3)
    plane = plane.reshape(batch, channels, h * kh, w * kw)
    return F.conv2d(plane, call.weight, call.bias, stride=(kh, kw), groups=call.groups)
