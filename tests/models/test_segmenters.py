"""Segmentation models: sizes, dilation at both strides, a classifier's weights, and what is refused."""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from timm import create_model as timm_model
from torch import Tensor, nn

import rfaconv
from rfaconv.errors import MissingExtraError, UserError
from rfaconv.layers.base import ConvLayer
from rfaconv.models import architecture_names, encoder_names
from rfaconv.ops import use_backend

CONVS = ["rf", "rfa", "rfcbam", "rfca", "cam", "cbam", "ca"]


@pytest.mark.parametrize(("conv", "millions"), [("conv", "12.33"), ("rfa", "12.50")])
def test_sizes(conv: str, millions: str) -> None:
    model = rfaconv.create_segmenter("deeplabv3plus", encoder="resnet18", conv=conv, output_stride=16, classes=21)
    assert f"{sum(parameter.numel() for parameter in model.parameters()) / 1e6:.2f}" == millions


@pytest.mark.parametrize("architecture", architecture_names())
@pytest.mark.parametrize("conv", ["conv", "rfa"])
def test_every_architecture_takes_the_encoder(architecture: str, conv: str) -> None:
    model = rfaconv.create_segmenter(architecture, "resnet10", conv, classes=5).eval()
    assert model(torch.randn(1, 3, 128, 160)).shape == (1, 5, 128, 160)
    places = [name for name, module in model.named_modules() if isinstance(module, ConvLayer)]
    assert len(places) == (0 if conv == "conv" else 2 if architecture == "pspnet" else 4)  # PSPNet uses half of it
    assert all(name.startswith("encoder.model.layer") and name.endswith("conv1") for name in places)


def hooked(model: nn.Module, wanted: set[str], x: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """What goes into and comes out of the modules of those names."""
    seen: dict[str, tuple[Tensor, Tensor]] = {}
    for name, module in model.named_modules():
        if name in wanted:
            module.register_forward_hook(lambda _, given, out, name=name: seen.update({name: (given[0], out)}))
    model(x)
    return seen


def grid(layer: nn.Module, channels: int, size: tuple[int, int], position: tuple[int, int]) -> set[tuple[int, int]]:
    """The places of the input that an output position looks at: those that a change of moves it."""
    x = torch.rand(1, channels, *size, dtype=torch.float64, requires_grad=True)
    with use_backend("reference"):
        layer(x)[0, :, position[0], position[1]].sum().backward()
    assert x.grad is not None
    return {(int(row), int(column)) for row, column in x.grad.abs().sum((0, 1)).nonzero().tolist()}


@pytest.mark.parametrize("stride", [8, 16])
@pytest.mark.parametrize("conv", CONVS)
def test_dilation_is_the_originals(stride: int, conv: str) -> None:
    """Every replaced layer: spatial size, window and, where attention is local, the very places it looks at."""
    plain = rfaconv.create_segmenter("deeplabv3plus", "resnet18", "conv", output_stride=stride, classes=3).eval()
    model = rfaconv.create_segmenter("deeplabv3plus", "resnet18", conv, output_stride=stride, classes=3).eval()
    ours = {name: module for name, module in model.named_modules() if isinstance(module, ConvLayer)}
    assert len(ours) == 8
    x = torch.randn(1, 3, 96, 64)
    with torch.no_grad():
        found, wanted = hooked(model, set(ours), x), hooked(plain, set(ours), x)
    dilations = set()
    for name, layer in ours.items():
        old: Any = plain.get_submodule(name)
        for place in (0, 1):
            assert found[name][place].shape == wanted[name][place].shape
        for fact in ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups"):
            assert getattr(layer, fact) == getattr(old, fact), (name, fact)
        dilations.add(old.dilation)
        if conv in ("rf", "rfa"):
            size = tuple(wanted[name][0].shape[2:])
            position = (wanted[name][1].shape[2] // 2, wanted[name][1].shape[3] // 2)
            looks = [grid(copy.deepcopy(one).double(), old.in_channels, size, position) for one in (layer, old)]
            assert looks[0] == looks[1], name
    assert dilations == ({(1, 1), (2, 2)} if stride == 16 else {(1, 1), (2, 2), (4, 4)})
    assert [feature.shape[2:] for feature in model.encoder(x)][-1] == (96 // stride, 64 // stride)


def test_the_plain_model_is_smps_on_timms_encoder() -> None:
    model = rfaconv.create_segmenter("deeplabv3plus", "resnet18", "conv", output_stride=8, classes=3)
    timms = timm_model("resnet18", features_only=True, output_stride=8)
    assert list(timms.state_dict()) == list(model.encoder.model.state_dict())
    own = [(module.stride, module.dilation) for module in model.encoder.modules() if isinstance(module, nn.Conv2d)]
    assert own == [(module.stride, module.dilation) for module in timms.modules() if isinstance(module, nn.Conv2d)]


@pytest.mark.parametrize(("where", "count"), [("encoder", 8), ("aspp", 12), ("decoder", 13)])
def test_where(where: str, count: int) -> None:
    """DeepLabV3+: three atrous convolutions and the one after them, and the decoder's one."""
    plain = rfaconv.create_segmenter("deeplabv3plus", "resnet18", "conv", output_stride=16, classes=3)
    model = rfaconv.create_segmenter("deeplabv3plus", "resnet18", "rfa", output_stride=16, classes=3, where=where)
    layers = {name: module for name, module in model.named_modules() if isinstance(module, ConvLayer)}
    assert len(layers) == count
    for name, layer in layers.items():
        old: Any = plain.get_submodule(name)
        assert (layer.dilation, layer.padding, layer.groups) == (old.dilation, old.padding, old.groups)
    model.eval()(torch.randn(1, 3, 64, 64))


def test_where_there_is_no_such_place() -> None:
    with pytest.raises(UserError, match="unet has no convolution larger than 1x1 at 'aspp'"):
        rfaconv.create_segmenter("unet", "resnet18", "rfa", where="aspp")


def test_a_convolution_of_ones_own() -> None:
    rfaconv.register_conv("mine", lambda *arguments, **options: nn.Conv2d(*arguments, **options))
    try:
        assert rfaconv.create_segmenter("unet", "resnet10", "mine", classes=2)
    finally:
        from rfaconv.layers import registry

        registry._convs.pop("mine")


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("conv", ["conv", "rfcbam"])
def test_a_classifiers_weights(tmp_path: Path, conv: str, suffix: str) -> None:
    classifier = rfaconv.create_model("resnet18", conv, num_classes=7)
    path = tmp_path / f"weights{suffix}"
    state = classifier.state_dict()
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    model = rfaconv.create_segmenter("deeplabv3plus", "resnet18", conv, output_stride=16, classes=3, weights=path)
    for name, value in model.encoder.model.state_dict().items():
        assert torch.equal(value, state[name]), name


@pytest.mark.parametrize("stride", [8, 16])
@pytest.mark.parametrize("conv", CONVS)
def test_converted_models_give_the_originals_masks(tmp_path: Path, conv: str, stride: int) -> None:
    """From a plain classifier's weights: the same masks to the last pixel; and so with `rfaconv.convert` afterwards."""
    path = tmp_path / "plain.pth"
    torch.save(lively(rfaconv.create_model("resnet18")).state_dict(), path)
    plain = lively(rfaconv.create_segmenter("deeplabv3plus", "resnet18", "conv", output_stride=stride, weights=path))
    # `lively` moved its statistics: one file of the encoder as it is now.
    torch.save(plain.encoder.model.state_dict(), path)
    x = torch.randn(2, 3, 96, 128)
    level(plain, x)
    started = rfaconv.create_segmenter("deeplabv3plus", "resnet18", conv, output_stride=stride, weights=path).eval()
    for part in ("decoder", "segmentation_head"):
        getattr(started, part).load_state_dict(getattr(plain, part).state_dict())
    converted = copy.deepcopy(plain)
    rfaconv.convert(converted, conv, where="resnet")
    with torch.no_grad():
        wanted = plain(x)
        assert len(wanted.argmax(1).unique()) > 5
        for model in (started, converted):
            assert sum(isinstance(module, ConvLayer) for module in model.modules()) == 8
            found = model(x)
            assert (found.argmax(1) != wanted.argmax(1)).sum() == 0
            torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-3)


def lively(model: nn.Module) -> nn.Module:
    """`model` in eval mode, with norms' statistics that came of images."""
    model.train()
    with torch.no_grad():
        for _ in range(3):
            model(torch.randn(4, 3, 64, 64))
    return model.eval()


def level(model: Any, x: Tensor) -> None:
    """Scale the head so that every class's logits for x have mean 0 and deviation 1: then all classes occur."""
    head = model.segmentation_head[0]
    with torch.no_grad():
        logits = model(x)
        mean, deviation = logits.mean((0, 2, 3)), logits.std((0, 2, 3))
        head.weight /= deviation[:, None, None, None]
        head.bias.copy_((head.bias - mean) / deviation)


def test_weights_that_do_not_fit_are_named(tmp_path: Path) -> None:
    save_file(rfaconv.create_model("resnet34").state_dict(), tmp_path / "big.safetensors")
    save_file(rfaconv.create_model("resnet18", "ca").state_dict(), tmp_path / "ca.safetensors")
    save_file({"x": torch.zeros(1)}, tmp_path / "ours.safetensors", {"rfaconv": '{"conv": "ca"}'})
    (tmp_path / "broken.pth").write_bytes(b"no")
    for name, words in {
        "big.safetensors": r"holds no weights for resnet18 with 'rfa' convolutions: ",
        "ca.safetensors": r"it lacks 'layer1.0.conv1\.",
        "ours.safetensors": "holds a model with 'ca' convolutions, not with 'rfa'",
        "broken.pth": "cannot be read as weights",
        "nothing.pth": "There is no file",
    }.items():
        with pytest.raises(UserError, match=words):
            rfaconv.create_segmenter("unet", "resnet18", "rfa", weights=tmp_path / name)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"architecture": "deeplabv3pls"}, "Unknown architecture 'deeplabv3pls'. Did you mean 'deeplabv3plus'?"),
        ({"encoder": "resnet10s"}, "Unknown encoder 'resnet10s'. Did you mean 'resnet10'?"),
        ({"conv": "rfaa"}, "Unknown convolution 'rfaa'. Did you mean 'rfa'?"),
        ({"where": "decodr"}, "Unknown place 'decodr'. Did you mean 'decoder'?"),
        ({"output_stride": 12}, "deeplabv3plus cannot be built on resnet18_conv"),
        ({"architecture": "unet", "output_stride": 16}, "unet has no choice of output stride"),
        ({"classes": 0}, "at least one class, got 0"),
        (
            {"decoder_chanels": 64},
            "Unknown argument of deeplabv3plus 'decoder_chanels'. Did you mean 'decoder_channels'?",
        ),
    ],
)
def test_mistakes_are_named(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError) as caught:
        rfaconv.create_segmenter(**arguments)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "segmentation_models_pytorch", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'rfaconv\[segment\]'"):
        rfaconv.create_segmenter()


def test_encoders() -> None:
    assert encoder_names() == ["resnet10", "resnet18", "resnet34", "resnet50"]
