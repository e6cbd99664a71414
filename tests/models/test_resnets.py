"""The ResNets: published sizes, places, and timm's and smp's ways of finding them."""

from __future__ import annotations

import pytest
import segmentation_models_pytorch as smp
import timm
import torch
from torch import nn

import rfaconv
from rfaconv.layers import ConvLayer
from rfaconv.profiling import count

# PAPER, ImageNet table: MACs in G and params in M at 224 px.
PUBLISHED = {
    ("resnet18", "conv"): (1.82, 11.69),
    ("resnet18", "cam"): (1.83, 11.75),
    ("resnet18", "cbam"): (1.83, 11.75),
    ("resnet18", "ca"): (1.83, 11.74),
    ("resnet18", "rfa"): (1.91, 11.85),
    ("resnet18", "rfca"): (1.92, 11.89),
    ("resnet18", "rfcbam"): (1.90, 11.88),
    ("resnet34", "conv"): (3.68, 21.80),
    ("resnet34", "cam"): (3.68, 21.93),
    ("resnet34", "cbam"): (3.68, 21.93),
    ("resnet34", "ca"): (3.68, 21.91),
    ("resnet34", "rfa"): (3.84, 22.16),
}
LAYERS = ["conv", "rf", "rfa", "rfcbam", "rfca", "cam", "cbam", "ca"]


@pytest.mark.parametrize(("row", "sizes"), PUBLISHED.items(), ids=str)
def test_published_sizes(row: tuple[str, str], sizes: tuple[float, float]) -> None:
    found = count(rfaconv.create_model(*row), (3, 224, 224))
    assert (round(found.macs / 1e9, 2), round(found.params / 1e6, 2)) == sizes


def parameters_by_hand(conv: str, channels: int) -> int:
    """What one layer has beyond the bias-free convolution it replaces, from PAPER's definitions."""
    coordinate = max(8, channels // 32)
    coordinate = (channels + 1) * coordinate + 2 * coordinate + 2 * (coordinate + 1) * channels
    features = channels * 9 * 9 + 2 * channels * 9
    return {
        "rf": features,
        "rfa": features + channels * 9,
        "rfcbam": features + 2 * 16 * channels + 2 * 9,
        "rfca": features + coordinate,
        "cam": 2 * channels * (channels // 16),
        "cbam": 2 * channels * (channels // 16) + 2 * 49,
        "ca": coordinate,
    }[conv]


@pytest.mark.parametrize("conv", LAYERS[1:])
@pytest.mark.parametrize(("name", "blocks"), [("resnet18", (2, 2, 2, 2)), ("resnet34", (3, 4, 6, 3))])
def test_parameters_to_the_last_one(name: str, blocks: tuple[int, ...], conv: str) -> None:
    extra, before = 0, 64
    for channels, repeats in zip((64, 128, 256, 512), blocks, strict=True):
        for inputs in [before] + [channels] * (repeats - 1):
            extra += parameters_by_hand(conv, inputs) + channels  # and the bias
        before = channels
    plain = sum(value.numel() for value in timm.create_model(name).parameters())
    model = rfaconv.create_model(name, conv)
    assert sum(value.numel() for value in model.parameters()) == plain + extra


def test_the_plain_model_is_timms() -> None:
    ours, timms = rfaconv.create_model("resnet50"), timm.create_model("resnet50")
    timms.load_state_dict(ours.state_dict())
    x = torch.randn(1, 3, 64, 64)
    assert torch.equal(ours.eval()(x), timms.eval()(x))


@pytest.mark.parametrize(("name", "place"), [("resnet18", "conv1"), ("resnet50", "conv2"), ("resnet10s", "conv1")])
def test_the_papers_places(name: str, place: str) -> None:
    layers = {key for key, value in rfaconv.create_model(name, "rfa").named_modules() if isinstance(value, ConvLayer)}
    blocks = {key for key, value in timm.create_model(f"{name}_conv").named_modules() if hasattr(value, "conv2")}
    assert layers == {f"{block}.{place}" for block in blocks}


@pytest.mark.parametrize("conv", LAYERS)
def test_small_model_on_small_images(conv: str) -> None:
    model = rfaconv.create_model("resnet10s", conv, num_classes=7, in_chans=1)
    for size in (28, 33, 64):
        assert model(torch.randn(2, 1, size, size)).shape == (2, 7)


@pytest.mark.parametrize("name", ["resnet18_rfa", "resnet10s_rfcbam", "resnet50_ca"])
def test_timm_finds_them(name: str) -> None:
    features = timm.create_model(name, features_only=True, in_chans=1)
    x = torch.randn(1, 1, 64, 64)
    for feature, channels, reduction in zip(
        features(x), features.feature_info.channels(), features.feature_info.reduction(), strict=True
    ):
        assert feature.shape == (1, channels, 64 // reduction, 64 // reduction)


@pytest.mark.parametrize("conv", ["rfa", "rfca", "cbam"])
@pytest.mark.parametrize("output_stride", [8, 16, 32])
def test_output_stride_dilates_our_layers_as_timm_dilates_its_own(conv: str, output_stride: int) -> None:
    ours = rfaconv.create_model("resnet18", conv, output_stride=output_stride)
    plain = dict(timm.create_model("resnet18", output_stride=output_stride).named_modules())
    for name, layer in ours.named_modules():
        if isinstance(layer, ConvLayer):
            conv2d = plain[name]
            assert isinstance(conv2d, nn.Conv2d)
            assert (layer.stride, layer.padding, layer.dilation) == (conv2d.stride, conv2d.padding, conv2d.dilation)
    assert ours.forward_features(torch.randn(1, 3, 64, 64)).shape[-1] == 64 // output_stride


def test_smp_encoders_find_them() -> None:
    model = smp.DeepLabV3Plus(
        "tu-resnet18_rfa", encoder_output_stride=16, encoder_weights=None, in_channels=3, classes=5
    )
    assert sum(isinstance(layer, rfaconv.RFAConv) for layer in model.modules()) == 8
    assert model.eval()(torch.randn(1, 3, 64, 64)).shape == (1, 5, 64, 64)


def test_the_layers_start_as_the_convolution_they_replace() -> None:
    """The same kind of draw as timm's for Conv2d: normal, scaled by the fan out."""
    layer = rfaconv.create_model("resnet18", "rfa").layer3[1].conv1
    assert layer.weight.std().item() == pytest.approx((2 / (256 * 9)) ** 0.5, rel=0.02)


def test_unknown_names_answer_with_the_nearest() -> None:
    with pytest.raises(rfaconv.UserError, match=r"Unknown model 'resnet19'\. Did you mean 'resnet18'"):
        rfaconv.create_model("resnet19")
    with pytest.raises(rfaconv.UserError, match="Unknown convolution 'rfaa'"):
        rfaconv.create_model("resnet18", "rfaa")
