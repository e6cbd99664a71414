"""What may follow the convolution in inference and be computed with it: a folded batch norm, an activation."""

from __future__ import annotations

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

ACTS = ("none", "relu", "silu")
"""The activations by name; the kernel knows them by their place here (csrc/problem.h)."""


class Epilogue(NamedTuple):
    """act(out * scale + shift), with scale and shift [O] or None, and act one of `ACTS`."""

    scale: Tensor | None = None
    shift: Tensor | None = None
    act: str = "none"

    def float(self) -> Epilogue:
        """The same in float32."""
        scale, shift, act = self
        return Epilogue(None if scale is None else scale.float(), None if shift is None else shift.float(), act)

    def apply(self, out: Tensor) -> Tensor:
        """The same on an output that is there already."""
        if self.scale is not None:
            out = out * self.scale.view(-1, 1, 1)
        if self.shift is not None:
            out = out + self.shift.view(-1, 1, 1)
        if self.act == "none":
            return out
        return F.relu(out) if self.act == "relu" else F.silu(out)
