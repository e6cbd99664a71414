"""`create_model(..., pretrained=...)`: the plain model's weights, and the same function."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import nn

import rfaconv
from rfaconv import UserError

LAYERS = ["conv", "rf", "rfa", "rfcbam", "rfca", "cam", "cbam", "ca"]


def trained(model: nn.Module) -> nn.Module:
    """What training leaves: no batch norm at the values it is born with."""
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.3)
                module.running_var.uniform_(0.3, 1.8)
                module.weight.uniform_(0.3, 1.1)
                module.bias.normal_(0, 0.3)
    return model.eval()


def close(a: Any, b: Any) -> bool:
    with torch.no_grad():
        return float((a - b).abs().max() / b.abs().max()) < 1e-5


@pytest.mark.parametrize(("conv", "library"), [*((conv, "timm") for conv in LAYERS), ("rfa", "torchvision")])
def test_from_a_file(conv: str, library: str, tmp_path: Path) -> None:
    build = timm.create_model if library == "timm" else torchvision.models.get_model
    plain, path, x = trained(build("resnet18", num_classes=7)), str(tmp_path / "plain.pth"), torch.randn(2, 3, 64, 64)
    torch.save(plain.state_dict(), path)
    model = rfaconv.create_model("resnet18", conv, num_classes=7, pretrained=path).eval()
    assert close(model(x), plain(x))
    # The same architecture as without weights: one state dict fits the other.
    fresh = rfaconv.create_model("resnet18", conv, num_classes=7)
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(fresh.eval()(x), model(x))


def test_other_classes_channels_and_uses(tmp_path: Path) -> None:
    plain, path, x = (
        trained(timm.create_model("resnet18", num_classes=7)),
        str(tmp_path / "p.pth"),
        torch.randn(2, 3, 64, 64),
    )
    torch.save(plain.state_dict(), path)
    other = rfaconv.create_model("resnet18", "rfa", num_classes=3, pretrained=path).eval()
    assert other(x).shape == (2, 3)
    assert close(other.forward_features(x), plain.forward_features(x))
    grey = rfaconv.create_model("resnet18", "rfa", in_chans=1, pretrained=path).eval()
    assert close(grey.forward_features(x[:, :1]), plain.forward_features(x[:, :1].expand(-1, 3, -1, -1)))
    dilated = timm.create_model("resnet18_rfca", pretrained=path, output_stride=8, num_classes=7).eval()
    wanted = timm.create_model("resnet18", output_stride=8, num_classes=7).eval()
    wanted.load_state_dict(plain.state_dict())
    assert close(dilated(x), wanted(x))


def test_timms_own_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """What timm would fetch, without a network: its loader is given the weights."""
    from timm.models import _builder

    weights = trained(timm.create_model("resnet34")).state_dict()
    monkeypatch.setattr(_builder, "load_state_dict_from_hf", lambda *a, **k: dict(weights))
    monkeypatch.setattr(_builder, "load_state_dict_from_url", lambda *a, **k: dict(weights), raising=False)
    monkeypatch.setattr(_builder, "load_custom_from_hf", lambda *a, **k: dict(weights), raising=False)
    plain, x = timm.create_model("resnet34", pretrained=True).eval(), torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(plain.state_dict(), weights)
    assert close(rfaconv.create_model("resnet34", "rfa", pretrained=True).eval()(x), plain(x))


def test_where_weights_cannot_be_had(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from timm.models import _builder

    def offline(*args: Any, **kwargs: Any) -> None:
        raise FileNotFoundError("no network")

    monkeypatch.setattr(_builder, "load_state_dict_from_hf", offline)
    with pytest.raises(UserError, match=r"cannot be fetched \(FileNotFoundError\): download .* pretrained='PATH'"):
        rfaconv.create_model("resnet18", "rfa", pretrained=True)
    with pytest.raises(UserError, match="no published weights for resnet10s: train it"):
        rfaconv.create_model("resnet10s", "rfa", pretrained=True)
    with pytest.raises(UserError, match=r"There is no file 'nowhere\.pth' with weights"):
        rfaconv.create_model("resnet18", "rfa", pretrained="nowhere.pth")
    torch.save(timm.create_model("resnet34").state_dict(), tmp_path / "34.pth")
    with pytest.raises(
        UserError, match=r"34\.pth' holds weights of another model: 'layer1\.2\.conv1\.weight' is not in"
    ):
        rfaconv.create_model("resnet18", "rfa", pretrained=str(tmp_path / "34.pth"))
