"""One training on Lightning, whatever the task: on which machine, with which files, and how it goes on after a kill."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging, ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from torch import nn

from rfaconv.tasks.callbacks import CurvesFile, Progress, ProgressCallback
from rfaconv.tasks.checkpoint import AtomicCheckpointIO, save_model
from rfaconv.tasks.module import TrainedModule
from rfaconv.tasks.recipe import Recipe
from rfaconv.tasks.results import RunResult
from rfaconv.tasks.rundir import claim, read_result, write_result


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


class Job(Protocol):
    """What to train, of whatever task."""

    @property
    def conv(self) -> str: ...

    @property
    def recipe(self) -> Recipe: ...

    @property
    def seed(self) -> int: ...

    @property
    def record(self) -> Any:
        """What the trained model is saved with."""

    def facts(self) -> dict[str, Any]:
        """What tells this job from every other, as plain data."""


def fit_job(
    job: Job,
    run_dir: Path,
    *,
    module: Callable[[], TrainedModule],
    loaders: Callable[[int], pl.LightningDataModule],
    evaluate: Callable[[nn.Module, torch.device], tuple[dict[str, float], dict[str, Any]]],
    machine: Machine | None = None,
    report: Callable[[Progress], None] | None = None,
    tensorboard: bool = False,
) -> RunResult:
    """Train `job` in `run_dir`, or go on where a killed run stopped; a finished one is only read.

    Leaves plan.json (what it is), metrics.csv (a row an epoch), model.safetensors and result.json. While it runs,
    last.ckpt holds the last whole epoch: a kill costs the epoch in progress, and the numbers come out the same.
    A training that diverges stops and leaves its curves and the epoch, no model and no figures.

    Args:
        module: builds the model to train; called once everything is seeded.
        loaders: from the number of workers.
        evaluate: from the trained model and its device, the final figures and what else result.json is to hold.

    Raises:
        UserError: the folder is another job's, or a file in it cannot be read.
    """
    claim(run_dir, job.facts())
    if (run_dir / "result.json").exists():
        return read_result(run_dir)
    machine = machine or Machine()
    _quiet()
    pl.seed_everything(job.seed, workers=True, verbose=False)
    trained = module()
    trainer = _trainer(job.recipe, run_dir, machine, report, tensorboard)
    checkpoint = run_dir / "last.ckpt"
    try:
        trainer.fit(trained, datamodule=loaders(machine.workers), ckpt_path=checkpoint if checkpoint.exists() else None)
    except SystemExit as stop:  # Lightning makes an exit of Ctrl-C, which is for the caller to decide
        raise KeyboardInterrupt from stop
    metrics, more = dict[str, float](), dict[str, Any]()
    if trained.diverged is None:
        metrics, more = evaluate(trained.model, trainer.strategy.root_device)
    result = RunResult(job.conv, job.seed, metrics, trained.curves, trained.seconds, trained.diverged)
    if trainer.is_global_zero:
        if trained.diverged is None:
            save_model(run_dir / "model.safetensors", trained.model, job.record)
        write_result(run_dir, result, **more)
        checkpoint.unlink(missing_ok=True)
    return result


def _trainer(
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
