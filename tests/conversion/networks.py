"""Models people have, of timm, torchvision, segmentation_models.pytorch and Ultralytics, and where they are converted.

For the tests, and for the table of docs/conversion.md (benchmarks/conversion.py).
"""

from __future__ import annotations

import importlib.util
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import segmentation_models_pytorch as smp
import timm
import torch
import torchvision
from torch import Tensor, nn


@dataclass(frozen=True)
class Case:
    """A model, how much of it is to be converted (None: the default), and how many places that is."""

    build: Callable[[], nn.Module]
    places: int
    where: str | None = None
    size: int = 64
    conv: str = "rfa"

    def images(self) -> Tensor:
        return torch.randn(2, 3, self.size, self.size)


def timms(name: str, **arguments: Any) -> Callable[[], nn.Module]:
    return lambda: timm.create_model(name, num_classes=7, **arguments)


def deeplab(encoder: str, stride: int) -> Callable[[], nn.Module]:
    return lambda: smp.DeepLabV3Plus(encoder, encoder_output_stride=stride, encoder_weights=None, classes=5)


def torchvisions_deeplab() -> nn.Module:
    return torchvision.models.segmentation.deeplabv3_resnet50(
        weights=None, weights_backbone=None, num_classes=5, aux_loss=True
    )


def fasterrcnn_backbone() -> nn.Module:
    model = torchvision.models.detection.fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None)
    backbone: nn.Module = model.backbone
    return backbone


HAS_ULTRALYTICS = importlib.util.find_spec("ultralytics") is not None


def yolo() -> Any:
    """Ultralytics' wrapper around YOLOv8n; it reads its settings from the environment when it is imported."""
    os.environ.update(YOLO_OFFLINE="1", YOLO_AUTOINSTALL="0")
    os.environ.setdefault("YOLO_CONFIG_DIR", tempfile.mkdtemp())
    from ultralytics import YOLO

    return YOLO("yolov8n.yaml")


FAST = {
    "timm resnet18": Case(timms("resnet18"), 8, "resnet"),
    "timm resnet18, everywhere": Case(timms("resnet18"), 17),
    "timm resnet18, rfcbam": Case(timms("resnet18"), 8, "resnet", conv="rfcbam"),
    "timm resnet18, rfca": Case(timms("resnet18"), 8, "resnet", conv="rfca"),
    "timm resnet18, cbam": Case(timms("resnet18"), 8, "resnet", conv="cbam"),
    "timm resnet50": Case(timms("resnet50"), 16, "resnet"),
    "timm mobilenetv3_small": Case(timms("mobilenetv3_small_100"), 1),
    "timm mobilenetv3_small, depthwise too": Case(timms("mobilenetv3_small_100"), 11, "*conv_dw", 32),
    "timm efficientnet_b0": Case(timms("efficientnet_b0"), 1),
    "timm convnext_tiny": Case(timms("convnext_tiny"), 4, size=32),
    "timm regnetx_002": Case(timms("regnetx_002"), 14, size=32),
    "torchvision resnet18": Case(lambda: torchvision.models.resnet18(num_classes=7), 8, "resnet"),
    "smp Unet": Case(lambda: smp.Unet("resnet18", encoder_weights=None, classes=5), 28),
    "smp DeepLabV3Plus, stride 16": Case(deeplab("resnet18", 16), 8, "resnet"),
    "smp DeepLabV3Plus, stride 8": Case(deeplab("tu-resnet18", 8), 8, "resnet"),
}
SLOW = {
    "timm resnet34, everywhere": Case(timms("resnet34"), 33),
    "timm resnet50, everywhere": Case(timms("resnet50"), 17),
    "timm mobilenetv3_large, depthwise too": Case(timms("mobilenetv3_large_100"), 16, "conv_stem,*conv_dw"),
    "timm efficientnet_b0, depthwise too": Case(timms("efficientnet_b0"), 17, "conv_stem,*conv_dw"),
    "timm convnext_tiny, depthwise too": Case(timms("convnext_tiny"), 22, "*"),
    "timm regnety_008": Case(timms("regnety_008"), 15),
    "torchvision deeplabv3_resnet50": Case(torchvisions_deeplab, 22),
    "torchvision fasterrcnn backbone": Case(fasterrcnn_backbone, 21),
    "smp DeepLabV3Plus, everything, stride 8": Case(deeplab("resnet18", 8), 17),
    "smp DeepLabV3Plus, everything, stride 16": Case(deeplab("resnet34", 16), 33),
}
ULTRALYTICS = {
    "Ultralytics YOLOv8n, the paper's places": Case(lambda: yolo().model, 6, "downsample", 96),
    "Ultralytics YOLOv8n, everywhere": Case(lambda: yolo().model, 39, size=96),
}
