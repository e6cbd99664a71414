"""One training on Lightning, whatever the task: on which machine, with which files, and how it goes on after a kill."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging, ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger

from rfaconv.tasks.callbacks import CurvesFile, Progress, ProgressCallback
from rfaconv.tasks.checkpoint import AtomicCheckpointIO
from rfaconv.tasks.recipe import Recipe


@dataclass(frozen=True)
class Machine:
    """Where to train.

    Attributes:
        accelerator: "auto", "cpu" or "gpu" (Lightning's names).
        devices: processes on this machine; under torchrun its own count is taken.
        workers: processes that read images, for each training process.
    """

    accelerator: str = "auto"
    devices: int = 1
    workers: int = 0


def start(seed: int) -> None:
    """Seed everything; call it before the model is built."""
    _quiet()
    pl.seed_everything(seed, workers=True, verbose=False)


def train(trainer: pl.Trainer, module: pl.LightningModule, loaders: pl.LightningDataModule, checkpoint: Path) -> None:
    """Fit from the start, or from `checkpoint` where there is one."""
    try:
        trainer.fit(module, datamodule=loaders, ckpt_path=checkpoint if checkpoint.exists() else None)
    except SystemExit as stop:  # Lightning makes an exit of Ctrl-C, which is for the caller to decide
        raise KeyboardInterrupt from stop


def make_trainer(
    recipe: Recipe, run_dir: Path, machine: Machine, report: Callable[[Progress], None] | None, tensorboard: bool
) -> pl.Trainer:
    """Lightning's trainer: writes metrics.csv and last.ckpt into `run_dir` after each epoch, tells `report`."""
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", machine.devices))
    nodes = int(os.environ.get("WORLD_SIZE", processes)) // processes if "LOCAL_WORLD_SIZE" in os.environ else 1
    callbacks: list[Callback] = [CurvesFile(run_dir / "metrics.csv")]
    if recipe.ema_decay is not None:
        callbacks.append(EMAWeightAveraging(decay=recipe.ema_decay))
    if report is not None:
        callbacks.append(ProgressCallback(report))
    # filename, not save_last: one checkpoint, replaced after every epoch once its figures are in the curves.
    callbacks.append(
        ModelCheckpoint(run_dir, filename="last", save_on_train_epoch_end=True, enable_version_counter=False)
    )
    return pl.Trainer(
        accelerator=machine.accelerator,
        devices=processes,
        num_nodes=nodes,
        strategy="ddp" if processes * nodes > 1 else "auto",
        precision=recipe.precision,
        max_epochs=recipe.epochs,
        gradient_clip_val=recipe.gradient_clip,
        callbacks=callbacks,
        plugins=[AtomicCheckpointIO()],
        logger=TensorBoardLogger(run_dir, name="tensorboard", version="") if tensorboard else False,
        default_root_dir=run_dir,
        deterministic="warn",
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def _quiet() -> None:
    """Lightning's hints about loaders and hardware are for its own users."""
    for name in ("lightning.pytorch", "lightning.fabric", "lightning"):
        logging.getLogger(name).setLevel(logging.WARNING)
    hints = ("does not have many workers", "Checkpoint directory .* exists", "number of training batches", "treespec")
    for words in hints:
        warnings.filterwarnings("ignore", f".*{words}.*")
