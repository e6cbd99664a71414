"""Short names: the published ones, the user's own, and the answer to a wrong one."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import rfaconv
from rfaconv.layers import registry


@pytest.fixture(autouse=True)
def _own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_convs", dict(registry._convs))


def test_the_published_names() -> None:
    assert rfaconv.conv_names() == ["conv", "rf", "rfa", "rfcbam", "rfca", "cam", "cbam", "ca"]
    assert isinstance(rfaconv.create_conv("rfcbam", 4, 4), rfaconv.RFCBAMConv)


def test_one_call_registers_a_layer() -> None:
    rfaconv.register_conv("double", lambda *args, **kwargs: rfaconv.RFAConv(*args, **kwargs))
    assert isinstance(rfaconv.create_conv("double", 4, 4), rfaconv.RFAConv)


def test_one_call_gives_an_attention_both_columns() -> None:
    rfaconv.register_attention("idle", lambda channels: nn.Identity())
    assert rfaconv.conv_names()[-2:] == ["idle", "rfidle"]
    x = torch.randn(1, 4, 5, 5)
    layer, rf = rfaconv.create_conv("rfidle", 4, 4).eval(), rfaconv.create_conv("rf", 4, 4).eval()
    rf.load_state_dict(layer.state_dict())
    torch.testing.assert_close(layer(x), rf(x))


@pytest.mark.parametrize("name", ["rfa", "RFA2", "two words", ""])
def test_a_taken_or_bad_name_is_refused(name: str) -> None:
    with pytest.raises(rfaconv.UserError, match=r"taken|lower-case"):
        rfaconv.register_conv(name, nn.Conv2d)


def test_a_taken_partner_name_registers_neither() -> None:
    with pytest.raises(rfaconv.UserError, match="'rfa' is taken"):
        rfaconv.register_attention("a", nn.Identity)
    assert "a" not in rfaconv.conv_names()


def test_an_unknown_name_answers_with_the_nearest() -> None:
    with pytest.raises(rfaconv.UserError, match=r"Unknown convolution 'rfcban'\. Did you mean 'rfcbam'\?"):
        rfaconv.create_conv("rfcban", 4, 4)
