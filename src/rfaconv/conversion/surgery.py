"""Exchanging modules: the new layer for a Conv2d, hung wherever the old one hung, and taken down again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any

from torch import nn

from rfaconv.conversion.places import Place
from rfaconv.errors import UserError
from rfaconv.layers.base import ConvLayer
from rfaconv.layers.registry import create_conv
from rfaconv.ops.window import pair

_PADDERS: dict[str, Callable[[Any], nn.Module]] = {
    "zeros": nn.ZeroPad2d,
    "reflect": nn.ReflectionPad2d,
    "replicate": nn.ReplicationPad2d,
    "circular": nn.CircularPad2d,
}

# Hooks of a module that work on whatever module has its place: the same dict, so that handles still remove them.
KEPT_HOOKS = (
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_backward_hooks",
    "_backward_pre_hooks",
)
# Hooks that see the old module's parameters by name.
LOST_HOOKS = (
    "_state_dict_hooks",
    "_state_dict_pre_hooks",
    "_load_state_dict_pre_hooks",
    "_load_state_dict_post_hooks",
)


def explicit_padding(conv: nn.Conv2d) -> tuple[nn.Module | None, tuple[int, int]]:
    """How to pad for a layer that pads symmetrically with zeros: a module to go before it, if need be, and its padding.

    Reads what F.conv2d would: stride, padding and dilation may have been rewritten since the convolution was made.
    """
    if conv.padding_mode != "zeros":
        sides = tuple(conv._reversed_padding_repeated_twice)
        return (_PADDERS[conv.padding_mode](sides) if any(sides) else None), (0, 0)
    if conv.padding == "valid":
        return None, (0, 0)
    if conv.padding == "same":
        total = [step * (size - 1) for step, size in zip(conv.dilation, conv.kernel_size, strict=True)]
        if total[0] % 2 == 0 and total[1] % 2 == 0:
            return None, (total[0] // 2, total[1] // 2)
        (top, left), (bottom, right) = [size // 2 for size in total], [size - size // 2 for size in total]
        return nn.ZeroPad2d((left, right, top, bottom)), (0, 0)
    return None, pair(conv.padding, "padding")  # type: ignore[arg-type]


def new_layer(conv: nn.Conv2d, name: str) -> tuple[nn.Module, ConvLayer]:
    """The layer of that short name with the arguments of `conv`, freshly initialised, without a bias.

    Returns:
        What takes the place of `conv`, and the layer: the same, or Sequential(pad=..., conv=layer).

    Raises:
        UserError: the name stands for something else than a layer of the family.
    """
    padder, padding = explicit_padding(conv)
    layer = create_conv(
        name,
        conv.in_channels,
        conv.out_channels,
        conv.kernel_size,
        conv.stride,
        padding,
        conv.dilation,
        conv.groups,
        False,
        device=conv.weight.device,
        dtype=conv.weight.dtype,
    )
    if not isinstance(layer, ConvLayer):
        raise UserError(f"'{name}' makes a {type(layer).__name__}; only layers of rfaconv can start as a convolution.")
    layer.short_name = name
    return with_padding(padder, layer), layer


def with_padding(padder: nn.Module | None, layer: nn.Module) -> nn.Module:
    """The layer, behind the padding if there is one."""
    return layer if padder is None else nn.Sequential(OrderedDict(pad=padder, conv=layer))


def padder_record(padder: nn.Module) -> list[Any]:
    """What `padder_from` makes it from, as plain data: the padding mode and left, right, top, bottom."""
    mode = next(name for name, kind in _PADDERS.items() if type(padder) is kind)
    return [mode, list(padder.padding)]  # type: ignore[arg-type]


def padder_from(record: list[Any] | None) -> nn.Module | None:
    """The module that pads so."""
    return None if record is None else _PADDERS[record[0]](tuple(record[1]))


def without_padding(padder: nn.Module, conv: nn.Conv2d) -> nn.Conv2d:
    """The one convolution that pads as `padder` before `conv` does: what `explicit_padding` took apart."""
    mode, (left, _, top, _) = padder_record(padder)
    padding = "same" if mode == "zeros" else (top, left)
    arguments = (conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, padding, conv.dilation)
    whole = nn.Conv2d(*arguments, conv.groups, conv.bias is not None, mode, device="meta")  # type: ignore[arg-type]
    whole.weight, whole.bias = conv.weight, conv.bias
    return whole.train(conv.training)


def take_over(new: nn.Module, layer: nn.Module, conv: nn.Conv2d) -> list[str]:
    """Give `new` the old module's hooks, mode and attributes; returns the names of the hooks it cannot keep.

    New parameters learn if the convolution's weight does.
    """
    new.train(conv.training)
    learns = conv.weight.requires_grad
    for parameter in layer.parameters():
        if parameter is layer.bias and conv.bias is not None:
            parameter.requires_grad_(conv.bias.requires_grad)
        else:
            parameter.requires_grad_(learns)
    for name, value in vars(conv).items():
        if name not in _CONV2DS_OWN and not hasattr(new, name):
            setattr(new, name, value)
    return keep_hooks(new, conv)


def keep_hooks(new: nn.Module, old: nn.Module) -> list[str]:
    """Hang the hooks of `old` on `new`; returns the names of those that cannot be kept."""
    for name in KEPT_HOOKS:
        if getattr(old, name, None):
            setattr(new, name, getattr(old, name))
    new._is_full_backward_hook = old._is_full_backward_hook
    return [name.strip("_") for name in LOST_HOOKS if getattr(old, name, None)]


_CONV2DS_OWN = frozenset(vars(nn.Conv2d(1, 1, 1)))


def hang(place: Place, module: nn.Module) -> None:
    """Put `module` wherever the place's convolution hung."""
    for parent, attribute in place.slots:
        parent._modules[attribute] = module


def take_down(places: Iterable[Place]) -> None:
    """Put the convolutions back."""
    for place in places:
        hang(place, place.conv)
