"""A file of `save` rebuilds the model without converting anything again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import segmentation_models_pytorch as smp
import timm
import torch
import torchvision
from conversion_helpers import LAYERS, deviation, outputs, realistic
from safetensors import safe_open
from torch import nn

import rfaconv
from rfaconv import UserError

X = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("base", "arguments", "build"),
    [
        ("timm:resnet10t", {"num_classes": 4}, timm.create_model),
        ("torchvision:resnet18", {"num_classes": 4}, torchvision.models.get_model),
        ("smp:unet", {"encoder_name": "resnet18", "classes": 3}, smp.create_model),
        ("torchvision:fcn_resnet50", {"num_classes": 3}, torchvision.models.get_model),
    ],
)
def test_the_file_alone_is_enough(base: str, arguments: dict[str, Any], build: Any, tmp_path: Path) -> None:
    extra = {"encoder_weights": None} if base[:3] == "smp" else {}
    extra = {"weights": None, "weights_backbone": None} if "fcn" in base else extra
    model = realistic(build(base.partition(":")[2], **arguments, **extra))
    rfaconv.convert(model, "rfa", where="resnet", calibrate=X)
    rfaconv.save(model, tmp_path / "model.safetensors", base, **arguments)
    again = rfaconv.load(tmp_path / "model.safetensors")
    assert not again.training
    assert deviation(outputs(model, X), outputs(again, X)) == 0


@pytest.mark.parametrize("name", [*LAYERS, "conv"])
def test_every_layer_padding_and_shared_module(name: str, tmp_path: Path) -> None:
    def build() -> nn.Module:
        shared = nn.Conv2d(3, 3, 3, padding=1, padding_mode="reflect", bias=False)
        return nn.Sequential(shared, nn.SiLU(), shared, nn.Conv2d(3, 4, (2, 4), padding="same", groups=1)).eval()

    model = build()
    rfaconv.convert(model, name, calibrate=X)
    rfaconv.save(model, tmp_path / "model.safetensors")
    again = rfaconv.load(tmp_path / "model.safetensors", build())
    assert again[0] is again[2]
    assert deviation(outputs(model, X), outputs(again, X)) == 0
    # Into the converted model it goes as well.
    with torch.no_grad():
        model[3][1].weight.zero_()
    rfaconv.load(tmp_path / "model.safetensors", model)
    assert deviation(outputs(again, X), outputs(model, X)) == 0
    with pytest.raises(UserError, match=r"does not say how its plain model is built: .* rfaconv\.load\(path, model\)"):
        rfaconv.load(tmp_path / "model.safetensors")


def test_layers_built_by_hand_come_with_the_model(tmp_path: Path) -> None:
    def build() -> nn.Module:
        return nn.Sequential(rfaconv.RFAConv(3, 8, norm_layer="batchnorm2d", act_layer="relu"), nn.Conv2d(8, 4, 3))

    model = realistic(build())
    rfaconv.convert(model, "rfca", calibrate=X)
    rfaconv.save(model, tmp_path / "model.safetensors")
    assert deviation(outputs(model, X), outputs(rfaconv.load(tmp_path / "model.safetensors", build()).eval(), X)) == 0


@pytest.mark.parametrize("learned", [False, True], ids=["plain again", "layers that learned"])
def test_a_simplified_model(learned: bool, tmp_path: Path) -> None:
    """Without the batch norms that were folded, whose place the plain model still has."""
    model = realistic(timm.create_model("resnet10t", num_classes=4))
    rfaconv.convert(model, "rfa", where="resnet", calibrate=X)
    if learned:
        with torch.no_grad():
            model.layer1[0].conv1.attention.weight.normal_(0, 0.1)
    rfaconv.simplify(model)
    assert ("layer1.0.conv1.features.weight" in model.state_dict()) == learned
    rfaconv.save(model, tmp_path / "model.safetensors", "timm:resnet10t", num_classes=4)
    again = rfaconv.load(tmp_path / "model.safetensors")
    assert deviation(outputs(model, X), outputs(again, X)) == 0
    assert set(again.state_dict()) == set(model.state_dict())
    words = "a layer at 'layer1.0.conv1'" if learned else "a batch norm 'conv1.1' folded into 'conv1.0', and this"
    with pytest.raises(UserError, match=words):
        rfaconv.load(tmp_path / "model.safetensors", nn.Sequential(nn.Conv2d(3, 4, 3)))


def test_a_layer_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rfaconv.layers import registry

    monkeypatch.setattr(registry, "_convs", dict(registry._convs))
    rfaconv.register_attention("idle", lambda channels: nn.Identity())
    model = nn.Sequential(nn.Conv2d(3, 8, 3)).eval()
    rfaconv.convert(model, "rfidle", calibrate=X)
    rfaconv.save(model, tmp_path / "model.safetensors")
    again = rfaconv.load(tmp_path / "model.safetensors", nn.Sequential(nn.Conv2d(3, 8, 3))).eval()
    assert deviation(outputs(model, X), outputs(again, X)) == 0
    monkeypatch.delitem(registry._convs, "rfidle")
    with pytest.raises(UserError, match="Unknown convolution 'rfidle'"):
        rfaconv.load(tmp_path / "model.safetensors", nn.Sequential(nn.Conv2d(3, 8, 3)))


def test_the_record_is_small_and_plain(tmp_path: Path) -> None:
    model = nn.Sequential(nn.ReLU(), nn.Conv2d(3, 8, 3, 2, 1)).eval()
    rfaconv.convert(model, "rfa", calibrate=X)
    rfaconv.save(model, tmp_path / "model.safetensors")
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        record = json.loads(file.metadata()["rfaconv.conversion"])
        assert set(file.keys()) == set(model.state_dict())
    assert record["layers"] == {
        "1": {
            "conv": "rfa", "in_channels": 3, "out_channels": 8, "kernel_size": [3, 3], "stride": [2, 2],
            "padding": [1, 1], "dilation": [1, 1], "groups": 1, "bias": True, "pad": None,
        }
    }  # fmt: skip


def test_what_does_not_fit_is_said(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    model = nn.Sequential(nn.ReLU(), nn.Conv2d(3, 8, 3)).eval()
    with pytest.raises(UserError, match="There is no file"):
        rfaconv.load(path)
    rfaconv.convert(model, "rfa", calibrate=X)
    with pytest.raises(UserError, match="must begin with timm:, torchvision: or smp:"):
        rfaconv.save(model, path, "resnet18")
    with pytest.raises(UserError, match="Unknown timm model 'resnet19'"):
        rfaconv.save(model, path, "timm:resnet19")
    with pytest.raises(UserError, match="must be plain values"):
        rfaconv.save(model, path, "timm:resnet18", act_layer=nn.ReLU)
    with pytest.raises(UserError, match="built without weights and files of its own: leave out 'checkpoint_path'"):
        rfaconv.save(model, path, "timm:resnet18", checkpoint_path="evil.pth")
    assert not path.exists()
    rfaconv.save(model, path)
    for wrong, words in [
        (nn.Sequential(nn.ReLU()), "has a layer at '1', where this Sequential has nothing"),
        (nn.Sequential(nn.ReLU(), nn.Linear(3, 8)), "where this Sequential has a Linear"),
        (nn.Sequential(nn.ReLU(), nn.Conv2d(3, 8, 3), nn.Linear(2, 2)), "do not fit this Sequential: .*2.weight"),
    ]:
        with pytest.raises(UserError, match=words):
            rfaconv.load(path, wrong)
    path.write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"is no model that rfaconv\.save wrote"):
        rfaconv.load(path)
