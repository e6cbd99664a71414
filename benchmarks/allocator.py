"""What keeping freed memory saves in training on a CPU: processor time of a step, each kind in a process of its own.

Run it with: .venv/bin/python benchmarks/allocator.py
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch

from rfaconv.models import create_model
from rfaconv.tasks.allocator import keep_freed_memory

CONVS = ("conv", "rfa", "rfcbam", "rfca")


def processor_time(step: Callable[[], object], rounds: int = 9) -> float:
    """Median milliseconds of processor time, in the program and in the system, of one call."""
    step()
    times = []
    for _ in range(rounds):
        before = time.process_time()
        step()
        times.append(time.process_time() - before)
    return 1000 * statistics.median(times)


def measure() -> None:
    """Print the milliseconds of a training step of resnet10s, batch 128, for each convolution."""
    torch.set_num_threads(1)
    x, y = torch.randn(128, 1, 28, 28), torch.randint(0, 10, (128,))
    found = []
    for conv in CONVS:
        model = create_model("resnet10s", conv, num_classes=10, in_chans=1)
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-8, momentum=0.9)

        def step(model: torch.nn.Module = model, optimizer: torch.optim.SGD = optimizer) -> None:
            torch.nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
            optimizer.zero_grad()

        found.append(f"{conv} {processor_time(step):.0f} ms")
    print(", ".join(found))


def main() -> None:
    """Alternate three times between a process as it is and one that keeps its memory."""
    if len(sys.argv) > 1:
        if sys.argv[1] == "kept":
            keep_freed_memory()
        measure()
        return
    for _ in range(3):
        for kind in ("as it is", "kept"):
            done = subprocess.run([sys.executable, __file__, kind], capture_output=True, text=True, check=True)
            print(f"{kind:<9} {done.stdout.strip()}")


if __name__ == "__main__":
    main()
