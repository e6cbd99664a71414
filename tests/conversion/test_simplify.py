"""Back to Conv2d where a layer still is one, and batch norms folded where nothing else sees what lies between."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from conversion_helpers import LAYERS, deviation, outputs, realistic, twin
from torch import Tensor, nn

import rfaconv
from rfaconv.layers import ConvLayer

X = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def reasons(summary: Any) -> dict[str, str]:
    return {skip.name: skip.reason for skip in summary.skipped}


@pytest.mark.parametrize("name", LAYERS)
def test_a_converted_resnet_becomes_the_plain_one(name: str) -> None:
    model = realistic(timm.create_model("resnet10t", num_classes=4))
    plain = twin(model)
    rfaconv.convert(model, name, where="resnet", calibrate=X)
    summary = rfaconv.simplify(model, fold_norms=False)  # no data: the bounds are proved
    assert len(summary.replaced) == 4
    assert summary.params[1] - sum(value.numel() for value in plain.parameters()) in (0, 64 + 128 + 256 + 512)
    assert deviation(outputs(plain, X), outputs(model, X)) < 5e-6
    state = model.state_dict()
    for key, value in plain.state_dict().items():
        torch.testing.assert_close(state[key], value, rtol=3e-7, atol=1e-9)


def test_what_was_trained_stays() -> None:
    def after(change: Any) -> dict[str, str]:
        model = nn.Sequential(nn.ReLU(), nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3)).eval()
        rfaconv.convert(model, "rfa", calibrate=X)
        with torch.no_grad():
            change(model[1])
        before = outputs(model, X)
        summary = rfaconv.simplify(model, calibrate=X)
        assert [place.name for place in summary.replaced][-1] == "3"
        assert deviation(before, outputs(model, X)) < 3e-6
        return reasons(summary)

    assert after(lambda layer: layer.attention.weight[0, 0].add_(1e-3)) == {"1": "its attention is not constant"}
    assert after(lambda layer: layer.features.weight[0, 0, 0, 1].add_(1e-3)) == {
        "1": "its depthwise kernels do not pick one tap each"
    }
    assert after(lambda layer: layer.features.norm.bias[0].sub_(9.0)) == {"1": "its ReLU may cut values off"}
    assert after(lambda layer: layer.features.norm.weight[0].neg_()) == {"1": "its ReLU may cut values off"}
    assert after(lambda layer: layer.train()) == {
        "1": "its norm uses the statistics of each batch: call model.eval() first"
    }
    assert after(lambda layer: layer.features.norm.weight[0].mul_(1.5)) == {}  # still a convolution, another one


def test_a_gate_that_learned_stays() -> None:
    model = nn.Sequential(nn.ReLU(), nn.Conv2d(3, 4, 3)).eval()
    rfaconv.convert(model, "ca")
    with torch.no_grad():
        model[1].attention.expand_rows.bias[0] = 0.1
    assert reasons(rfaconv.simplify(model)) == {"1": "its attention is not constant"}


def test_without_a_bound_it_needs_data() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3)).eval()
    rfaconv.convert(model, "rfa", calibrate=X)
    assert reasons(rfaconv.simplify(model)) == {
        "0": "its input has no lower bound that can be proved: give calibrate= a few batches"
    }
    before = outputs(model, X)
    assert rfaconv.simplify(model, calibrate=20 * X, verify=False).skipped[0].reason == "its ReLU may cut values off"
    assert not rfaconv.simplify(model, calibrate=X).skipped
    assert type(model[0]) is nn.Conv2d
    assert deviation(before, outputs(model, X)) < 3e-6


@pytest.mark.parametrize("data", [None, X], ids=["no data", "data"])
def test_batch_norms_are_folded(data: Tensor | None) -> None:
    model = realistic(timm.create_model("resnet10t", num_classes=4))
    rfaconv.convert(model, "rfa", where="resnet", calibrate=X)
    before, norms = outputs(model, X), sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    with torch.no_grad():  # a trained attention: these layers stay, and are folded into
        for layer in model.modules():
            if isinstance(layer, ConvLayer):
                layer.attention.weight.normal_(0, 0.1)
    before = outputs(model, X)
    summary = rfaconv.simplify(model, calibrate=data)
    left = sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    assert left == 4  # those inside the layers, which the kernels fold on the fly
    assert f"{norms - 4} batch norms folded into what comes before." in str(summary)
    assert deviation(before, outputs(model, X)) < 5e-6


class Awkward(nn.Module):
    """Where folding would be wrong: the convolution's output is used twice, or by a hook, or returned."""

    def __init__(self) -> None:
        super().__init__()
        for name in "abcde":
            setattr(self, f"conv_{name}", nn.Conv2d(3, 3, 3, padding=1))
            setattr(self, f"norm_{name}", nn.BatchNorm2d(3))

    def forward(self, x: Tensor) -> Any:
        twice: Any = self.conv_a(x)
        x = self.norm_a(twice) + twice.mean()
        returned = self.conv_b(x)
        x = self.norm_b(returned)
        x = self.norm_c(self.conv_c(self.conv_c(x)))  # the same convolution twice
        x = self.norm_d(self.conv_d(x))  # watched
        return {"out": self.norm_e(self.conv_e(x)), "more": [returned]}


def test_and_only_where_that_is_exact() -> None:
    model = realistic(Awkward())
    model.conv_d.register_forward_hook(lambda *_: None)
    before = outputs(model, X)
    summary = rfaconv.simplify(model, calibrate=X)
    assert [type(getattr(model, f"norm_{name}")).__name__ for name in "abcde"] == ["BatchNorm2d"] * 4 + ["Folded"]
    assert "1 batch norm folded" in str(summary)
    assert deviation(before, outputs(model, X)) < 3e-6
    training = realistic(Awkward()).train()
    assert "0 batch norms folded" in str(rfaconv.simplify(training, calibrate=X))


def test_norms_and_activations_of_a_layer_itself() -> None:
    model = nn.Sequential(nn.ReLU(), rfaconv.RFAConv(3, 4, norm_layer="batchnorm2d", act_layer="silu"))
    realistic(model)
    before = outputs(model, X)
    summary = rfaconv.simplify(model)
    assert model[1].norm is None
    assert reasons(summary) == {"1": "its attention is not constant"}
    assert deviation(before, outputs(model, X)) < 3e-6


def test_when_it_deviates_the_model_is_as_it_was() -> None:
    model = realistic(timm.create_model("resnet10t", num_classes=4))
    rfaconv.convert(model, "rfa", where="resnet", calibrate=X)
    before, modules = outputs(model, X), list(model.modules())
    with pytest.raises(rfaconv.UserError, match="more than the tolerance 1e-30; the model is as it was"):
        rfaconv.simplify(model, calibrate=X, verify=1e-30)
    assert deviation(before, outputs(model, X)) == 0
    assert all(a is b for a, b in zip(modules, model.modules(), strict=True))
