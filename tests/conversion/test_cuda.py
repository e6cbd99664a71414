"""On a GPU the conversion stays there."""

from __future__ import annotations

import pytest
import torch
from conversion_helpers import LAYERS, deviation, outputs, realistic, twin
from torch import nn

import rfaconv

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("calibrated", [False, True], ids=["no data", "data"])
def test_there_and_back(name: str, calibrated: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)
    convs = [nn.Conv2d(3, 8, 3, 2), nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect"), nn.Conv2d(8, 4, 3, groups=2)]
    parts = [part for conv in convs for part in (nn.ReLU(), conv, nn.BatchNorm2d(conv.out_channels))]
    model, x = realistic(nn.Sequential(*parts)).cuda(), torch.randn(4, 3, 24, 24)
    plain = twin(model)
    rfaconv.convert(model, name, calibrate=x if calibrated else None)
    assert {value.device.type for value in model.state_dict().values()} == {"cuda"}
    assert deviation(outputs(plain, x.cuda()), outputs(model, x.cuda())) < 1e-5
    rfaconv.simplify(model, calibrate=x if calibrated else None)
    assert {value.device.type for value in model.state_dict().values()} == {"cuda"}
    assert deviation(outputs(plain, x.cuda()), outputs(model, x.cuda())) < 1e-5
    assert sum(type(module) is nn.Conv2d for module in model.modules()) == 3
