"""The C library's allocator, set for training on a CPU."""

from __future__ import annotations

import ctypes
import platform

# glibc's names for what mallopt sets (malloc.h).
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def keep_freed_memory() -> None:
    """Let this process keep what it frees, instead of giving it back to the system and asking for it again.

    A training frees and allocates tensors of the same sizes at each step; glibc returns large ones to the system at
    once, which then has to clear every page anew. Costs nothing but the memory of the peak, which stays allocated.
    Does nothing where the C library is another.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, 2**30)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
