"""A detection model of Ultralytics with our layers in it."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from ultralytics.nn.modules import Conv
from ultralytics.nn.tasks import DetectionModel, yaml_model_load
from ultralytics.utils.torch_utils import initialize_weights

from rfaconv.layers.base import ConvLayer
from rfaconv.layers.registry import create_conv
from rfaconv.models.yolo.anchors import AnchorDetect, AnchorLoss
from rfaconv.models.yolo.rows import Config, anchors_of, as_plain, ours


class AttentionDetectionModel(DetectionModel):
    """Ultralytics' DetectionModel, whose configuration may name our layers.

    It is built plain first, with width scaling and all; the convolutions in our rows are then exchanged by layers with
    their arguments, followed by a batch norm and the activation they had. Ultralytics itself cannot build such a
    configuration and says so, so it never trains a model that has silently lost its layers.

    Args:
        cfg: a configuration, or the path or name of one.
        ch: channels of the images.
        nc: classes; None for what the configuration says.
        verbose: let Ultralytics print the model.
    """

    yaml: Config

    def __init__(self, cfg: Config | str | Path, ch: int = 3, nc: int | None = None, verbose: bool = False) -> None:
        config = cfg if isinstance(cfg, dict) else yaml_model_load(cfg)
        super().__init__(as_plain(config), ch=ch, nc=nc, verbose=verbose)
        found = ours(config)
        for number, conv in found.items():
            self.model[number] = _exchanged(self.model[number], conv)
        if (anchors := anchors_of(config)) is not None:
            self.model[-1] = _with_anchors(self.model[-1], anchors)
        self.yaml = {**copy.deepcopy(config), "channels": self.yaml["channels"], "nc": self.yaml["nc"]}
        initialize_weights(self)

    def init_criterion(self) -> Any:
        """The loss that belongs to the head."""
        return AnchorLoss(self) if isinstance(self.model[-1], AnchorDetect) else super().init_criterion()

    def fuse(self, verbose: bool = False, imgsz: int | list[int] = 640) -> nn.Module:
        """Fold every batch norm that follows a convolution into it, ours too; the outputs stay the same."""
        for module in self.modules():
            if isinstance(module, ConvLayer):
                fold_norm(module)
        return super().fuse(verbose=verbose, imgsz=imgsz)


def _exchanged(old: Any, conv: str) -> nn.Module:
    """The layer for a Conv, or for a Sequential of them, with what Ultralytics' forward pass wants to know of it."""
    many = isinstance(old, nn.Sequential)
    new: Any = nn.Sequential(*(_layer(part, conv) for part in old)) if many else _layer(old, conv)
    new.i, new.f = old.i, old.f
    kind = type(new[0] if many else new)
    new.type = f"{kind.__module__}.{kind.__qualname__}"
    new.np = sum(parameter.numel() for parameter in new.parameters())
    return new


def _with_anchors(old: Any, anchors: list[list[float]]) -> AnchorDetect:
    """The head with anchors in the place of Ultralytics' own."""
    new = AnchorDetect(old.nc, anchors, [part[0].conv.in_channels for part in old.cv2], old.stride)
    new.i, new.f, new.type = old.i, old.f, f"{AnchorDetect.__module__}.{AnchorDetect.__qualname__}"
    new.np = sum(parameter.numel() for parameter in new.parameters())
    return new


def _layer(old: nn.Module, conv: str) -> Any:
    assert isinstance(old, Conv)
    plain = old.conv
    return create_conv(
        conv,
        plain.in_channels,
        plain.out_channels,
        plain.kernel_size,
        plain.stride,
        plain.padding,
        plain.dilation,
        plain.groups,
        norm_layer=nn.BatchNorm2d,
        act_layer=lambda: copy.deepcopy(old.act),
    )


def fold_norm(layer: ConvLayer) -> None:
    """Fold the batch norm at the end of a layer into its weight and bias; does nothing where there is none."""
    norm = layer.norm
    if type(norm) is not nn.BatchNorm2d or norm.running_mean is None or norm.running_var is None:
        return
    with torch.no_grad():
        scale = torch.rsqrt(norm.running_var + norm.eps)
        if norm.weight is not None:
            scale = scale * norm.weight
        bias: Tensor = -norm.running_mean * scale if layer.bias is None else (layer.bias - norm.running_mean) * scale
        if norm.bias is not None:
            bias = bias + norm.bias
        layer.weight = nn.Parameter(layer.weight * scale[:, None, None, None], layer.weight.requires_grad)
        layer.bias = nn.Parameter(bias, layer.weight.requires_grad)
    layer.norm = None
