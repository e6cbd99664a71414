"""A small ResNet for images of 28 to 64 px."""

from __future__ import annotations

from typing import Any

from timm.models.resnet import ResNet
from torch import nn


class SmallResNet(ResNet):
    """timm's ResNet without the pooling of the stem, which would leave small images too little to look at.

    The stages work at 1/2, 1/4, 1/8 and 1/16 of the image instead of 1/4 to 1/32.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.maxpool = nn.Identity()
        for stage in self.feature_info[1:]:
            stage["reduction"] //= 2
