"""The operators' implementations for CUDA: why they may not be there, and their registration.

Nothing here imports triton, or the kernels, before a call on a GPU needs them.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import Callable
from typing import Any

import torch

import rfaconv.ops.operators  # noqa: F401 (implementations are added to what is defined there)

OPERATORS = {
    "operators": ("patch_moments", "patch_moments_backward", "rf_conv2d", "rf_conv2d_backward"),
    "pooling": ("pool_features",),
    "fold": ("fold_norm", "fold_norm_backward"),
}
"""By the module that has them."""

OLDEST = (3, 3)
"""Triton before that has no tuples of blocks."""


def _missing() -> str | None:
    if torch.version.hip is not None:
        return "it was written for NVIDIA's GPUs and never run on others"
    try:
        version = importlib.metadata.version("triton")
    except importlib.metadata.PackageNotFoundError:
        return "triton is not installed (pip install triton)"
    if tuple(int(part) for part in version.split(".")[:2]) < OLDEST:
        return f"it needs triton {OLDEST[0]}.{OLDEST[1]} or later, here is {version}"
    return None


# At import, because torch.compile can trace a name, not the search for a package.
MISSING = _missing()
"""Why the kernels cannot run in this installation, as half a sentence; None if they can."""


def too_old(device: torch.device) -> str | None:
    """Why the kernels cannot run on this GPU, as half a sentence, or None."""
    properties = torch.cuda.get_device_properties(device)  # which torch.compile knows to be constant
    if properties.major < 8:
        return f"it needs compute capability 8.0 or later, {properties.name} has {properties.major}.{properties.minor}"
    return None


def implementation(module: str, name: str) -> Callable[..., Any]:
    """The operator's implementation; it is imported at the first call."""

    def run(*args: Any) -> Any:
        found = getattr(importlib.import_module(f"rfaconv.ops.triton.{module}"), name)
        x = args[0]
        if not x.is_cuda:
            return found(*args)
        # Triton launches on the current device; and a backward pass under autocast must not cast what is float32 here.
        with torch.cuda.device(x.device), torch.autocast("cuda", enabled=False):
            return found(*args)

    return run


def register(library: torch.library.Library, key: str, *, allow_override: bool = False) -> None:
    """Add the implementations for tensors of a dispatch key."""
    for module, names in OPERATORS.items():
        for name in names:
            library.impl(name, implementation(module, name), key, allow_override=allow_override)


_library = torch.library.Library("rfaconv", "IMPL")  # the registrations live as long as it does
register(_library, "CUDA")
