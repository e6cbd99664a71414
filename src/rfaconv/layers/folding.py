"""Folding what follows a convolution in inference, so that a kernel can compute it in the same pass."""

from __future__ import annotations

import torch
from torch import nn

from rfaconv.ops.epilogue import Epilogue
from rfaconv.ops.stages import norm_as_line


def as_epilogue(norm: nn.Module | None, act: nn.Module | None) -> Epilogue | None:
    """A layer's trailing norm and activation as an epilogue; None where that is not the same, or there is nothing.

    Only without gradients, for a batch norm with fixed statistics, ReLU and SiLU, and only where no one hooks them.
    """
    if (norm is None and act is None) or torch.is_grad_enabled() or is_hooked(norm) or is_hooked(act):
        return None
    name = {type(None): "none", nn.ReLU: "relu", nn.SiLU: "silu"}.get(type(act))
    if name is None:
        return None
    if norm is None:
        return Epilogue(act=name)
    if type(norm) is not nn.BatchNorm2d or norm.training or norm.running_mean is None or norm.running_var is None:
        return None
    scale, shift = norm_as_line(norm.weight, norm.bias, norm.running_mean, norm.running_var, norm.eps)
    return Epilogue(scale, shift, name)


def is_hooked(module: nn.Module | None) -> bool:
    """Whether someone wants to see the module or a part of it called."""
    return module is not None and any(
        part._forward_hooks or part._forward_pre_hooks or part._backward_hooks or part._backward_pre_hooks
        for part in module.modules()
    )
