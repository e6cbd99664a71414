"""The short names of the layers: the same in the API, on the command line, in YAML and in reports."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from rfaconv.errors import UserError, unknown_name
from rfaconv.layers.receptive_field import ReceptiveFieldConv2d, RFAConv, RFCAConv, RFCBAMConv
from rfaconv.layers.spatial import AttentionConv2d, CAConv, CAMConv, CBAMConv

_convs: dict[str, Callable[..., nn.Module]] = {
    "conv": AttentionConv2d,
    "rf": ReceptiveFieldConv2d,
    "rfa": RFAConv,
    "rfcbam": RFCBAMConv,
    "rfca": RFCAConv,
    "cam": CAMConv,
    "cbam": CBAMConv,
    "ca": CAConv,
}


def conv_names() -> list[str]:
    """All short names, the family's first."""
    return list(_convs)


def create_conv(name: str, *args: Any, **kwargs: Any) -> nn.Module:
    """The layer of that short name, with Conv2d's arguments; a UserError names the nearest valid name."""
    return conv_factory(name)(*args, **kwargs)


def conv_factory(name: str) -> Callable[..., nn.Module]:
    """What makes the layer of that short name."""
    return _convs[name] if name in _convs else unknown_name("convolution", name, _convs)


def register_conv(name: str, factory: Callable[..., nn.Module]) -> None:
    """Give a layer of your own a short name; `factory` takes the arguments of `ConvLayer`.

    Raises:
        UserError: the name is taken, or is no lower-case word.
    """
    _check_free(name)
    _convs[name] = factory


def register_attention(name: str, attention: Callable[[int], nn.Module]) -> None:
    """Give an attention both its columns: `name` looks at spatial, "rf" + `name` at receptive-field features.

    Args:
        attention: from the channel count, a module from [B, C, H, W] to the same shape, or an `Attention`.
    """
    _check_free(name)
    _check_free(f"rf{name}")
    _convs[name] = partial(AttentionConv2d, attention=attention)
    _convs[f"rf{name}"] = partial(ReceptiveFieldConv2d, attention=attention)


def _check_free(name: str) -> None:
    if not name.isidentifier() or name != name.lower():
        raise UserError(f"A convolution's name must be one lower-case word, got '{name}'.")
    if name in _convs:
        raise UserError(f"The name '{name}' is taken; known: {', '.join(_convs)}.")
