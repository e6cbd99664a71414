"""Which convolutions `where` means."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torchvision
from torch import nn

import rfaconv
from rfaconv import UserError
from rfaconv.conversion.places import choose


def chosen(model: nn.Module, where: Any) -> list[str]:
    return [place.name for place in choose(model, where).places]


def test_the_default_is_every_dense_convolution_with_a_kernel() -> None:
    model = nn.ModuleDict(
        {
            "dense": nn.Conv2d(8, 8, 3),
            "pointwise": nn.Conv2d(8, 8, 1),
            "depthwise": nn.Conv2d(8, 16, 3, groups=8),
            "grouped": nn.Conv2d(8, 8, (1, 3), groups=4),
            "grey": nn.Conv2d(1, 8, 5),
            "linear": nn.Linear(8, 8),
        }
    )
    choice = choose(model, None)
    assert [place.name for place in choice.places] == ["dense", "grouped", "grey"]
    assert {skip.name: skip.reason for skip in choice.skipped} == {"pointwise": "kernel 1x1", "depthwise": "depthwise"}


@pytest.mark.parametrize("library", ["timm", "torchvision", "ours"])
@pytest.mark.parametrize(("name", "place"), [("resnet18", "conv1"), ("resnet50", "conv2")])
def test_the_papers_places_in_resnets(library: str, name: str, place: str) -> None:
    build = {"timm": timm.create_model, "torchvision": torchvision.models.get_model, "ours": rfaconv.create_model}
    model = build[library](name)
    blocks = [key for key, value in model.named_modules() if type(value).__name__ in ("BasicBlock", "Bottleneck")]
    assert chosen(model, "resnet") == [f"{block}.{place}" for block in blocks]
    assert len(blocks) == (8 if name == "resnet18" else 16)


def test_the_other_presets() -> None:
    model = timm.create_model("resnet18d")  # a deep stem, and poolings before the 1x1 shortcuts
    assert len(chosen(model, "all3x3")) == 3 + 16
    assert chosen(model, "downsample") == ["layer2.0.conv1", "layer3.0.conv1", "layer4.0.conv1"]
    with pytest.raises(UserError, match=r"'resnet' finds nothing in this EfficientNet: no BasicBlock .* 'all3x3'"):
        choose(timm.create_model("efficientnet_b0"), "resnet")


def test_names_globs_and_predicates() -> None:
    model = timm.create_model("resnet18")
    assert chosen(model, "layer1.0.conv2") == ["layer1.0.conv2"]
    assert chosen(model, "layer[34].*.conv1, conv1") == [
        "conv1", "layer3.0.conv1", "layer3.1.conv1", "layer4.0.conv1", "layer4.1.conv1",
    ]  # fmt: skip
    assert chosen(model, ["layer1.0.conv2", "*downsample.0"])[1:] == [f"layer{i}.0.downsample.0" for i in (2, 3, 4)]
    assert chosen(model, lambda name, conv: conv.in_channels == 256 and conv.stride == (2, 2)) == [
        "layer4.0.conv1", "layer4.0.downsample.0",
    ]  # fmt: skip


def test_a_name_that_fits_nothing() -> None:
    model = timm.create_model("resnet18")
    for wrong, words in [
        ("layer1.0.conv3", r"where='layer1\.0\.conv3' fits no Conv2d of this model\. Did you mean 'layer1\.0\.conv"),
        ("resnets", "Did you mean 'resnet'"),
        ("fc", "fits no Conv2d"),
    ]:
        with pytest.raises(UserError, match=words):
            rfaconv.convert(model, where=wrong)
    with pytest.raises(UserError, match=r"Unknown convolution 'rfaa'\. Did you mean 'rfa'"):
        rfaconv.convert(model, "rfaa")
    with pytest.raises(UserError, match=r"where\(name, conv\) is False"):
        rfaconv.convert(model, where=lambda name, conv: False)
    with pytest.raises(UserError, match="the model has none"):
        rfaconv.convert(nn.Sequential(nn.Linear(2, 2)))
