"""Triton's interpreter in place of its compiler, for kernels that are there already and as long as one wants it.

TRITON_INTERPRET=1 does the same for a whole process, if it is set before anything imports triton: too early for a test.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import ModuleType
from unittest import mock

import torch
import triton.language as tl
from triton import knobs
from triton.runtime.interpreter import InterpretedFunction
from triton.runtime.jit import JITFunction

from rfaconv.ops import dispatch
from rfaconv.ops.triton import backend, kernels, library


@contextmanager
def interpreted() -> Iterator[None]:
    """Inside, the kernels run in the interpreter, and the operators run them on CPU tensors too."""
    modules = [tl, tl.standard, *_modules(kernels)]
    with mock.patch.object(knobs.runtime, "interpret", True):
        # A function is one object under several names, and tl.reduce asks which it has been given.
        twins: dict[int, InterpretedFunction] = {}
        with _replaced(modules, twins), _on_the_cpu():
            yield


@contextmanager
def _replaced(modules: list[ModuleType], twins: dict[int, InterpretedFunction]) -> Iterator[None]:
    before = [
        (module, name, value)
        for module in modules
        for name, value in vars(module).items()
        if isinstance(value, JITFunction)
    ]
    for module, name, value in before:
        setattr(module, name, twins.setdefault(id(value), InterpretedFunction(value.fn)))
    try:
        yield
    finally:
        for module, name, value in before:
            setattr(module, name, value)


@contextmanager
def _on_the_cpu() -> Iterator[None]:
    """The implementations in the place of the C++ ones, which are back when the library goes; and a backend that lets
    CPU tensors through to them.
    """
    lenient = replace(dispatch._backends["triton"], declines=backend.declines_call)
    with (
        torch.library._scoped_library("rfaconv", "IMPL") as added,
        mock.patch.dict(dispatch._backends, {"triton": lenient}),
    ):
        library.register(added, "CPU", allow_override=True)
        yield


def _modules(package: ModuleType) -> list[ModuleType]:
    import rfaconv.ops.triton.launch  # noqa: F401 (imports the kernels)

    return [value for value in vars(package).values() if isinstance(value, ModuleType)]
