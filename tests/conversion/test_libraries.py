"""Models people have, from timm, torchvision, segmentation_models.pytorch and Ultralytics: converted, they compute the
same, learn, save, load and export."""

from __future__ import annotations

from pathlib import Path

import pytest
import segmentation_models_pytorch as smp
import torch
import torchvision
from conversion_helpers import deviation, outputs, realistic, twin
from networks import FAST, HAS_ULTRALYTICS, SLOW, ULTRALYTICS, Case, yolo
from torch import Tensor, nn

import rfaconv
from rfaconv.conversion.verification import tensors
from rfaconv.layers import ConvLayer

needs_ultralytics = pytest.mark.skipif(not HAS_ULTRALYTICS, reason="Ultralytics is not installed")
CASES = [
    *(pytest.param(case, id=name) for name, case in FAST.items()),
    *(pytest.param(case, id=name, marks=pytest.mark.slow) for name, case in SLOW.items()),
    *(pytest.param(case, id=name, marks=needs_ultralytics) for name, case in ULTRALYTICS.items()),
]


@pytest.mark.parametrize("case", CASES)
def test_the_same_function_and_it_learns(case: Case, tmp_path: Path) -> None:
    model, x = realistic(case.build()), case.images()
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


EXPORTED = {"timm resnet18, everywhere", "timm convnext_tiny", "smp DeepLabV3Plus, stride 16", *ULTRALYTICS}
"""The others take a minute together."""


@pytest.mark.parametrize(
    "case",
    [
        case if case.id in EXPORTED else pytest.param(*case.values, id=case.id, marks=[*case.marks, pytest.mark.slow])
        for case in CASES
    ],
)
def test_exports(case: Case) -> None:
    model, x = realistic(case.build()), case.images()
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


@needs_ultralytics
def test_yolo_is_told_apart_from_its_wrapper_and_has_the_papers_places() -> None:
    wrapper = yolo()
    with pytest.raises(rfaconv.UserError, match=r"Ultralytics' wrapper: convert the model inside it, yolo\.model"):
        rfaconv.convert(wrapper)
    summary = rfaconv.convert(wrapper.model, where="downsample")
    assert [place.name for place in summary.replaced] == [f"model.{index}.conv" for index in (1, 3, 5, 7, 16, 19)]
