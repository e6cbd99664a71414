"""Who computes the operator: a list of backends, each of which may decline a call with a reason.

Further backends (a C++ kernel, Triton) register here; the layers and `rfa_conv2d` know only this file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor

from rfaconv.errors import UserError, unknown_name
from rfaconv.ops.call import RFACall
from rfaconv.ops.composed import rfa_composed
from rfaconv.ops.reference import rfa_reference


@dataclass(frozen=True)
class Backend:
    """One implementation of the operator.

    Attributes:
        name: what users type, e.g. "torch".
        run: computes the call; differentiable; updates the running statistics as F.batch_norm does.
        declines: why it cannot take a call, as a sentence, or None if it can.
        says: one line for `rfaconv info`.
    """

    name: str
    run: Callable[[RFACall], Tensor]
    says: str
    declines: Callable[[RFACall], str | None] = lambda call: None


_backends: dict[str, Backend] = {}
_preferred = "auto"


def register_backend(backend: Backend) -> None:
    """Add `backend`; "auto" asks the one registered last first."""
    _backends[backend.name] = backend


def backends() -> list[Backend]:
    """All backends, in the order in which "auto" asks them."""
    return list(reversed(_backends.values()))


def preferred_backend() -> str:
    """The name that calls without a backend of their own use: "auto" unless inside `use_backend`."""
    return _preferred


@contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Compute with `name` inside the block: all layers, and every call that names no backend of its own.

    For the whole process, not a thread.
    """
    global _preferred
    _known(name)
    previous, _preferred = _preferred, name
    try:
        yield
    finally:
        _preferred = previous


def choose_backend(name: str | None, call: RFACall) -> Backend:
    """The backend that takes `call`; a named one that declines raises a UserError with its reason."""
    name = name or _preferred
    _known(name)
    if name != "auto":
        reason = _backends[name].declines(call)
        if reason is not None:
            raise UserError(f"Backend '{name}' declines this call: {reason}")
        return _backends[name]
    return next(backend for backend in backends() if backend.declines(call) is None)


def _known(name: str) -> None:
    if name != "auto" and name not in _backends:
        unknown_name("backend", name, ["auto", *_backends])


register_backend(Backend("reference", rfa_reference, "the paper's formula, step by step; any device and dtype"))
register_backend(Backend("torch", rfa_composed, "PyTorch operators, no rearrangement, batch norm folded in eval"))
