"""Deployed layers and exported files against the layers themselves, with norms as training leaves them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import rfaconv
from rfaconv.deploy import deployed, export
from rfaconv.deploy.modules import TapSum


def trained_like(model: nn.Module) -> nn.Module:
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            for value in (module.weight, module.running_var):
                nn.init.uniform_(value, 0.5, 1.5)
            for value in (module.bias, module.running_mean):
                nn.init.normal_(value, std=0.3)
    return model.eval()


@pytest.mark.parametrize("options", [{}, {"stride": 2, "groups": 2}, {"dilation": 2, "bias": False}, {"padding": 3}])
@pytest.mark.parametrize("name", ["rfa", "rf"])
def test_tap_sum_is_the_layer(name: str, options: dict[str, int]) -> None:
    torch.manual_seed(0)
    layer = trained_like(rfaconv.create_conv(name, 4, 6, 3, norm_layer=nn.BatchNorm2d, act_layer=nn.SiLU, **options))
    x = 100 * torch.randn(2, 4, 11, 9)  # logits large enough to overflow an exp that is not shifted
    with torch.no_grad(), rfaconv.ops.use_backend("reference"):
        expected = layer(x)
        found = deployed(layer)
        assert isinstance(found, TapSum)
        torch.testing.assert_close(found(x), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize("name", ["rfa", "rf"])
def test_exported_file_gives_the_models_output_at_two_shapes(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = trained_like(rfaconv.create_model("resnet10s", name, num_classes=10))
    found = export(model, tmp_path / "model.onnx", torch.randn(1, 3, 32, 32))
    assert found.path.exists()
    assert found.deviation <= 1e-4


def test_above_tolerance_nothing_is_written(tmp_path: Path) -> None:
    model = trained_like(rfaconv.create_model("resnet10s", "rfa", num_classes=10))
    with pytest.raises(rfaconv.UserError, match="not written"):
        export(model, tmp_path / "model.onnx", torch.randn(1, 3, 32, 32), tolerance=-1.0)
    assert list(tmp_path.iterdir()) == []


def test_nan_at_the_second_size_alone_is_not_written(tmp_path: Path) -> None:
    class LogOfSize(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * torch.log(torch.ones_like(x[:1, :1, :1]).sum() * -1 + 40)  # finite up to a width of 39

    with pytest.raises(rfaconv.UserError, match="not written"):
        export(LogOfSize(), tmp_path / "model.onnx", torch.randn(1, 3, 32, 32))
    assert list(tmp_path.iterdir()) == []
