"""Registers, spills, instructions of every Triton kernel, by compiling it ahead of time: no GPU is needed.

    python benchmarks/triton_resources.py [--quick]

The kernels are compiled with the arguments with which they are launched, which is watched for that, and Triton's own
ptxas and nvdisasm say what they take. "Instructions a value" are those of the machine that a thread runs in the
innermost loop (in the whole kernel where there is none) for one channel of one pixel, with few taps: what bounds
these kernels, long before memory does, is how many instructions a processor can issue.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import torch
import triton
from torch import Tensor
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia.compiler import get_ptxas
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction

from rfaconv.ops.triton import operators, pooling
from rfaconv.ops.triton.problem import FEW_TAPS, TILE
from rfaconv.ops.window import Window

ARCHITECTURES = (80, 90)
TYPES = {torch.float32: "fp32", torch.float64: "fp64", torch.bfloat16: "bf16", torch.float16: "fp16"}


class Launch(NamedTuple):
    """One launch of a kernel, its arguments by name."""

    kernel: Any
    arguments: dict[str, Any]
    options: dict[str, Any]


class Resources(NamedTuple):
    """What a kernel takes of an architecture."""

    case: str
    kernel: str
    architecture: int
    warps: int
    registers: int
    spilled: int
    """Bytes of a thread, stores and loads."""
    shared: int
    """Bytes of a program."""
    instructions: str
    """A value; a dash where the taps are in a loop, or there are no values."""
    seconds: float


@contextmanager
def watched() -> Iterator[list[Launch]]:
    """Inside, launches are written down instead of done."""
    found: list[Launch] = []

    def record(self: Any, *values: Any, grid: Any, warmup: bool, **named: Any) -> None:
        arguments = dict(zip(self.arg_names, values, strict=False))
        arguments |= {name: named.pop(name) for name in self.arg_names if name in named}
        found.append(Launch(self, arguments, named))

    with mock.patch.object(JITFunction, "run", record):
        yield found


def launches(kernel_size: int, dtype: torch.dtype, last: bool, outputs: int = 64) -> Iterator[Launch]:
    """Those of a forward and a backward pass, by given statistics and by the batch's, each once."""
    channels, taps = 64, kernel_size * kernel_size
    layout = torch.channels_last if last else torch.contiguous_format
    x = torch.empty(2, channels, 32, 32, dtype=dtype).contiguous(memory_format=layout)
    window = Window((kernel_size, kernel_size), padding=(kernel_size // 2, kernel_size // 2))
    weight = torch.empty(outputs, channels, kernel_size, kernel_size, dtype=dtype)
    filters = torch.empty(channels * taps, 1, kernel_size, kernel_size, dtype=torch.float64)
    offsets, attention, bias = filters.new_empty(channels * taps), torch.empty(channels, taps), torch.empty(outputs)
    out = torch.empty(2, outputs, 32, 32, dtype=dtype)
    line: Any = (torch.empty(outputs), torch.empty(outputs), 1)
    places: Any = (torch.empty(2, channels), torch.empty(2, taps, 32, 32), None, None)
    lines: Any = (None, None, torch.empty(2, channels, kernel_size, 32), torch.empty(2, channels, kernel_size, 32))
    nothing: Any = (None, None, None, None)
    ops: Any = operators
    with watched() as found:
        ops.patch_moments(x, *window)
        for centred in (0, channels):
            features = (filters, offsets, filters.new_empty(centred, taps))
            convolution: Any = (weight, bias, *window[1:], 1, *line)
            for over_channels, gates in ((True, places), (False, lines)):
                pooling.pool_features(x, *features, *window[1:], over_channels, False)
                ops.rf_conv2d(x, *features, None, *gates, *convolution)
            ops.rf_conv2d(x, *features, attention, *nothing, *convolution)
            with mock.patch.object(operators, "fuses", return_value=False):
                ops.rf_conv2d(x, *features, attention, *nothing, *convolution)
            ops.rf_conv2d_backward(out, x, *features, attention, *nothing, weight, *window[1:], 1, True)
        ops.patch_moments_backward(torch.empty(channels, 1 + taps + taps * taps, dtype=torch.float64), x, *window)
    seen = set()
    for launch in found:
        key = (launch.kernel, str(signature(launch)))
        if key not in seen:
            seen.add(key)
            yield launch


def signature(launch: Launch) -> tuple[dict[str, str], dict[str, Any], dict[tuple[int], list[list[Any]]]]:
    """Types, constants and attributes of the arguments, as Triton's launcher finds them."""
    types, constants, attributes = {}, {}, {}
    declared = {parameter.name for parameter in launch.kernel.params if parameter.is_constexpr}
    for place, name in enumerate(launch.kernel.arg_names):
        value = launch.arguments[name]
        if name in declared or value is None or (isinstance(value, int) and value == 1):
            types[name], constants[name] = "constexpr", value
            continue
        types[name] = _type(value)
        if isinstance(value, Tensor) or (isinstance(value, int) and value % 16 == 0):
            attributes[(place,)] = [["tt.divisibility", 16]]
    return types, constants, attributes


def _type(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"*{TYPES[value.dtype]}"
    return "fp32" if isinstance(value, float) else "i32"


def compile_launch(case: str, launch: Launch, architecture: int) -> Resources:
    """Compile one launch; raises what Triton or ptxas raise where that fails."""
    start = time.perf_counter()
    source = ASTSource(launch.kernel, *signature(launch))
    compiled = triton.compile(source, target=GPUTarget("cuda", architecture, 32), options=launch.options)
    text = compiled.asm["ptx"]
    said = _ptxas(text, architecture)
    spilled = [int(number) for number in re.findall(r"(\d+) bytes spill", said)]
    registers = re.search(r"Used (\d+) registers", said)
    assert registers is not None, said
    return Resources(
        case,
        launch.kernel.__name__,
        architecture,
        compiled.metadata.num_warps,
        int(registers[1]),
        sum(spilled),
        compiled.metadata.shared,
        instructions_a_value(launch, compiled.asm["cubin"], compiled.metadata.num_warps),
        time.perf_counter() - start,
    )


def _ptxas(text: str, architecture: int) -> str:
    name = "sm_90a" if architecture == 90 else f"sm_{architecture}"
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "kernel.ptx").write_text(text)
        command = [get_ptxas(architecture).path, "-v", f"--gpu-name={name}", "kernel.ptx", "-o", "kernel.bin"]
        return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stderr


def instructions_a_value(launch: Launch, binary: bytes, warps: int) -> str:
    """See the head of this file."""
    taken = launch.arguments
    if "WINDOW" not in taken or taken["WINDOW"][0] * taken["WINDOW"][1] > FEW_TAPS:
        return "-"
    values = taken["P"] * taken.get("Q", 1) * taken.get("C", TILE) / (32 * warps)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(binary)
        command = [knobs.nvidia.nvdisasm.path, "-c", path]
        listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return f"{innermost(listing) / values:.0f}"


def innermost(listing: str) -> int:
    """Instructions of a disassembly's innermost loop, of the longest if there are several; of all if there is none."""
    labels: dict[str, int] = {}
    loops = []
    count = 0
    for line in listing.splitlines():
        if label := re.match(r"(\.L_\S+):", line):
            labels[label[1]] = count
        elif instruction := re.match(r"\s+/\*[0-9a-f]{4,}\*/\s+(.*)", line):
            count += 1
            back = re.search(r"BRA.*`\((\.L_\S+)\)", instruction[1])
            # What ends every kernel is a branch to itself.
            if back and labels.get(back[1], count) < count - 1:
                loops.append((labels[back[1]], count))
    inner = [(a, b) for a, b in loops if not any(a <= c and d < b for c, d in loops)]
    return max((end - begin for begin, end in inner), default=count)


CASES = {
    "3x3 bf16 NCHW": (3, torch.bfloat16, False),
    "3x3 bf16 channels_last": (3, torch.bfloat16, True),
    "3x3 tf32 NCHW": (3, torch.float32, False),
    "3x3 tf32 channels_last": (3, torch.float32, True),
    "5x5 bf16 NCHW": (5, torch.bfloat16, False),
    "7x7 bf16 NCHW": (7, torch.bfloat16, False),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="each kernel once, in its form for training")
    parser.add_argument("--case", choices=CASES)
    parser.add_argument("--architecture", type=int, choices=ARCHITECTURES)
    options = parser.parse_args()
    print("| case | kernel | sm | warps | registers | spilled bytes | shared bytes | instructions a value |")
    print("|---|---|---|---|---|---|---|---|")
    for case, (kernel_size, dtype, last) in CASES.items():
        if options.case not in (None, case):
            continue
        found = [*launches(kernel_size, dtype, last)]
        if options.quick:  # the last of each kernel is by the batch's statistics
            found = [*{(one.kernel, one.arguments.get("ATTEND")): one for one in found}.values()]
        for launch in found:
            for architecture in ARCHITECTURES:
                if options.architecture in (None, architecture):
                    *shown, _ = compile_launch(case, launch, architecture)
                    print("|", " | ".join(map(str, shown)), "|", flush=True)


if __name__ == "__main__":
    main()
