"""Who computes the operator: a list of backends, each of which may decline a call with a reason.

Further backends register here; the layers and `rfa_conv2d` know only this file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor

from rfaconv.errors import UserError, unknown_name
from rfaconv.ops.call import GatedCall, RFACall
from rfaconv.ops.composed import rfa_composed
from rfaconv.ops.cpu import backend as cpu
from rfaconv.ops.reference import rfa_reference
from rfaconv.ops.triton import backend as triton


@dataclass(frozen=True)
class Backend:
    """One implementation of the operator.

    Attributes:
        name: what users type, e.g. "torch".
        run: computes the call; differentiable; updates the running statistics as F.batch_norm does.
        declines: why it cannot take a call, as a sentence, or None if it can.
        says: one line for `rfaconv info`.
        takes_epilogue: whether `run` computes the call's epilogue; else that is done after it.
        declines_gated: the same as `declines` of a gated convolution (`rfaconv.ops.gated`); None where it has no
            kernels for those and leaves it to the layers to compose them of their modules.
        auto: whether "auto" asks it; else it computes where it is named only.
    """

    name: str
    run: Callable[[RFACall], Tensor]
    says: Callable[[], str]
    declines: Callable[[RFACall], str | None] = lambda call: None
    takes_epilogue: bool = False
    declines_gated: Callable[[GatedCall], str | None] | None = None
    auto: bool = True


_backends: dict[str, Backend] = {}
_preferred = "auto"


def register_backend(backend: Backend) -> None:
    """Add `backend`; "auto" asks the one registered last first."""
    _backends[backend.name] = backend


def backends() -> list[Backend]:
    """All backends; first those that "auto" asks, in that order."""
    return [*_asked(), *(backend for backend in _backends.values() if not backend.auto)]


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
        _raise_if_declined(name, _backends[name].declines(call))
        return _backends[name]
    reasons = {}
    for backend in _asked():
        reason = backend.declines(call)
        if reason is None:
            return backend
        reasons[backend.name] = reason
    raise UserError(f"No backend takes this call: {'; '.join(f'{name}: {why}' for name, why in reasons.items())}.")


def compute(call: RFACall, name: str | None = None) -> Tensor:
    """The output of `call`, whose shapes fit, by the backend of that name; see `choose_backend`."""
    chosen = choose_backend(name, call)
    return chosen.run(call) if chosen.takes_epilogue else call.epilogue.apply(chosen.run(call))


def takes(name: str | None, call: RFACall) -> bool:
    """Whether the backend of that name takes `call`; for None the preferred one, for "auto" any that it asks."""
    name = name or _preferred
    _known(name)
    asked = _asked() if name == "auto" else (_backends[name],)
    return any(backend.declines(call) is None for backend in asked)


def takes_gated(call: GatedCall) -> bool:
    """Whether kernels take a gated convolution; else the layer composes it of its own modules.

    Raises:
        UserError: the backend of `use_backend` has such kernels but declines; the message says why.
    """
    if _preferred == "auto":
        return any(b.declines_gated is not None and b.declines_gated(call) is None for b in _asked())
    declines = _backends[_preferred].declines_gated
    if declines is None:
        return False
    _raise_if_declined(_preferred, declines(call))
    return True


def _asked() -> Iterator[Backend]:
    """Those that "auto" asks, in their order; no list, because every call of a layer comes by here."""
    return (backend for backend in reversed(_backends.values()) if backend.auto)


def _raise_if_declined(name: str, reason: str | None) -> None:
    if reason is not None:
        raise UserError(f"Backend '{name}' declines this call: {reason}")


def _known(name: str) -> None:
    if name != "auto" and name not in _backends:
        unknown_name("backend", name, ["auto", *_backends])


def _no_group(call: RFACall) -> str | None:
    return None if call.process_group is None else "it has no statistics over several processes"


register_backend(
    Backend("reference", rfa_reference, lambda: "the paper's formula, step by step; any device and dtype", _no_group)
)
register_backend(
    Backend("torch", rfa_composed, lambda: "PyTorch operators, no rearrangement, batch norm folded in eval", _no_group)
)
register_backend(
    Backend(
        "triton", triton.rfa_triton, triton.says, triton.declines,
        takes_epilogue=True, declines_gated=triton.declines_gated, auto=False,  # until it has run on a GPU
    )
)  # fmt: skip
register_backend(
    Backend("cpu", cpu.rfa_cpu, cpu.says, cpu.declines, takes_epilogue=True, declines_gated=cpu.declines_gated)
)
