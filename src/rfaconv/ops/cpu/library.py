"""The compiled operators (csrc/): loading them into `torch.ops.rfaconv`, and why they may not be there."""

from __future__ import annotations

import ctypes
import warnings
from functools import cache
from pathlib import Path

import torch

from rfaconv.ops.operators.definition import fingerprint

MOST_TAPS, MOST_STRIDE = 128, 32
"""What the kernels take: MAX_TAPS and MAX_PHASES of csrc/tile.h."""

_LIBRARY = Path(__file__).with_name("_kernels.so")


def _load() -> str | None:
    """Load the operators; why that fails, as half a sentence, or None."""
    if not _LIBRARY.exists():
        return "it was not built when rfaconv was installed (it needs a C++20 compiler and torch 2.10 or later)"
    if fingerprint().encode() not in _LIBRARY.read_bytes():
        return f"{_LIBRARY.name} was built from other sources than these"
    try:
        torch.ops.load_library(_LIBRARY)
    except OSError as error:
        return f"{_LIBRARY.name} does not load with torch {torch.__version__}: {str(error).splitlines()[0]}"
    return None


# At import, because a model that torch.compile traces, or an exported program that is read, finds them there.
MISSING = _load()
"""Why the compiled operators are not there; None if they are."""


@cache
def warn_missing() -> None:
    """Say, once a process, that the slow way is taken."""
    warnings.warn(
        f"rfaconv's CPU kernel is not used: {MISSING}. The layers compute the same several times as slowly. "
        "To build it: pip install --no-build-isolation --no-deps --force-reinstall rfaconv",
        stacklevel=2,
    )


def instruction_set() -> str:
    """Which of the kernels runs on this machine: "AVX-512", "AVX2" or "baseline"."""
    function = _c_library().rfaconv_instruction_set
    function.restype = ctypes.c_char_p
    return function().decode()


def use_instruction_set(name: str) -> bool:
    """Run another set's kernels from now on; False if this machine has it not. For tests and measurements."""
    return bool(_c_library().rfaconv_use_instruction_set(name.encode()))


@cache
def _c_library() -> ctypes.CDLL:
    return ctypes.CDLL(str(_LIBRARY))
