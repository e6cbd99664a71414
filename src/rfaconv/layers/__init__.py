"""The layers: drop-in for Conv2d, needing torch alone."""

from rfaconv.layers.attention import (
    Attention,
    ChannelAttention,
    ChannelSpatialAttention,
    CoordinateAttention,
    SpatialAttention,
    TapSoftmax,
)
from rfaconv.layers.base import ConvLayer
from rfaconv.layers.receptive_field import ReceptiveFieldConv2d, RFAConv, RFCAConv, RFCBAMConv
from rfaconv.layers.registry import conv_names, create_conv, register_attention, register_conv
from rfaconv.layers.spatial import AttentionConv2d, CAConv, CAMConv, CBAMConv

__all__ = [
    "Attention",
    "AttentionConv2d",
    "CAConv",
    "CAMConv",
    "CBAMConv",
    "ChannelAttention",
    "ChannelSpatialAttention",
    "ConvLayer",
    "CoordinateAttention",
    "RFAConv",
    "RFCAConv",
    "RFCBAMConv",
    "ReceptiveFieldConv2d",
    "SpatialAttention",
    "TapSoftmax",
    "conv_names",
    "create_conv",
    "register_attention",
    "register_conv",
]
