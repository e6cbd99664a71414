"""Folding what follows a convolution in inference, so that a kernel can compute it in the same pass."""

from __future__ import annotations

from typing import TypeGuard

import torch
from torch import nn

from rfaconv.ops.epilogue import Epilogue
from rfaconv.ops.stages import norm_as_line


def as_epilogue(norm: nn.Module | None, act: nn.Module | None) -> Epilogue | None:
    """A layer's trailing norm and activation as an epilogue; None where that is not the same, or there is nothing.

    Only without gradients, outside of torch.jit.trace (which checks what it traced without gradients), for a batch norm
    with fixed statistics, ReLU and SiLU, and only where no one hooks them.
    """
    if (norm is None and act is None) or torch.is_grad_enabled() or torch.jit.is_tracing():  # type: ignore[attr-defined]
        return None
    if is_hooked(norm) or is_hooked(act):
        return None
    name = {type(None): "none", nn.ReLU: "relu", nn.SiLU: "silu"}.get(type(act))
    if name is None:
        return None
    if norm is None:
        return Epilogue(act=name)
    if not has_fixed_statistics(norm):
        return None
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale, shift = norm_as_line(norm.weight, norm.bias, norm.running_mean, norm.running_var, norm.eps)
    return Epilogue(scale, shift, name)


def has_fixed_statistics(norm: nn.Module | None) -> TypeGuard[nn.BatchNorm2d]:
    """Whether `norm` is a BatchNorm2d that, in the mode it is in, is one scale and one shift a channel."""
    return (
        type(norm) is nn.BatchNorm2d
        and not norm.training
        and norm.running_mean is not None
        and norm.running_var is not None
    )


def is_hooked(module: nn.Module | None) -> bool:
    """Whether someone wants to see the module or a part of it called."""
    return module is not None and (has_call_hooks(module) or any(map(is_hooked, module._modules.values())))


def has_call_hooks(module: nn.Module) -> bool:
    """The same of the module alone."""
    return bool(
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    )
