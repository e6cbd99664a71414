"""What the figures were measured with: the machine and the versions, and nothing that tells whose it is."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import warnings
from collections.abc import Callable
from contextlib import suppress
from importlib import metadata
from pathlib import Path

import torch

UNKNOWN = "unknown"
_LIBRARIES = ("timm", "lightning", "torchvision", "torchmetrics")


def machine() -> dict[str, str]:
    """The machine and the versions, for a report: cpu, cores, threads, instructions, memory, gpu, os, python, torch,
    rfaconv and those of timm, lightning, torchvision and torchmetrics that are installed.

    What cannot be found out is "unknown". Without host name, user name and paths; asks nobody outside the machine.
    """
    facts: dict[str, Callable[[], str]] = {
        "cpu": _cpu,
        "cores": _cores,
        "threads": lambda: str(torch.get_num_threads()),
        "instructions": lambda: torch.backends.cpu.get_cpu_capability(),
        "memory": _memory,
        "gpu": _gpu,
        "os": _os,
        "python": platform.python_version,
        "torch": lambda: str(torch.__version__),
        "rfaconv": _own_version,
    }
    found = {name: _or_unknown(fact) for name, fact in facts.items()}
    for library in _LIBRARIES:
        with suppress(metadata.PackageNotFoundError):
            found[library] = metadata.version(library)
    return found


def _or_unknown(fact: Callable[[], str]) -> str:
    # Any failure: a report must not be lost because a platform lacks a file, a call or a library.
    try:
        return fact() or UNKNOWN
    except Exception:
        return UNKNOWN


def _cpu() -> str:
    """The processor's name as its maker wrote it."""
    system = platform.system()
    if system == "Linux":
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
        if found:
            return found[1].strip()
    elif system == "Darwin":
        command = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=5).stdout.strip()
    return platform.processor() or platform.machine()


def _cores() -> str:
    """The cores this process may use, which a container or a batch system may make fewer than there are."""
    if hasattr(os, "sched_getaffinity"):
        return str(len(os.sched_getaffinity(0)))
    return str(os.cpu_count() or "")


def _memory() -> str:
    if not hasattr(os, "sysconf"):
        return UNKNOWN
    return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.1f} GiB"


def _gpu() -> str:
    """The names of the GPUs, "none" without one."""
    with warnings.catch_warnings():  # a driver that does not fit is torch's to complain about, elsewhere
        warnings.simplefilter("ignore")
        names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    if names:
        return ", ".join(names)
    return "Apple GPU" if torch.backends.mps.is_available() else "none"


def _os() -> str:
    """System and version. Of a kernel's release the number alone: who builds a kernel may put any name after it."""
    number = re.match(r"[\d.]*", platform.release())
    name = f"{platform.system()} {number[0] if number else ''}".strip()
    if platform.system() == "Darwin":
        return f"macOS {platform.mac_ver()[0]}"
    with suppress(OSError):
        return f"{platform.freedesktop_os_release()['PRETTY_NAME']}, {name}"
    return name


def _own_version() -> str:
    import rfaconv

    return rfaconv.__version__
