"""The backends "torch" and "reference": the layers composed of their own modules, of PyTorch's operators."""

from __future__ import annotations

from rfaconv.ops.backend import Backend


class TorchBackend(Backend):
    """Any device and dtype, without the paper's rearrangement, the batch norm folded in eval."""

    name = "torch"
    composes_modules = True

    def description(self) -> str:
        return "PyTorch operators, no rearrangement, batch norm folded in eval"


class ReferenceBackend(Backend):
    """The same step by step, as the paper writes it: what the others are measured against, in exactness and in cost."""

    name = "reference"
    composes_modules = True

    def description(self) -> str:
        return "the paper's formula, step by step; any device and dtype"
