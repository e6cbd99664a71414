"""Batch norms into the convolutions before them, for inference, where nothing else sees what lies between."""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from rfaconv.conversion.calibration import on_stand_in
from rfaconv.conversion.places import slots_of
from rfaconv.conversion.run import Forward, evaluating
from rfaconv.conversion.surgery import KEPT_HOOKS, LOST_HOOKS, hang
from rfaconv.conversion.verification import tensors
from rfaconv.layers.base import ConvLayer
from rfaconv.layers.folding import has_fixed_statistics
from rfaconv.ops.stages import norm_as_line

# What is asked of a tensor without using its values.
_QUESTIONS = ("__get__", "size", "dim", "stride", "numel", "is_contiguous", "is_floating_point", "element_size")


class Folded(nn.Identity):
    """In the place of a batch norm that went into the convolution before it, which it knows without owning it."""

    def __init__(self, conv: nn.Module) -> None:
        super().__init__()
        self.into = (conv,)


def as_line(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Scale and shift of a norm with fixed statistics, [C] each, in float64 on the CPU."""
    values = (norm.weight, norm.bias, norm.running_mean, norm.running_var)
    weight, bias, mean, var = (None if value is None else value.detach().cpu().double() for value in values)
    assert mean is not None
    assert var is not None
    return norm_as_line(weight, bias, mean, var, norm.eps)


def fold_all(model: nn.Module, data: Sequence[Any], forward: Forward, undo: list[Callable[[], None]]) -> str:
    """Fold every norm that can be folded; says how many, and appends to `undo` what takes it back."""
    count = 0
    for layer in [module for module in model.modules() if isinstance(module, ConvLayer)]:
        norm = layer.norm
        if has_fixed_statistics(norm) and not (has_hooks(layer) or has_hooks(norm)):
            undo.append(partial(setattr, layer, "norm", norm))
            _fold(layer, norm, undo)
            layer.norm = None
            count += 1
    if data:
        pairs: list[tuple[str, str]] | None = find_pairs(model, lambda: forward(model, data[0]))
    else:
        pairs = on_stand_in(model, lambda image: find_pairs(model, lambda: model(image)))
    for conv_name, norm_name in pairs or []:
        conv: Any = model.get_submodule(conv_name)
        norm = model.get_submodule(norm_name)
        linear = not isinstance(conv, ConvLayer) or (conv.norm is None and conv.act is None)
        if linear and has_fixed_statistics(norm) and not (has_hooks(conv) or has_hooks(norm)):
            place = next(slots_of(model, partial(operator.is_, norm)))
            undo.append(partial(hang, place, norm))
            _fold(conv, norm, undo)
            hang(place, Folded(conv))
            count += 1
    why = " (the model does not run on a stand-in image: give calibrate= a batch)" if pairs is None else ""
    return f"{count} batch norm{'s' * (count != 1)} folded into what comes before{why}."


def _fold(conv: nn.Conv2d | ConvLayer, norm: nn.BatchNorm2d, undo: list[Callable[[], None]]) -> None:
    """Multiply a norm with fixed statistics into the convolution before it; computed in float64."""
    undo.append(partial(setattr, conv, "weight", conv.weight))
    undo.append(partial(setattr, conv, "bias", conv.bias))
    scale, shift = as_line(norm)
    with torch.no_grad():
        bias = shift if conv.bias is None else shift + conv.bias.cpu().double() * scale
        weight = conv.weight.cpu().double() * scale.view(-1, 1, 1, 1)
        conv.weight = nn.Parameter(weight.to(conv.weight), conv.weight.requires_grad)
        conv.bias = nn.Parameter(bias.to(conv.weight), conv.weight.requires_grad)


class _Uses(TorchFunctionMode):
    """Counts by how many functions each tensor of interest is used."""

    def __init__(self) -> None:
        super().__init__()
        self.made_by: Any = WeakTensorKeyDictionary()
        self.uses: Any = WeakTensorKeyDictionary()

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") not in _QUESTIONS:
            for value in _flat((args, kwargs)):
                if value in self.made_by:
                    self.uses[value] = self.uses.get(value, 0) + 1
        return func(*args, **kwargs)


def _flat(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, Mapping):
        value = value.values()
    elif not isinstance(value, list | tuple):
        return []
    return [tensor for part in value for tensor in _flat(part)]


def find_pairs(model: nn.Module, run: Callable[[], Any]) -> list[tuple[str, str]]:
    """Names of convolutions and of the batch norms that alone use their outputs, found by running the model.

    Args:
        run: runs the model and returns its output; called once, in eval mode.
    """
    mode = _Uses()
    outputs: list[Tensor] = []  # alive until the end, so that every use is counted
    calls: Counter[str] = Counter()
    norm_after: dict[str, str] = {}

    def after_convolution(name: str, module: nn.Module, args: Any, output: Any) -> None:
        calls[name] += 1
        mode.made_by[output] = name
        outputs.append(output)

    def before_norm(name: str, module: nn.Module, args: Any) -> None:
        calls[name] += 1
        if args[0] in mode.made_by:
            norm_after[mode.made_by[args[0]]] = name

    with ExitStack() as stack:
        for name, module in model.named_modules():
            if type(module) is nn.Conv2d or isinstance(module, ConvLayer):
                stack.callback(module.register_forward_hook(partial(after_convolution, name)).remove)
            elif type(module) is nn.BatchNorm2d:
                stack.callback(module.register_forward_pre_hook(partial(before_norm, name)).remove)
        with evaluating(model), mode:
            results = [tensor for _, tensor in tensors(run())]
    seen_elsewhere = {
        mode.made_by[tensor]
        for tensor in outputs
        if mode.uses.get(tensor, 0) != 1 or any(tensor is result for result in results)
    }
    return [
        (conv, norm)
        for conv, norm in norm_after.items()
        if conv not in seen_elsewhere and calls[conv] == 1 and calls[norm] == 1
    ]


def has_hooks(module: nn.Module) -> bool:
    """Whether somebody watches the module, and would see other values after folding."""
    return any(getattr(module, name, None) for name in (*KEPT_HOOKS, *LOST_HOOKS))
