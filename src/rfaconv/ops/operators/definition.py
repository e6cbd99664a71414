"""Defining operators of PyTorch's dispatcher, `torch.ops.rfaconv.*`.

They are defined whether or not anything is there to compute them: the C++ library (csrc/ops) adds implementations for
the CPU, ops/triton/library.py those for CUDA. Each operator has a file: its schema, the shapes of its results (fake),
its gradients, its cost, and the same computation composed of PyTorch's operators.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

_library = torch.library.Library("rfaconv", "FRAGMENT")  # the operators live as long as it does
_schemas: list[str] = []

GEOMETRY = "int[2] stride, int[2] padding, int[2] dilation"
FEATURES = "Tensor input, Tensor feature_weight, Tensor feature_bias, Tensor center"


def define(schema: str, fake: Callable[..., Any], flops: Callable[..., int] | None = None) -> Any:
    """Define an operator; `flops` gets the shapes of its arguments. Returns `torch.ops.rfaconv.NAME`."""
    _schemas.append(schema)
    _library.define(schema)
    name = schema.partition("(")[0]
    torch.library.register_fake(f"rfaconv::{name}", fake)
    operator = getattr(torch.ops.rfaconv, name)
    if flops is not None:
        register_flop_formula(operator)(flops)
    return operator


def fingerprint() -> str:
    """What csrc/ops/instruction_sets.cpp must hold: a library made for other schemas would be called wrongly."""
    return "rfaconv operators " + hashlib.sha256("\n".join(sorted(_schemas)).encode()).hexdigest()[:12]


def needs_composed(*grads: Tensor | None) -> bool:
    """Whether a backward pass must be made of PyTorch's operators: it is to be differentiated itself, or vectorised."""
    return torch.is_grad_enabled() or any(
        torch._C._functorch.is_legacy_batchedtensor(grad) for grad in grads if grad is not None
    )


def composed_gradients(
    composed: Callable[..., Any], arguments: Sequence[Any], grads: Sequence[Tensor | None], wanted: Sequence[bool]
) -> list[Tensor | None]:
    """The gradients of an operator's arguments through the same computation composed of PyTorch's operators.

    Args:
        composed: takes the operator's arguments.
        grads: of its results, in order; None or missing: it has none.
        wanted: for each argument whether its gradient is.
    """
    create = torch.is_grad_enabled()
    with torch.enable_grad():
        # An argument may be made of another (gates of the input): as views of them each has a gradient of its own.
        own = [
            (value.view_as(value) if create else value.detach().requires_grad_()) if want else value
            for value, want in zip(arguments, wanted, strict=True)
        ]
        results = composed(*own)
    results = results if isinstance(results, tuple) else (results,)
    pairs = [
        (result, grad)
        for result, grad in zip(results, grads, strict=False)
        if grad is not None and result.requires_grad
    ]
    inputs = [value for value, want in zip(own, wanted, strict=True) if want]
    if not pairs or not inputs:
        return [None] * len(own)
    outputs, upstream = zip(*pairs, strict=True)
    found = iter(torch.autograd.grad(outputs, inputs, upstream, create_graph=create, allow_unused=True))
    return [next(found) if want else None for want in wanted]


def map_like(x: Tensor, channels: Any, height: Any, width: Any) -> Tensor:
    """An empty map as the kernels return it for x: its batch and dtype, and channels last where x has them so."""
    last = x.stride(1) == 1 and x.shape[1] > 1
    layout = torch.channels_last if last else torch.contiguous_format
    shape = (x.shape[0], channels, height, width)
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=layout)


def dense_like(x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """An empty contiguous tensor of x's shape."""
    return torch.empty_like(x, dtype=dtype, memory_format=torch.contiguous_format)
