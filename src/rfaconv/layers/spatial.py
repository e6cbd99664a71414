"""The spatial column of the family: attention on the layer's input, then the convolution."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from rfaconv.layers.attention import Attention, ChannelAttention, ChannelSpatialAttention, CoordinateAttention
from rfaconv.layers.base import ConvLayer
from rfaconv.ops.epilogue import Epilogue
from rfaconv.ops.window import Window

_ONE_TAP = Window((1, 1))


class AttentionConv2d(ConvLayer):
    """Conv2d over an input weighed by `attention`; without one it is Conv2d. Arguments as `ConvLayer`."""

    def _convolve(self, x: Tensor, epilogue: Epilogue) -> Tensor:
        if self.attention is not None and x.numel():  # nothing has no maximum
            features = x.unflatten(1, (-1, 1, 1))
            x = self.attention(features, x, _ONE_TAP).flatten(1, 3)
        return F.conv2d(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


class CAMConv(AttentionConv2d):
    """Channel attention (CBAM's: max and mean pooled, hidden C // 16), then Conv2d. Short name `cam`."""

    def _own_attention(self, channels: int) -> Attention:
        return ChannelAttention(channels)


class CBAMConv(AttentionConv2d):
    """CAMConv's channel attention, then a 7x7 spatial attention, then Conv2d. Short name `cbam`."""

    def _own_attention(self, channels: int) -> Attention:
        return ChannelSpatialAttention(channels)


class CAConv(AttentionConv2d):
    """Coordinate attention (hidden max(8, C // 32)), then Conv2d. Short name `ca`."""

    def _own_attention(self, channels: int) -> Attention:
        return CoordinateAttention(channels)
