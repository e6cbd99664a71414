"""Who computes a layer: a list of backends, each of which may say why it cannot.

A call's own choice goes first, then the layer's (`layer.backend`), then that of `use_backend`, then "auto": the first
that can. Further backends register here; the layers know only this file.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rfaconv.errors import UserError, unknown_name
from rfaconv.ops.backend import Backend, Call
from rfaconv.ops.composed import ReferenceBackend, TorchBackend
from rfaconv.ops.cpu.backend import CpuBackend
from rfaconv.ops.triton.backend import TritonBackend

_backends: dict[str, Backend] = {}
_used: list[tuple[object, str]] = []  # the blocks of `use_backend` that are open


def register_backend(backend: Backend) -> None:
    """Add `backend`; "auto" asks the one registered last first."""
    _backends[backend.name] = backend


def backends() -> list[Backend]:
    """All backends; first those that "auto" asks, in that order."""
    known = [*reversed(_backends.values())]
    return [*(b for b in known if b.auto), *(b for b in _backends.values() if not b.auto)]


def preferred_backend() -> str:
    """The name that calls without a backend of their own use: "auto" unless inside `use_backend`."""
    return _used[-1][1] if _used else "auto"


@contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Compute with `name` inside the block: all layers and calls that name no backend of their own.

    For the whole process, not a thread; where blocks of several threads overlap, the one entered last counts.
    """
    _known(name)
    entry = (object(), name)
    _used.append(entry)
    try:
        yield
    finally:
        _used.remove(entry)


def choose_backend(name: str | None, call: Call) -> Backend:
    """The backend that computes `call`: `name`, else that of `use_backend`, else the first that can.

    Raises:
        UserError: the named backend is unknown, or cannot; the message says why.
    """
    name = name or preferred_backend()
    if name == "auto":
        # "torch" takes everything, so there is one.
        return next(b for b in reversed(_backends.values()) if b.auto and b.unsupported_reason(call) is None)
    _known(name)
    reason = _backends[name].unsupported_reason(call)
    if reason is not None:
        raise UserError(f"Backend '{name}' declines this call: {reason}")
    return _backends[name]


def _known(name: str) -> None:
    if name != "auto" and name not in _backends:
        unknown_name("backend", name, ["auto", *_backends])


for _backend in (ReferenceBackend(), TorchBackend(), TritonBackend(), CpuBackend()):
    register_backend(_backend)
