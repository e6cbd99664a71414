"""Every kernel compiles ahead of time, without a GPU, for two architectures, and the usual ones spill nothing."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / "benchmarks/triton_resources.py"
KERNELS = {
    "add_products", "prepare", "convolve", "generate", "finish", "differentiate", "gather", "differentiate_norm",
    "correction",
}  # fmt: skip


def _no_compiler() -> str | None:
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed"
    from triton.backends.nvidia.compiler import get_ptxas

    try:
        get_ptxas(90)
    except RuntimeError as error:
        return f"triton finds no ptxas: {error}"
    return None


# In a process of its own: this one may have the interpreter on.
@pytest.mark.parametrize("architecture", [80, 90])
def test_every_kernel_compiles_and_few_registers_spill(architecture: int) -> None:
    if reason := _no_compiler():
        pytest.skip(reason)
    done = subprocess.run(
        [sys.executable, SCRIPT, "--case", "3x3 bf16 channels_last", "--architecture", str(architecture)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in done.stdout.splitlines()[2:]]
    assert {row[1] for row in rows} == KERNELS
    assert {row[2] for row in rows} == {str(architecture)}
    assert [(row[1], row[5]) for row in rows if int(row[5]) > 0] == []
