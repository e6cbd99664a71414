"""timm's residual blocks with one convolution exchanged: the place is the paper's (section 4)."""

from __future__ import annotations

from typing import Any

from timm.models.resnet import BasicBlock, Bottleneck, ResNet
from torch import nn

from rfaconv.layers.base import ConvLayer
from rfaconv.layers.registry import create_conv


class ConvBasicBlock(BasicBlock):
    """BasicBlock whose first 3x3 convolution is the layer named `conv`."""

    conv1: nn.Module

    def __init__(self, *args: Any, conv: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.conv1 = layer_like(self.conv1, conv)


class ConvBottleneck(Bottleneck):
    """Bottleneck whose 3x3 convolution is the layer named `conv`."""

    conv2: nn.Module

    def __init__(self, *args: Any, conv: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.conv2 = layer_like(self.conv2, conv)


def use_conv(arguments: dict[str, Any], conv: str) -> dict[str, Any]:
    """timm ResNet arguments with the block for `conv`; the plain convolution keeps timm's own block."""
    if conv == "conv":
        return arguments
    block = {BasicBlock: ConvBasicBlock, Bottleneck: ConvBottleneck}[arguments["block"]]
    return {**arguments, "block": block, "block_args": {**arguments.get("block_args", {}), "conv": conv}}


def initialise_like_conv(model: ResNet) -> None:
    """Give the exchanged convolutions the initialisation that timm gives the ones they replace."""
    for module in model.modules():
        if isinstance(module, ConvLayer):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def layer_like(old: nn.Module, conv: str) -> Any:
    """The layer `conv` with the arguments of `old`; the published layers have a bias, so this one does too."""
    assert isinstance(old, nn.Conv2d)
    return create_conv(
        conv,
        old.in_channels,
        old.out_channels,
        old.kernel_size,
        old.stride,
        old.padding,
        old.dilation,
        old.groups,
        device=old.weight.device,
        dtype=old.weight.dtype,
    )
