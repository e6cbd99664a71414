"""Models people have, from timm, torchvision, segmentation_models.pytorch and Ultralytics: converted, they compute the
same, learn, save, load and export."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import segmentation_models_pytorch as smp
import timm
import torch
import torchvision
from conversion_helpers import deviation, outputs, realistic, twin
from torch import Tensor, nn

import rfaconv
from rfaconv.conversion.verification import tensors
from rfaconv.layers import ConvLayer


@dataclass(frozen=True)
class Case:
    """A model, how much of it is to be converted (None: the default), and how many places that is."""

    build: Callable[[], nn.Module]
    places: int
    where: str | None = None
    size: int = 64
    conv: str = "rfa"


def fasterrcnn_backbone() -> nn.Module:
    model = torchvision.models.detection.fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None)
    backbone: nn.Module = model.backbone
    return backbone


def timms(name: str, **arguments: Any) -> Callable[[], nn.Module]:
    return lambda: timm.create_model(name, num_classes=7, **arguments)


def deeplab(encoder: str, stride: int) -> Callable[[], nn.Module]:
    return lambda: smp.DeepLabV3Plus(encoder, encoder_output_stride=stride, encoder_weights=None, classes=5)


FAST = {
    "timm resnet18": Case(timms("resnet18"), 8, "resnet"),
    "timm resnet18, everywhere": Case(timms("resnet18"), 17),
    "timm resnet50": Case(timms("resnet50"), 16, "resnet"),
    "timm mobilenetv3": Case(timms("mobilenetv3_small_100"), 1),
    "timm mobilenetv3, depthwise too": Case(timms("mobilenetv3_small_100"), 11, "*conv_dw", 32),
    "timm efficientnet_b0": Case(timms("efficientnet_b0"), 1),
    "timm convnext_tiny": Case(timms("convnext_tiny"), 4, size=32),
    "timm regnet": Case(timms("regnetx_002"), 14, size=32),
    "timm resnet18, rfcbam": Case(timms("resnet18"), 8, "resnet", conv="rfcbam"),
    "timm resnet18, rfca": Case(timms("resnet18"), 8, "resnet", conv="rfca"),
    "timm resnet18, cbam": Case(timms("resnet18"), 8, "resnet", conv="cbam"),
    "torchvision resnet18": Case(lambda: torchvision.models.resnet18(num_classes=7), 8, "resnet"),
    "smp Unet": Case(lambda: smp.Unet("resnet18", encoder_weights=None, classes=5), 28),
    "smp DeepLabV3Plus, stride 16": Case(deeplab("resnet18", 16), 8, "resnet"),
    "smp DeepLabV3Plus, stride 8": Case(deeplab("tu-resnet18", 8), 8, "resnet"),
}
SLOW = {
    "timm resnet34": Case(timms("resnet34"), 33),
    "timm resnet50, everywhere": Case(timms("resnet50"), 17),
    "timm mobilenetv3_large": Case(timms("mobilenetv3_large_100"), 16, "conv_stem,*conv_dw"),
    "timm efficientnet_b0, depthwise too": Case(timms("efficientnet_b0"), 17, "conv_stem,*conv_dw"),
    "timm convnext_tiny, depthwise too": Case(timms("convnext_tiny"), 22, "*"),
    "timm regnety": Case(timms("regnety_008"), 15),
    "torchvision deeplabv3": Case(
        lambda: torchvision.models.segmentation.deeplabv3_resnet50(
            weights=None, weights_backbone=None, num_classes=5, aux_loss=True
        ),
        22,
    ),
    "torchvision fasterrcnn backbone": Case(fasterrcnn_backbone, 21),
    "smp DeepLabV3Plus, everything, stride 8": Case(deeplab("resnet18", 8), 17, None),
    "smp DeepLabV3Plus, everything, stride 16": Case(deeplab("resnet34", 16), 33, None),
}
CASES = [
    *(pytest.param(case, id=name) for name, case in FAST.items()),
    *(pytest.param(case, id=name, marks=pytest.mark.slow) for name, case in SLOW.items()),
]


def image(case: Case, batch: int = 2) -> Tensor:
    return torch.randn(batch, 3, case.size, case.size)


@pytest.mark.parametrize("case", CASES)
def test_the_same_function_and_it_learns(case: Case, tmp_path: Path) -> None:
    model, x = realistic(case.build()), image(case)
    plain = twin(model)
    summary = rfaconv.convert(model, case.conv, where=case.where, calibrate=x)
    assert len(summary.replaced) == sum(isinstance(layer, ConvLayer) for layer in model.modules()) == case.places
    before, after = outputs(plain, x), outputs(model, x)
    assert deviation(before, after) < 1e-4
    assert summary.deviation is not None
    assert summary.deviation.relative < 1e-4

    # To a file and back, into a plain model.
    rfaconv.save(model, tmp_path / "model.safetensors")
    again = rfaconv.load(tmp_path / "model.safetensors", case.build()).eval()
    assert all(torch.equal(a, b) for a, b in zip(outputs(again, x), after, strict=True))

    # One step of training.
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    loss = sum(value.square().mean() for _, value in tensors(model(x)))
    assert isinstance(loss, Tensor)
    loss.backward()
    optimizer.step()
    layers = [layer for layer in model.modules() if isinstance(layer, ConvLayer)]
    assert all(value.isfinite().all() for value in model.parameters())
    attentions = [value for layer in layers for name, value in layer.attention.named_parameters() if "norm" not in name]
    assert all(value.any() for value in attentions)  # those that started at zero left it
    assert deviation(before, outputs(model.eval(), x)) > 0


EXPORTED = ["timm resnet18, everywhere", "timm convnext_tiny", "smp DeepLabV3Plus, stride 16"]


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=name, marks=[] if name in EXPORTED else pytest.mark.slow)
        for name, case in {**FAST, **SLOW}.items()
    ],
)
def test_exports(case: Case) -> None:
    model, x = realistic(case.build()), image(case)
    rfaconv.convert(model, case.conv, where=case.where, calibrate=x)
    exported = torch.export.export(model, (x,)).module()
    assert deviation(outputs(model, x), outputs(exported, x)) < 1e-5


def test_a_whole_detector_with_its_boxes() -> None:
    """Lists in, lists of dicts out; images of their own sizes."""
    model = torchvision.models.detection.ssdlite320_mobilenet_v3_large(
        weights=None, weights_backbone=None, num_classes=4
    )
    model, images = realistic(model), [torch.rand(3, 90, 120), torch.rand(3, 100, 80)]
    plain = twin(model)
    summary = rfaconv.convert(model, calibrate=[images], forward=lambda model, batch: model(batch))
    assert summary.deviation is not None
    assert summary.deviation.relative < 1e-4
    with torch.no_grad():
        boxes = [found["boxes"] for network in (plain, model) for found in network(images)]
    torch.testing.assert_close(boxes[:2], boxes[2:], rtol=1e-3, atol=1e-3)


def test_smps_own_dilation_is_read_from_the_convolution() -> None:
    """smp rewrites stride and dilation after construction."""
    model = smp.DeepLabV3Plus("resnet18", encoder_output_stride=8, encoder_weights=None)
    wanted = {
        name: (module.stride, module.dilation, module.padding)
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d)
    }
    rfaconv.convert(model, where="resnet")
    layers = {name: module for name, module in model.named_modules() if isinstance(module, ConvLayer)}
    assert {name: (m.stride, m.dilation, m.padding) for name, m in layers.items()} == {
        name: wanted[name] for name in layers
    }
    assert any(dilation != (1, 1) for _, dilation, _ in wanted.values())


@pytest.mark.skipif(importlib.util.find_spec("ultralytics") is None, reason="Ultralytics is not installed")
@pytest.mark.parametrize("where", ["downsample", None])
def test_yolov8n(where: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"YOLO_OFFLINE": "1", "YOLO_AUTOINSTALL": "0", "YOLO_CONFIG_DIR": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    from ultralytics import YOLO

    yolo, x = YOLO("yolov8n.yaml"), torch.rand(2, 3, 96, 96)
    with pytest.raises(rfaconv.UserError, match=r"Ultralytics' wrapper: convert the model inside it, yolo\.model"):
        rfaconv.convert(yolo)
    model: Any = realistic(yolo.model)
    plain = twin(model)
    summary = rfaconv.convert(model, where=where, calibrate=x)
    names = [place.name for place in summary.replaced]
    if where == "downsample":  # the paper's places
        assert names == [f"model.{index}.conv" for index in (1, 3, 5, 7, 16, 19)]
    assert deviation(outputs(plain, x), outputs(model, x)) < 1e-4
    rfaconv.save(model, tmp_path / "yolo.safetensors")
    again = rfaconv.load(tmp_path / "yolo.safetensors", YOLO("yolov8n.yaml").model).eval()
    assert deviation(outputs(model, x), outputs(again, x)) == 0
    exported = torch.export.export(model, (x,)).module()
    assert deviation(outputs(model, x), outputs(exported, x)) < 1e-5
    model.train()
    loss = sum(value.square().mean() for value in flat(model(x)))
    assert isinstance(loss, Tensor)
    loss.backward()
    layer = model.get_submodule(names[0])
    assert layer.attention.weight.grad.abs().sum() > 0


def flat(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    return [part for item in (value.values() if isinstance(value, Mapping) else value) for part in flat(item)]
