"""Triton's interpreter in place of its compiler, for kernels that are there already and as long as one wants it.

TRITON_INTERPRET=1 does the same for a whole process, if it is set before anything imports triton: too early for a test.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import torch
import triton.language as tl
from triton import knobs
from triton.runtime import interpreter
from triton.runtime.interpreter import InterpretedFunction, InterpreterBuilder, TensorHandle
from triton.runtime.jit import JITFunction

from rfaconv.ops import dispatch
from rfaconv.ops.backend import Call
from rfaconv.ops.triton import kernels, library
from rfaconv.ops.triton.backend import TritonBackend


@contextmanager
def interpreted() -> Iterator[None]:
    """Inside, the kernels run in the interpreter, and the operators run them on CPU tensors too."""
    modules = [tl, tl.standard, *_modules(kernels)]
    # The switch writes itself into the environment, where it must not stay for the processes of other tests.
    with mock.patch.dict(os.environ), mock.patch.object(knobs.runtime, "interpret", True):
        # A function is one object under several names, and tl.reduce asks which it has been given.
        twins: dict[int, InterpretedFunction] = {}
        with _replaced(modules, twins), _patched_once(), _bfloat16(), _assembly(), _on_the_cpu():
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
def _patched_once() -> Iterator[None]:
    """Triton's language as the interpreter wants it: for the whole block, not again at every call of a helper."""
    with ExitStack() as stack:
        for function in (kernels.tiles.attend, tl.standard.sum):
            stack.callback(interpreter._patch_lang(function.fn).restore)
        nothing = SimpleNamespace(restore=lambda: None)
        stack.enter_context(mock.patch.object(interpreter, "_patch_lang", return_value=nothing))
        yield


@contextmanager
def _bfloat16() -> Iterator[None]:
    """bfloat16 as GPUs have it: the interpreter keeps integers, which it multiplies as such, and rounds to zero."""
    multiply, narrow = InterpreterBuilder.create_dot, InterpreterBuilder.create_fp_trunc

    def widened(handle: TensorHandle) -> TensorHandle:
        if handle.dtype.scalar != tl.bfloat16:
            return handle
        return TensorHandle((handle.data.astype(np.uint32) << 16).view(np.float32), tl.float32)

    def create_dot(self: InterpreterBuilder, a: TensorHandle, b: TensorHandle, *rest: Any) -> TensorHandle:
        return multiply(self, widened(a), widened(b), *rest)

    def create_fp_trunc(self: InterpreterBuilder, value: TensorHandle, dtype: Any) -> TensorHandle:
        if dtype.scalar != tl.bfloat16:
            return narrow(self, value, dtype)
        rounded = torch.from_numpy(value.data).bfloat16().view(torch.int16).numpy()
        return TensorHandle(rounded.view(np.uint16), tl.bfloat16)

    with (
        mock.patch.object(InterpreterBuilder, "create_dot", create_dot),
        mock.patch.object(InterpreterBuilder, "create_fp_trunc", create_fp_trunc),
    ):
        yield


@contextmanager
def _assembly() -> Iterator[None]:
    """What the kernels' few instructions of inline assembly do, which the interpreter does not know."""
    known = {"ex2.approx.ftz.f32": tl.exp2, "rcp.approx.ftz.f32": lambda x: 1.0 / x, "mov.b32": lambda x: x}

    def run(asm: str, constraints: str, args: list[Any], *rest: Any, **named: Any) -> Any:
        return known[asm.split()[0]](*args)

    with mock.patch.object(tl, "inline_asm_elementwise", run):
        yield


@contextmanager
def _on_the_cpu() -> Iterator[None]:
    """The implementations in the place of the C++ ones, which are back when the library goes; and a backend that lets
    CPU tensors through to them.
    """

    class Lenient(TritonBackend):
        device_type = "cpu"

        def unsupported_reason(self, call: Call) -> str | None:
            if call.input.device.type == "meta":
                return "it runs on CUDA devices, not on 'meta'"
            return self.unsupported_call(call)

        def _out_dtype(self, x: torch.Tensor) -> torch.dtype:
            return torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else x.dtype

    with (
        torch.library._scoped_library("rfaconv", "IMPL") as added,
        mock.patch.dict(dispatch._backends, {"triton": Lenient()}),
    ):
        library.register(added, "CPU", allow_override=True)
        yield


def _modules(package: ModuleType) -> list[ModuleType]:
    import rfaconv.ops.triton.launch  # noqa: F401 (imports the kernels)

    return [value for value in vars(package).values() if isinstance(value, ModuleType)]
