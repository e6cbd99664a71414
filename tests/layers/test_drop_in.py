"""Every layer takes Conv2d's place: arguments, shapes, attributes, printing, saving and the house rules of modules."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import nn

from rfaconv import AttentionConv2d, ReceptiveFieldConv2d, RFAConv, create_conv

LAYERS = ["conv", "rf", "rfa", "rfcbam", "rfca", "cam", "cbam", "ca"]
every_layer = pytest.mark.parametrize("name", LAYERS)


@every_layer
@pytest.mark.parametrize(
    "window",
    [
        {"kernel_size": 3, "padding": 1},
        {"kernel_size": 2, "padding": 1, "stride": 2},
        {"kernel_size": (1, 5), "padding": (3, 0), "stride": (1, 2)},
        {"kernel_size": 3, "padding": "same", "dilation": 2},
        {"kernel_size": 7, "padding": "valid"},
        {"kernel_size": 3, "padding": 3, "groups": 4},
    ],
    ids=str,
)
def test_output_size_and_attributes_are_conv2ds(name: str, window: dict[str, Any]) -> None:
    x = torch.randn(2, 4, 9, 8)
    layer, conv = create_conv(name, 4, 8, **window), nn.Conv2d(4, 8, **window)
    assert layer(x).shape == conv(x).shape
    assert layer.weight.shape == conv.weight.shape
    assert layer.bias.shape == conv.bias.shape
    for attribute in ("in_channels", "out_channels", "kernel_size", "stride", "dilation", "groups", "padding_mode"):
        assert getattr(layer, attribute) == getattr(conv, attribute)


def test_without_attention_it_is_conv2d() -> None:
    layer, conv = create_conv("conv", 4, 8, 3, 2, 1, 1, 2), nn.Conv2d(4, 8, 3, 2, 1, 1, 2)
    layer.load_state_dict(conv.state_dict())
    x = torch.randn(2, 4, 9, 9)
    assert torch.equal(layer(x), conv(x))


@pytest.mark.parametrize(("kernel_size", "padding"), [(3, (1, 1)), (1, (0, 0)), ((3, 5), (1, 2)), (2, (1, 1))])
def test_default_padding_is_half_the_kernel(kernel_size: Any, padding: tuple[int, int]) -> None:
    assert RFAConv(4, 4, kernel_size).padding == padding


@every_layer
@pytest.mark.parametrize("training", [False, True])
def test_empty_batch(name: str, training: bool) -> None:
    layer = create_conv(name, 4, 6, 3, 2).train(training)
    before = copy.deepcopy(layer.state_dict())
    x = torch.randn(0, 4, 9, 9, requires_grad=True)
    out = layer(x)
    assert out.shape == (0, 6, 5, 5)
    out.sum().backward()
    assert x.grad is not None
    assert all(torch.equal(before[key], value) for key, value in layer.state_dict().items() if "running" in key)


@every_layer
def test_unbatched_input(name: str) -> None:
    layer = create_conv(name, 4, 6).eval()
    x = torch.randn(4, 7, 7)
    torch.testing.assert_close(layer(x), layer(x[None])[0])


@every_layer
def test_every_parameter_learns(name: str) -> None:
    layer = create_conv(name, 16, 6)
    (layer(torch.randn(4, 16, 8, 8)) ** 2).sum().backward()
    assert all(value.grad is not None and value.grad.abs().sum() > 0 for value in layer.parameters())


@every_layer
def test_norm_and_activation_by_name_class_or_function(name: str) -> None:
    x = torch.randn(2, 4, 6, 6)
    plain = create_conv(name, 4, 8).eval()
    for norm in ("batchnorm2d", nn.BatchNorm2d, lambda channels: nn.GroupNorm(2, channels)):
        for act in ("SiLU", nn.SiLU, lambda: nn.SiLU(inplace=True)):
            layer = create_conv(name, 4, 8, norm_layer=norm, act_layer=act).eval()
            layer.load_state_dict(plain.state_dict(), strict=False)
            torch.testing.assert_close(layer(x), nn.functional.silu(layer.norm(plain(x))))


@every_layer
def test_copies_pickles_and_saves(name: str) -> None:
    layer, x = create_conv(name, 4, 6).eval(), torch.randn(2, 4, 6, 6)
    again = create_conv(name, 4, 6).eval()
    again.load_state_dict(layer.state_dict())
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), again):
        assert torch.equal(twin(x), layer(x))


@every_layer
def test_made_on_meta_and_filled_later(name: str) -> None:
    layer = create_conv(name, 4, 6, norm_layer="batchnorm2d", device="meta")
    assert all(value.is_meta for value in layer.state_dict().values())
    layer = layer.to_empty(device="cpu")
    for value in layer.state_dict().values():
        value.fill_(torch.nan) if value.is_floating_point() else value.zero_()
    layer.reset_parameters()
    assert torch.isfinite(layer(torch.randn(2, 4, 5, 5))).all()


def test_prints_like_conv2d() -> None:
    arguments: dict[str, Any] = {"kernel_size": (3, 5), "stride": 2, "dilation": 2, "groups": 2, "bias": False}
    conv = nn.Conv2d(4, 8, **arguments, padding=(2, 4))
    assert create_conv("conv", 4, 8, **arguments).extra_repr() == conv.extra_repr()
    assert "RFAConv(\n  4, 8, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1)" in repr(RFAConv(4, 8))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"kernel_size": 0}, "kernel_size must be at least 1"),
        ({"stride": 0}, "stride must be at least 1"),
        ({"padding": -1}, "padding must be at least 0"),
        ({"dilation": (1, 0)}, "dilation must be at least 1"),
        ({"kernel_size": (3, 3, 3)}, "kernel_size must be an int or a pair"),
        ({"padding": "full"}, "padding must be"),
        ({"padding": "same", "stride": 2}, "needs stride 1"),
        ({"padding": "same", "kernel_size": 2}, "not symmetric"),
        ({"groups": 3}, "groups=3 must divide in_channels=4"),
        ({"norm_layer": "batchnorm"}, "Did you mean 'batchnorm"),
        ({"act_layer": "sillu"}, "Did you mean 'silu'"),
    ],
    ids=str,
)
def test_wrong_arguments_say_what_is_wrong(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        RFAConv(4, 8, **arguments)


@every_layer
def test_wrong_input_says_what_was_expected(name: str) -> None:
    with pytest.raises(ValueError, match=r"expects \[B, 4, H, W\] or \[4, H, W\], got shape \[2, 3, 5, 5\]"):
        create_conv(name, 4, 8)(torch.randn(2, 3, 5, 5))


@pytest.mark.parametrize("name", ["rf", "rfa", "rfcbam", "rfca"])
@pytest.mark.parametrize("momentum", [0.3, None])
def test_running_statistics_are_batch_norms(name: str, momentum: float | None) -> None:
    layer = create_conv(name, 3, 4, 3, 2)
    layer.features.norm.momentum = momentum
    norm = nn.BatchNorm2d(27, momentum=momentum)
    for _ in range(3):
        x = torch.randn(4, 3, 7, 7)
        layer(x)
        norm(nn.functional.conv2d(x, layer.features.weight, None, 2, 1, groups=3))
    torch.testing.assert_close(layer.features.norm.state_dict(), norm.state_dict())


def test_frozen_batch_norm_stays_frozen_in_training() -> None:
    layer = RFAConv(3, 4).train()
    layer(torch.randn(4, 3, 7, 7))
    layer.features.norm.eval()
    before, x = copy.deepcopy(layer.state_dict()), torch.randn(4, 3, 7, 7)
    out = layer(x)
    assert all(torch.equal(value, before[key]) for key, value in layer.state_dict().items())
    torch.testing.assert_close(out, layer.eval()(x))


@pytest.mark.parametrize("name", ["rf", "rfa", "rfcbam", "rfca"])
def test_another_norm_in_the_features_is_used(name: str) -> None:
    layer, x = create_conv(name, 3, 4).eval(), torch.randn(2, 3, 6, 6)
    plain = layer(x)
    layer.features.norm = nn.SyncBatchNorm.convert_sync_batchnorm(layer.features.norm)
    torch.testing.assert_close(layer(x), plain)
    layer.features.norm = nn.GroupNorm(3, 27)
    assert not torch.allclose(layer(x), plain)


class Halve(nn.Module):
    """A user's attention over ordinary maps, which shows where it stood."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((channels, 1, 1), 0.5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen = x.shape
        return x * self.scale


def test_an_attention_of_ones_own_gets_both_columns() -> None:
    x = torch.randn(2, 4, 6, 6)
    spatial, field = AttentionConv2d(4, 4, attention=Halve).eval(), ReceptiveFieldConv2d(4, 4, attention=Halve).eval()
    plain, rf = create_conv("conv", 4, 4), create_conv("rf", 4, 4).eval()
    plain.load_state_dict(spatial.state_dict(), strict=False)
    rf.load_state_dict(field.state_dict(), strict=False)
    torch.testing.assert_close(spatial(x), plain(x * 0.5))
    torch.testing.assert_close(field(x) - field.bias[:, None, None], (rf(x) - rf.bias[:, None, None]) * 0.5)
    assert spatial.attention.module.seen == (2, 4, 6, 6)
    assert field.attention.module.seen == (2, 4, 18, 18)


def test_an_attention_that_is_no_module_is_refused() -> None:
    with pytest.raises(TypeError, match="attention must make a torch module"):
        ReceptiveFieldConv2d(4, 4, attention=lambda channels: channels)


@every_layer
def test_compiles_as_one_graph(name: str) -> None:
    layer, x = create_conv(name, 4, 6).eval(), torch.randn(2, 4, 6, 6)
    compiled = torch.compile(layer, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x), layer(x))
    exported = torch.export.export(layer, (x,)).module()
    torch.testing.assert_close(exported(x), layer(x))
