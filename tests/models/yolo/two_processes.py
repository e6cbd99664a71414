"""Starts a training in two processes exactly as Ultralytics starts one on two GPUs, but on the CPU, with gloo.

Ultralytics has no such thing itself: on a CPU it trains in one process. The trainer below tells it that there are two
devices, lets DistributedDataParallel work without device numbers, and ends after the last epoch's own validation; all
else is Ultralytics' and ours.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from ultralytics.utils import LOCAL_RANK, RANK
from ultralytics.utils.dist import ddp_cleanup, generate_ddp_command

from rfaconv.models.yolo import YOLO, trainer

PARALLEL = nn.parallel.DistributedDataParallel


class TwoProcesses(trainer.AttentionDetectionTrainer):
    """The trainer, on two processes of a CPU."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.world_size = 2
        self.ddp = LOCAL_RANK == -1

    def _setup_ddp(self) -> None:
        dist.init_process_group("gloo", rank=RANK, world_size=2)
        nn.parallel.DistributedDataParallel = lambda model, device_ids=None, **kwargs: PARALLEL(model, **kwargs)

    def final_eval(self) -> None:
        model = self.model.module
        digest = sum(value.double().abs().sum().item() for value in model.parameters())
        kind = type(model.model[1]).__name__
        Path(self.args.project, f"rank{RANK}.txt").write_text(f"{RANK} {digest!r} {kind}\n")
        # Ultralytics' own validates the best checkpoint next, and asks CUDA for the device of each process.


def main(data: str, folder: str) -> None:
    model = YOLO("yolov8n", conv="rfa")
    made = TwoProcesses(
        overrides={
            "model": "yolov8n.yaml", "data": data, "project": folder, "name": "run", "epochs": 1, "imgsz": 64,
            "batch": 8, "nbs": 8, "device": "cpu", "workers": 0, "amp": False,
            "plots": False, "val": False, "exist_ok": True,
        }
    )  # fmt: skip
    made.model = made.get_model(cfg=model.model.yaml)
    command, file = generate_ddp_command(made)
    try:
        subprocess.run(command, check=True)
    finally:
        ddp_cleanup(made, file)


if __name__ == "__main__":
    torch.set_num_threads(1)
    import two_processes  # so that the workers find the class by an importable name

    two_processes.main(*sys.argv[1:])
