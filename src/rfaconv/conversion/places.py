"""Which convolutions of a model are to be replaced, and why the others are not."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, TypeAlias

import torch
from torch import nn

from rfaconv.errors import UserError
from rfaconv.layers.base import ConvLayer

Where: TypeAlias = str | Sequence[str] | Callable[[str, nn.Conv2d], bool] | None
"""A preset ("resnet", "all3x3", "downsample"), a name or glob, several of them, a predicate, or None."""


@dataclass(frozen=True)
class Place:
    """A convolution and everywhere it hangs: a module used twice has two slots and stays one module."""

    name: str
    conv: Any
    """The Conv2d; for `simplify` the layer."""
    slots: tuple[tuple[nn.Module, str], ...]
    aliases: tuple[str, ...] = ()
    """Its other names, where it has several."""


@dataclass(frozen=True)
class Skipped:
    """A convolution that stays as it is."""

    name: str
    reason: str


@dataclass
class Choice:
    """What `choose` found; both in the order of the model."""

    places: list[Place] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)


def choose(model: nn.Module, where: Where) -> Choice:
    """The convolutions of `model` that `where` means and that can be replaced; all others with the reason.

    Raises:
        UserError: `where` names nothing, or nothing of the kind; the message says what there is.
    """
    found = list(convolutions(model))
    wanted = _wanted(model, where, [place for place in found if isinstance(place.conv, nn.Conv2d)])
    choice = Choice()
    for place in found:
        reason = wanted(place) or refusal(place.conv)
        if reason is None:
            choice.places.append(place)
        else:
            choice.skipped.append(Skipped(place.name, reason))
    return choice


def refusal(conv: nn.Module) -> str | None:
    """Why this module cannot become a layer of the family, as a sentence without its name; None if it can."""
    kind = type(conv).__name__
    if isinstance(conv, nn.modules.lazy.LazyModuleMixin):
        return f"{kind} has no weights yet: run the model once first"
    if not isinstance(conv, nn.Conv2d):
        return f"{kind} is no Conv2d"
    if nn.utils.parametrize.is_parametrized(conv) or "weight" not in conv._parameters:
        return "its weight is computed from other parameters (weight_norm, spectral_norm, pruning): remove that first"
    own_forward = type(conv).forward is not nn.Conv2d.forward or type(conv)._conv_forward is not nn.Conv2d._conv_forward
    if own_forward or "forward" in vars(conv):
        return f"{kind} computes something of its own in forward"
    if type(conv.weight) is not nn.Parameter or conv.weight.is_quantized or not conv.weight.is_floating_point():
        return f"its weight is a {type(conv.weight).__name__} of {conv.weight.dtype}"
    if conv.weight.is_meta:
        return "its weight is on the meta device: load the model's weights first"
    if nn.Conv2d.__call__ is not type(conv).__call__ or getattr(conv, "_compiled_call_impl", None) is not None:
        return "it was compiled: convert first, compile then"
    return None


def convolutions(model: nn.Module) -> Iterator[Place]:
    """Every convolution of any kind outside the family's own layers, each once."""
    own = [name for name, module in model.named_modules() if isinstance(module, ConvLayer) and name]
    for place in slots_of(model, _is_convolution):
        if not any(place.name.startswith(f"{name}.") for name in own):
            yield place


def slots_of(model: nn.Module, wanted: Callable[[nn.Module], bool]) -> Iterator[Place]:
    """Every module below `model` that is `wanted`, each once, with everywhere it hangs."""
    slots: dict[int, list[tuple[str, nn.Module, str]]] = {}
    found: dict[int, nn.Module] = {}
    for parent_name, parent in model.named_modules():
        for attribute, child in parent._modules.items():
            if child is not None and wanted(child):
                found[id(child)] = child
                name = f"{parent_name}.{attribute}" if parent_name else attribute
                slots.setdefault(id(child), []).append((name, parent, attribute))
    for key, held in slots.items():
        names = tuple(name for name, _, _ in held)
        yield Place(names[0], found[key], tuple((parent, attribute) for _, parent, attribute in held), names[1:])


def _is_convolution(module: nn.Module) -> bool:
    if isinstance(module, ConvLayer):
        return False
    if isinstance(module, nn.modules.conv._ConvNd):
        return True
    return "Conv" in type(module).__name__ and isinstance(getattr(module, "kernel_size", None), tuple)


def _wanted(model: nn.Module, where: Where, convs: Sequence[Place]) -> Callable[[Place], str | None]:
    """A function from a place to the reason why `where` does not mean it, or None if it does."""
    if where is None:
        return _not_dense
    if callable(where):
        predicate = where
        return lambda place: None if predicate(place.name, place.conv) else "where(name, conv) is False"
    if isinstance(where, str) and where in _PRESETS:
        chosen, why_not = _PRESETS[where](model, convs)
        if not chosen:
            raise UserError(f"The preset '{where}' finds nothing in this {type(model).__name__}: {why_not}.")
        return lambda place: None if id(place.conv) in chosen else f"not one of preset '{where}'"
    patterns = [part.strip() for part in where.split(",")] if isinstance(where, str) else list(where)
    return _by_name(patterns, convs)


def _not_dense(place: Place) -> str | None:
    conv = place.conv
    if not isinstance(conv, nn.Conv2d):
        return None  # `refusal` says more
    if max(conv.kernel_size) == 1:
        return "kernel 1x1"
    return "depthwise" if _is_depthwise(conv) else None


def _is_depthwise(conv: nn.Conv2d) -> bool:
    return conv.groups > 1 and conv.groups == conv.in_channels


def _by_name(patterns: Iterable[str], convs: Sequence[Place]) -> Callable[[Place], str | None]:
    names = [name for place in convs for name in (place.name, *place.aliases)]
    patterns = list(patterns)
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            near = difflib.get_close_matches(pattern, [*names, *_PRESETS], n=1, cutoff=0.5)
            hint = f" Did you mean '{near[0]}'?" if near else ""
            raise UserError(
                f"where='{pattern}' fits no Conv2d of this model.{hint} It has {len(names)}, e.g. "
                f"{', '.join(names[:3]) or 'none'}; presets: {', '.join(_PRESETS)}."
            )

    def why_not(place: Place) -> str | None:
        own = (place.name, *place.aliases)
        return None if any(fnmatchcase(name, part) for name in own for part in patterns) else "not named by where"

    return why_not


Preset: TypeAlias = Callable[[nn.Module, Sequence[Place]], tuple[set[int], str]]


def _resnet(model: nn.Module, convs: Sequence[Place]) -> tuple[set[int], str]:
    """The paper's places: the first 3x3 of every BasicBlock and of every Bottleneck (which has one)."""
    ours, chosen = {id(place.conv) for place in convs}, set[int]()
    for block in model.modules():
        if any(base.__name__ in ("BasicBlock", "Bottleneck") for base in type(block).__mro__):
            inside = (module for module in block.modules() if isinstance(module, nn.Conv2d) and id(module) in ours)
            first = next((module for module in inside if tuple(module.kernel_size) == (3, 3)), None)
            if first is not None:
                chosen.add(id(first))
    return chosen, "no BasicBlock or Bottleneck with a 3x3 convolution; 'all3x3' takes them wherever they are"


def _all3x3(model: nn.Module, convs: Sequence[Place]) -> tuple[set[int], str]:
    found = {id(place.conv) for place in convs if place.conv.kernel_size == (3, 3) and not _is_depthwise(place.conv)}
    return found, "no 3x3 convolution but depthwise ones"


def _downsample(model: nn.Module, convs: Sequence[Place]) -> tuple[set[int], str]:
    """The paper's YOLO places: convolutions with a stride, but for the stem, the model's first convolution."""
    found = {
        id(place.conv)
        for place in convs[1:]
        if max(place.conv.stride) > 1 and max(place.conv.kernel_size) > 1 and not _is_depthwise(place.conv)
    }
    return found, "no convolution with a stride after the first one"


_PRESETS: dict[str, Preset] = {"resnet": _resnet, "all3x3": _all3x3, "downsample": _downsample}


def check_model(model: nn.Module) -> None:
    """Raise a UserError for what is no plain module tree: compiled, scripted or wrapped for several processes."""
    if not isinstance(model, nn.Module):
        raise UserError(f"convert takes a torch module, got {type(model).__name__}.")
    if isinstance(model, nn.Conv2d):
        raise UserError(
            "The model is itself a Conv2d, which cannot be replaced in place: convert the module that holds it, "
            "e.g. torch.nn.Sequential(conv)."
        )
    if any(base.__module__.startswith("ultralytics.engine") for base in type(model).__mro__):
        raise UserError("This is Ultralytics' wrapper: convert the model inside it, yolo.model.")
    for name, module in model.named_modules():
        what, where = type(module).__name__, f" at '{name}'" if name else ""
        if isinstance(module, torch._dynamo.OptimizedModule):
            raise UserError(
                f"The model is compiled{where}: convert the module inside it (model._orig_mod) or the model before "
                "torch.compile, then compile again."
            )
        if getattr(module, "_compiled_call_impl", None) is not None:
            raise UserError(f"The model is compiled{where} (module.compile()): convert it first, compile then.")
        if isinstance(module, torch.jit.ScriptModule):
            raise UserError(f"The model is scripted{where} ({what}): convert the Python model, then script that.")
        if what in ("DistributedDataParallel", "DataParallel", "FullyShardedDataParallel"):
            raise UserError(
                f"The model is wrapped in {what}{where}: convert the model inside it (model.module) in every process "
                "and wrap it again."
            )
