"""What the exchange of modules keeps, and that it can be taken back."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from conversion_helpers import LAYERS, Net, X, deviation, outputs, realistic, twin
from torch import Tensor, nn

import rfaconv
from rfaconv import RFAConv, UserError
from rfaconv.layers import ConvLayer


@pytest.mark.parametrize("name", LAYERS)
def test_a_convolution_used_twice_stays_one_module(name: str) -> None:
    model = Net().eval()
    before = outputs(model, X)
    summary = rfaconv.convert(model, name, where="first.1", calibrate=X)
    assert isinstance(model.first[1], ConvLayer)
    assert model.first[1] is model.second[1]
    assert summary.replaced[0].aliases == ("second.1",)
    assert "first.1 = second.1" in str(summary)
    assert deviation(before, outputs(model, X)) < 3e-6


def test_tied_weights_stay_tied() -> None:
    for name in ("rfa", "cam"):
        model = nn.Sequential(nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3)).eval()
        model[3].weight = model[1].weight
        x = torch.randn(2, 4, 9, 9)
        before = outputs(model, x)
        rfaconv.convert(model, name, calibrate=x)
        assert model[1].weight is model[3].weight
        assert deviation(before, outputs(model, x)) < 3e-6


def test_a_weight_shared_with_what_stays_is_not_scaled() -> None:
    model = nn.Sequential(nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ConvTranspose2d(4, 4, 3), nn.Conv2d(4, 4, 3)).eval()
    model[2].weight = model[1].weight
    x = torch.randn(2, 4, 9, 9)
    before, plain = outputs(model, x), twin(model)
    summary = rfaconv.convert(model, "cam", calibrate=x)
    assert [place.name for place in summary.replaced] == ["3"]
    assert "shared with a module that stays" in str(summary)
    assert deviation(before, outputs(model, x)) < 3e-6
    summary = rfaconv.convert(plain, "rfa", calibrate=x)  # which keeps the Parameter
    assert plain[1].weight is plain[2].weight
    assert deviation(before, outputs(plain, x)) < 3e-6


def test_modes_and_flags_are_kept() -> None:
    model = Net()
    model.stem.eval()
    model.first[1].weight.requires_grad_(False)
    model.first[1].bias.requires_grad_(False)
    rfaconv.convert(model, "rfa", calibrate=X)
    assert model.training
    assert not any(module.training for module in model.stem.modules())
    assert all(module.training for module in model.first[1].modules())
    assert not any(value.requires_grad for value in model.first[1].parameters())
    assert all(value.requires_grad for value in model.stem.parameters())
    assert all(value.requires_grad for value in model.head.parameters())


def test_statistics_of_the_model_do_not_change() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3)).train()
    before = {name: value.clone() for name, value in model[1].state_dict().items()}
    rfaconv.convert(model, "rfa", calibrate=[X, X + 1])
    assert all(torch.equal(value, before[name]) for name, value in model[1].state_dict().items())
    assert model.training


def test_channels_last_stays() -> None:
    model = Net().eval().to(memory_format=torch.channels_last)
    rfaconv.convert(model, "rfa", calibrate=X)
    assert model.first[1].weight.is_contiguous(memory_format=torch.channels_last)


def test_hooks_and_their_handles_go_on() -> None:
    model, seen = Net().eval(), list[str]()
    conv = model.first[1]
    handles = [
        conv.register_forward_hook(lambda *_: seen.append("forward")),
        conv.register_forward_pre_hook(lambda *_: seen.append("before")),
        conv.register_full_backward_hook(lambda *_: seen.append("backward")),
    ]
    conv._register_state_dict_hook(lambda *_: None)
    conv.tag = "mine"
    summary = rfaconv.convert(model, "rfa", where="first.1", calibrate=X)
    assert "Hooks on state dicts were not kept, because the names in them change: 'first.1'" in str(summary)
    assert model.first[1].tag == "mine"
    seen.clear()
    model(X).sum().backward()
    assert sorted(seen) == ["backward", "backward", "before", "before", "forward", "forward"]
    for handle in handles:
        handle.remove()
    seen.clear()
    model(X).sum().backward()
    assert not seen


def test_a_hook_that_changes_the_input_is_seen_by_the_calibration() -> None:
    model = nn.Sequential(nn.ReLU(), nn.Conv2d(3, 4, 3)).eval()
    model[1].register_forward_pre_hook(lambda module, args: (args[0] - 3,))
    before = outputs(model, X)
    rfaconv.convert(model, "rfa", calibrate=X)
    assert deviation(before, outputs(model, X)) < 3e-6


def test_when_it_deviates_the_model_is_as_it_was() -> None:
    model = Net().eval()
    modules, before = list(model.modules()), outputs(model, X)
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(
        UserError, match=r"deviates by .* of the largest value in output, more than the tolerance 1e-30"
    ):
        rfaconv.convert(model, "rfa", calibrate=X, verify=1e-30)
    assert all(a is b for a, b in zip(modules, model.modules(), strict=True))
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert deviation(before, outputs(model, X)) == 0


def test_verification_notices_a_wrong_start(monkeypatch: pytest.MonkeyPatch) -> None:
    from rfaconv.conversion import start

    monkeypatch.setattr(start, "_corrected_bias", lambda conv, shift: 1.01 * conv.bias.detach())
    with pytest.raises(UserError, match="more than the tolerance 1e-04"):
        rfaconv.convert(Net().eval(), "rfa", calibrate=X)
    rfaconv.convert(Net().eval(), "rfa", calibrate=X, verify=False)


def test_a_model_that_fails_on_the_batch_is_as_it_was() -> None:
    model = Net().eval()
    with pytest.raises(RuntimeError, match="channels"):
        rfaconv.convert(model, "rfa", calibrate=torch.randn(1, 5, 8, 8))
    assert not any(isinstance(module, ConvLayer) for module in model.modules())
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_what_it_was_given_as_batches() -> None:
    labels = torch.zeros(4)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(X, labels), 2)

    class Named(Net):
        def forward(self, x: Tensor, scale: float = 1.0) -> Any:  # type: ignore[override]
            return {"logits": [super().forward(x) * scale], "more": (x.sum(), 3, None)}

    for batches in (X, [X], [(X, labels)], [[X, labels]], loader, [{"x": X, "scale": 2.0}]):
        summary = rfaconv.convert(Named().eval(), calibrate=batches)
        assert summary.deviation is not None
        assert summary.deviation.relative < 1e-5
    assert rfaconv.convert(Named().eval(), calibrate=loader, batches=1).batches == 1
    for wrong, words in [([], "holds no batch"), ({"x": X}, "got dict"), (3, "got int")]:
        with pytest.raises(UserError, match=words):
            rfaconv.convert(Net(), calibrate=wrong)


def test_outputs_that_are_no_numbers_already() -> None:
    model = Net().eval()
    with torch.no_grad():
        model.head.bias[0] = torch.nan
    with pytest.raises(UserError, match="not finite on the calibration data already"):
        rfaconv.convert(model, calibrate=X)
    assert type(model.stem) is nn.Conv2d


@pytest.mark.parametrize("data", [None, torch.randn(2, 3, 32, 32)], ids=["no data", "data"])
def test_in_several_rounds(data: Tensor | None) -> None:
    """Models with layers in them are looked at, converted and simplified as others are."""
    import timm

    model, x = realistic(timm.create_model("resnet10t", num_classes=4)), torch.randn(2, 3, 48, 48)
    plain = twin(model)
    for name, where in (("rfa", "layer1.*"), ("rfca", "layer2.*"), ("rfcbam", "layer3.*"), ("cbam", "layer4.*")):
        rfaconv.convert(model, name, where=where, calibrate=data)
        assert deviation(outputs(plain, x), outputs(model, x)) < 3e-6
    assert not rfaconv.simplify(model, calibrate=data).skipped
    assert deviation(outputs(plain, x), outputs(model, x)) < 3e-6


def test_an_optimizer_made_before_still_trains_the_kernel() -> None:
    model = Net().train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    rfaconv.convert(model, "rfa", where="first.1", calibrate=X)
    kernel = model.first[1].weight.detach().clone()
    model(X).square().sum().backward()
    optimizer.step()
    assert not torch.equal(kernel, model.first[1].weight)


def test_the_summary_counts() -> None:
    model = Net().eval()
    plain = sum(value.numel() for value in model.parameters())
    summary = rfaconv.convert(model, "rfa", calibrate=X)
    assert summary.params == (plain, sum(value.numel() for value in model.parameters()))
    macs = (3 * 9 * 8 + 2 * 8 * 9 * 8) * 100
    assert summary.macs is not None
    assert summary.macs[0] == macs + 8 * 5 + 8 * 101  # convolutions, head, mean over the plane
    assert summary.macs[1] > summary.macs[0]
    text = str(summary)
    assert "2 convolutions became 'rfa', 0 stayed." in text
    assert f"params {plain:,} -> {summary.params[1]:,}" in text
    assert "Verified on 1 batch: largest deviation" in text
    assert isinstance(model.stem, RFAConv)
    assert "Not verified" in str(rfaconv.convert(Net().eval()))


class Reads(nn.Module):
    """Reads numbers out of tensors, as detectors read their strides."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.SiLU(), nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        self.register_buffer("stride", torch.tensor([8.0]))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.body(x) * self.stride.item()  # type: ignore[operator]
        return out


def test_a_model_that_does_not_run_without_values() -> None:
    model = realistic(Reads())
    before = outputs(model, X)
    assert rfaconv.convert(model).replaced[0].start == "exact: no input is below -0.278"
    assert deviation(before, outputs(model, X)) < 3e-6
    assert "1 batch norm folded" in str(rfaconv.simplify(model))
    assert deviation(before, outputs(model, X)) < 3e-6


class Keeps(nn.Module):
    """Keeps what it computed for one size, as detectors keep their anchors."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.ReLU(), nn.Conv2d(3, 4, 3))
        self.grid: Tensor | None = None
        self.seen: dict[str, Any] = {}

    def forward(self, x: Tensor) -> Tensor:
        if self.grid is None:
            self.grid = x.new_ones(1)
            self.seen["shape"] = x.shape
        out: Tensor = self.body(x) * self.grid
        return out


def test_looking_without_data_leaves_no_trace() -> None:
    model = Keeps().eval()
    before = outputs(twin(model), X)
    rfaconv.convert(model)
    assert model.grid is None
    assert model.seen == {}
    assert deviation(before, outputs(model, X)) < 3e-6
    rfaconv.simplify(model)
    assert deviation(before, outputs(model, X)) < 3e-6
