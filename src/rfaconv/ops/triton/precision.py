"""Whether products of float32 may use tensor cores' TF32: as torch says for its convolutions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


def convolution_allows_tf32() -> bool:
    """torch.backends.cudnn.conv.fp32_precision; before torch 2.9 torch.backends.cudnn.allow_tf32."""
    conv = getattr(torch.backends.cudnn, "conv", None)
    if conv is not None and hasattr(conv, "fp32_precision"):
        return conv.fp32_precision == "tf32"
    return torch.backends.cudnn.allow_tf32


@contextmanager
def products_as_convolutions() -> Iterator[None]:
    """Inside, torch's matrix products in float32 on CUDA have the precision of its convolutions.

    The switch is the process's: another thread that multiplies at the same moment sees it too.
    """
    matmul = torch.backends.cuda.matmul
    name = "fp32_precision" if hasattr(matmul, "fp32_precision") else "allow_tf32"
    wanted = convolution_allows_tf32()
    before = getattr(matmul, name)
    setattr(matmul, name, ("tf32" if wanted else "ieee") if name == "fp32_precision" else wanted)
    try:
        yield
    finally:
        setattr(matmul, name, before)
