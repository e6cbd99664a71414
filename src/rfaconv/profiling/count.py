"""Parameters and multiply-adds, by the rules the paper's tables were made with."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from rfaconv.ops import use_backend

aten = torch.ops.aten


class Count(NamedTuple):
    """params: all parameters. macs: multiply-adds of one forward pass of one image."""

    params: int
    macs: int


def count(model: nn.Module, input_size: Sequence[int]) -> Count:
    """Count the parameters of `model` and the multiply-adds of its forward pass.

    The rules are thop's, which the paper used: convolutions and matrix products, a batch or layer norm at 4 an element
    (2 without affine part), average pooling; nothing for activations, softmax, products and maxima. The layers count
    as the paper's formula, whichever backend computes them; a custom operator counts by the FLOP formula it registered
    with `torch.utils.flop_counter`.

    Args:
        model: stays as it is; it is run once in eval mode on zeros, on its own device.
        input_size: of one input without the batch, e.g. (3, 224, 224).
    """
    first = next(model.parameters(), torch.empty(0))
    x = torch.zeros(1, *input_size, device=first.device, dtype=first.dtype)
    with _eval_mode(model), torch.no_grad(), use_backend("reference"), _MacCounter() as counter:
        model(x)
    return Count(sum(parameter.numel() for parameter in model.parameters()), counter.macs)


class _MacCounter(TorchDispatchMode):
    """Adds up what each operator below it costs."""

    def __init__(self) -> None:
        super().__init__()
        self.macs = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        packet = func._overloadpacket
        if packet in flop_registry:
            self.macs += flop_registry[packet](*args, **kwargs, out_val=out) // 2
        elif packet in _RULES:
            self.macs += _RULES[packet](args, out)
        return out


def _norm(args: Sequence[Any], out: Any) -> int:
    return args[0].numel() * (2 if args[1] is None else 4)


def _layer_norm(args: Sequence[Any], out: Any) -> int:
    return args[0].numel() * (2 if args[2] is None else 4)


def _avg_pool(args: Sequence[Any], out: Tensor) -> int:
    return out.numel()


def _mean(args: Sequence[Any], out: Tensor) -> int:
    """Adaptive average pooling reaches us as a mean over the plane; a mean over channels is no pooling."""
    x = args[0]
    dims = {dim % x.dim() for dim in args[1]} if len(args) > 1 and args[1] else set(range(x.dim()))
    return x.numel() + out.numel() if x.dim() >= 4 and min(dims) >= 2 else 0


_RULES: dict[Any, Callable[[Sequence[Any], Any], int]] = {
    aten.native_batch_norm: _norm,
    aten._native_batch_norm_legit_no_training: _norm,
    aten._native_batch_norm_legit: _norm,
    aten.cudnn_batch_norm: _norm,
    aten.native_layer_norm: _layer_norm,
    aten.avg_pool2d: _avg_pool,
    aten._adaptive_avg_pool2d: lambda args, out: args[0].numel() + math.prod(out.shape),
    aten.mean: _mean,
}


@contextmanager
def _eval_mode(model: nn.Module) -> Iterator[None]:
    """Eval mode and no layer's own backend inside the block; every module as it was after it."""
    modes = [(module, module.training, vars(module).pop("backend", None)) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training, backend in modes:
            module.training = training
            if backend is not None:
                module.backend = backend
