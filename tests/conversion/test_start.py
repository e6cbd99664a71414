"""Every layer starts as the convolution it replaces: exact in eval, close in training, and able to learn."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from conversion_helpers import LAYERS, RECEPTIVE_FIELD, deviation, outputs, twin
from torch import nn

import rfaconv
from rfaconv import UserError
from rfaconv.layers import ConvLayer

WINDOWS: list[dict[str, Any]] = [
    {"kernel_size": 3, "padding": 1},
    {"kernel_size": 3, "padding": 1, "stride": 2, "bias": False},
    {"kernel_size": 3, "padding": 2, "dilation": 2, "groups": 2},
    {"kernel_size": (1, 5), "padding": (0, 2), "stride": (1, 2), "groups": 4},
    {"kernel_size": 2, "padding": 1, "stride": 2, "bias": False},
    {"kernel_size": 5, "padding": "same", "dilation": (1, 3)},
    {"kernel_size": (2, 4), "padding": "same"},
    {"kernel_size": 7, "padding": 3, "stride": 4},
    {"kernel_size": 3, "padding": "valid"},
    {"kernel_size": 3, "padding": 1, "padding_mode": "reflect", "stride": 2},
    {"kernel_size": 3, "padding": (2, 1), "padding_mode": "replicate", "bias": False},
    {"kernel_size": 3, "padding": 2, "padding_mode": "circular", "dilation": 2},
    {"kernel_size": 1, "bias": False},
    {"kernel_size": 3, "padding": 4, "groups": 8},
]
ACTIVATIONS: dict[str, nn.Module] = {
    "relu": nn.ReLU(),
    "relu6": nn.ReLU6(),
    "silu": nn.SiLU(),
    "gelu": nn.GELU(),
    "hardswish": nn.Hardswish(),
    "mish": nn.Mish(),
    "elu": nn.ELU(0.7),
    "selu": nn.SELU(),
    "sigmoid": nn.Sigmoid(),
    "tanh": nn.Tanh(),
    "leaky": nn.LeakyReLU(0.1),
    "none": nn.Identity(),
}


def one(act: nn.Module, **window: Any) -> nn.Sequential:
    return nn.Sequential(nn.BatchNorm2d(8), act, nn.Conv2d(8, 16, **window)).eval()


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_every_window(name: str, window: dict[str, Any]) -> None:
    model, x = one(nn.ReLU(), **window), 2 * torch.randn(2, 8, 13, 11)
    before, plain = outputs(model, x), twin(model)
    summary = rfaconv.convert(model, name, where="2", calibrate=x)
    assert isinstance(model[2] if isinstance(model[2], ConvLayer) else model[2].conv, ConvLayer)
    assert deviation(before, outputs(model, x)) < 2e-6
    assert summary.deviation is not None
    assert summary.deviation.relative == pytest.approx(deviation(before, outputs(model, x)))
    # And on what it was not calibrated on.
    other = 5 * torch.randn(2, 8, 10, 12)
    assert deviation(outputs(plain, other), outputs(model, other)) < 3e-6


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("act", ACTIVATIONS)
@pytest.mark.parametrize("calibrated", [False, True], ids=["no data", "data"])
def test_every_activation(name: str, act: str, calibrated: bool) -> None:
    """Bounded activations need no data and are exact for whatever comes; unbounded ones within what was calibrated."""
    model, x = one(ACTIVATIONS[act], kernel_size=3, padding=1), 3 * torch.randn(2, 8, 9, 9)
    other = 4 * x.flip(0) if act not in ("leaky", "none") else x
    before = outputs(model, x), outputs(model, other)
    if act in ("leaky", "none") and name in RECEPTIVE_FIELD and not calibrated:
        with pytest.raises(UserError, match=r"'2': its input has no lower bound that can be proved: give calibrate="):
            rfaconv.convert(model, name)
        return
    summary = rfaconv.convert(model, name, calibrate=x if calibrated else None)
    assert deviation(before[0], outputs(model, x)) < 3e-6
    assert deviation(before[1], outputs(model, other)) < 3e-6
    told = "nothing bounds the input from below" in str(summary)
    assert told == (act in ("leaky", "none") and name in RECEPTIVE_FIELD)


def test_an_input_without_a_bound_is_exact_beyond_what_was_seen_and_cut_off_further_below() -> None:
    model, x = nn.Sequential(nn.Conv2d(3, 4, 3)).eval(), torch.rand(2, 3, 8, 8) * 2 - 1
    plain = twin(model)
    rfaconv.convert(model, "rfa", calibrate=x)
    assert deviation(outputs(plain, 1.4 * x), outputs(model, 1.4 * x)) < 2e-6
    assert deviation(outputs(plain, 50 * x), outputs(model, 50 * x)) > 0.1


def test_a_layer_norm_is_bound_enough_without_data() -> None:
    """The furthest any image can reach: one channel far from the others."""
    from timm.layers import LayerNorm2d

    images = torch.zeros(2, 8, 6, 6)
    images[0, 4, 2, 3], images[1, 5, 1, 1] = 1e4, -1e4
    model = nn.Sequential(LayerNorm2d(8), nn.Conv2d(8, 4, 3)).eval()
    before = outputs(model, images)
    summary = rfaconv.convert(model, "rfa")
    assert summary.replaced[0].start == "exact: no input is below -2.65"
    assert deviation(before, outputs(model, images)) < 3e-6


def test_few_values_say_little_of_the_range() -> None:
    """One value a channel and image, two images: each channel alone would seem to vary by next to nothing."""
    torch.manual_seed(1)
    model = nn.Sequential(nn.LeakyReLU(0.1), nn.Conv2d(64, 8, 3, padding=1)).eval()
    plain, images = twin(model), torch.randn(100, 64, 1, 1)
    rfaconv.convert(model, "rfa", calibrate=images[:2])
    assert deviation(outputs(plain, images), outputs(model, images)) < 3e-6


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("act", ["relu", "silu"])
def test_training_mode_starts_close(name: str, act: str) -> None:
    """On a batch of the kind it was calibrated on; the attention's own batch norm (rfca, ca) is silent at the start."""
    model = one(ACTIVATIONS[act], kernel_size=3, padding=1, stride=2)
    images = torch.randn(3, 32, 8, 16, 16)
    before = outputs(model, images[2])
    rfaconv.convert(model, name, calibrate=[images[0], images[1]])
    model[2].train()
    assert deviation(before, outputs(model, images[2])) < (0.05 if name in RECEPTIVE_FIELD else 2e-6)


def test_on_the_calibration_batch_itself_training_mode_is_exact() -> None:
    model, x = one(nn.ReLU(), kernel_size=3, padding=1), torch.randn(16, 8, 9, 9)
    before = outputs(model, x)
    rfaconv.convert(model, "rfa", calibrate=x)
    model[2].train()
    assert deviation(before, outputs(model, x)) < 1e-5


@pytest.mark.parametrize("name", LAYERS)
def test_attention_and_features_learn_from_the_first_step(name: str) -> None:
    model, x = one(nn.ReLU(), kernel_size=3, padding=1).train(), torch.randn(4, 8, 9, 9)
    rfaconv.convert(model, name, where="2", calibrate=x)
    (model(x) ** 2).mean().backward()
    layer = model[2]
    zeroed = [
        value
        for key, value in layer.named_parameters()
        if key.startswith("attention") and not value.detach().any() and "norm" not in key
    ]
    assert bool(zeroed) == (name != "rf")
    assert all(value.grad is not None and value.grad.abs().sum() > 0 for value in zeroed)
    if layer.features is not None:
        assert all(value.grad.abs().sum() > 0 for value in layer.features.parameters())
    assert layer.weight.grad.abs().sum() > 0


def test_the_pretrained_kernel_stays_and_learns_as_fast() -> None:
    model, x = one(nn.ReLU(), kernel_size=3, padding=1), torch.randn(4, 8, 9, 9)
    kernel = model[2].weight
    model(x).square().mean().backward()
    gradient = kernel.grad.clone()
    kernel.grad = None
    rfaconv.convert(model, "rfa", calibrate=x)
    assert model[2].weight is kernel
    model(x).square().mean().backward()
    # The shift adds its own part to the gradient, the bias's: without it they agree.
    shift = model[2].features.norm.bias.detach().view(8, 9) - model[2].features.norm.running_mean.view(8, 9) * 9
    bias_part = model[2].bias.grad[:, None, None, None] * (shift / 9).view(1, 8, 3, 3)
    torch.testing.assert_close(kernel.grad - bias_part, gradient, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(("dtype", "most"), [(torch.float64, 1e-14), (torch.float16, 8e-3), (torch.bfloat16, 6e-2)])
@pytest.mark.parametrize("name", LAYERS)
def test_other_precisions(name: str, dtype: torch.dtype, most: float) -> None:
    model, x = one(nn.SiLU(), kernel_size=3, padding=1).to(dtype), torch.randn(2, 8, 9, 9).to(dtype)
    before = outputs(model, x)
    rfaconv.convert(model, name, calibrate=x)
    assert {value.dtype for value in model.parameters()} == {dtype}
    assert deviation(before, outputs(model, x)) < most


def test_an_attention_of_ones_own_needs_to_be_told(monkeypatch: pytest.MonkeyPatch) -> None:
    from rfaconv.conversion import register_neutral, start
    from rfaconv.layers import registry

    class Gate(nn.Module):
        def __init__(self, channels: int) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.randn(channels, 1, 1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * self.scale.sigmoid()

    monkeypatch.setattr(registry, "_convs", dict(registry._convs))
    monkeypatch.setattr(start, "_NEUTRAL", dict(start._NEUTRAL))
    rfaconv.register_attention("gate", Gate)
    model, x = one(nn.ReLU(), kernel_size=3), torch.randn(2, 8, 9, 9)
    before = outputs(model, x)
    with pytest.raises(UserError, match=r"No start .* is known for the attention Gate: tell .*register_neutral"):
        rfaconv.convert(model, "rfgate")
    assert type(model[2]) is nn.Conv2d

    def halve(gate: Gate) -> float:
        nn.init.zeros_(gate.scale)
        return 0.5

    register_neutral(Gate, halve)
    for name in ("gate", "rfgate"):
        converted = twin(model)
        rfaconv.convert(converted, name, calibrate=x)
        assert deviation(before, outputs(converted, x)) < 2e-6
