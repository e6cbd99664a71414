"""One training of a classifier: from a model's name, data and a recipe to a saved model; resumes where it was."""

from __future__ import annotations

import json
import logging
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging, ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from torch import nn

from rfaconv.data import ClassificationData
from rfaconv.files import write_text
from rfaconv.tasks.callbacks import CurvesFile, Progress, ProgressCallback
from rfaconv.tasks.checkpoint import AtomicCheckpointIO, ModelRecord, save_model
from rfaconv.tasks.classify.evaluate import evaluate
from rfaconv.tasks.classify.loaders import Loaders, image_size
from rfaconv.tasks.classify.module import Classifier
from rfaconv.tasks.classify.start import Start, build_started
from rfaconv.tasks.recipe import Recipe
from rfaconv.tasks.results import RunResult
from rfaconv.tasks.rundir import claim, read_json


@dataclass(frozen=True)
class ClassifyJob:
    """What to train: a model with a convolution, on data, by a recipe, from a seed."""

    model: str
    conv: str
    data: ClassificationData
    recipe: Recipe
    seed: int
    start: Start | None = None
    """The plain model's weights, where the training goes on from those."""

    @property
    def record(self) -> ModelRecord:
        """What the trained model is saved with."""
        return ModelRecord(
            self.model,
            self.conv,
            self.data.classes,
            self.data.channels,
            image_size(self.data, self.recipe),
            self.recipe.eval_transform,
        )

    def facts(self) -> dict[str, Any]:
        """What tells this job from every other, as plain data."""
        facts = {
            "task": "classify",
            "model": self.model,
            "conv": self.conv,
            "data": {"name": self.data.name, "fingerprint": self.data.fingerprint},
            "recipe": self.recipe.as_dict(),
            "seed": self.seed,
        }
        return facts if self.start is None else {**facts, "start": self.start.fingerprint}

    def build(self) -> nn.Module:
        """The model to train: freshly initialised, or started from the plain one's weights."""
        if self.start is None:
            return self.record.build()
        return build_started(self.record, self.start, self.data)


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


def fit(
    job: ClassifyJob,
    run_dir: Path,
    *,
    machine: Machine | None = None,
    report: Callable[[Progress], None] | None = None,
    tensorboard: bool = False,
) -> RunResult:
    """Train `job` in `run_dir`, or go on where a killed run stopped; a finished one is only read.

    Leaves plan.json (what it is), metrics.csv (a row an epoch), model.safetensors and result.json. While it runs,
    last.ckpt holds the last whole epoch: a kill costs the epoch in progress, and the numbers come out the same.

    Raises:
        UserError: the folder is another job's, or a file in it cannot be read.
    """
    claim(run_dir, job.facts())
    if (run_dir / "result.json").exists():
        return read_result(run_dir)
    machine = machine or Machine()
    _quiet()
    pl.seed_everything(job.seed, workers=True, verbose=False)
    module = Classifier(job.build(), job.recipe, len(job.data.classes), job.seed)
    trainer = _trainer(job, run_dir, machine, report, tensorboard)
    checkpoint = run_dir / "last.ckpt"
    loaders = Loaders(job.data, job.recipe, job.seed, machine.workers)
    try:
        trainer.fit(module, datamodule=loaders, ckpt_path=checkpoint if checkpoint.exists() else None)
    except SystemExit as stop:  # Lightning makes an exit of Ctrl-C, which is for the caller to decide
        raise KeyboardInterrupt from stop
    evaluation = evaluate(
        module.model, job.record, job.data, batch_size=job.recipe.batch_size, device=trainer.strategy.root_device
    )
    result = RunResult(job.conv, job.seed, evaluation.metrics, module.curves, module.seconds)
    if trainer.is_global_zero:
        save_model(run_dir / "model.safetensors", module.model, job.record)
        _write_result(run_dir, result, evaluation.predictions)
        checkpoint.unlink(missing_ok=True)
    return result


def read_result(run_dir: Path) -> RunResult:
    """The result of a finished run."""
    found = read_json(run_dir / "result.json")
    return RunResult(found["conv"], found["seed"], found["metrics"], found["curves"], found["seconds"])


def read_predictions(run_dir: Path) -> list[int]:
    """The class a finished run's model gave to each validation image."""
    predictions: list[int] = read_json(run_dir / "result.json")["predictions"]
    return predictions


def _trainer(
    job: ClassifyJob, run_dir: Path, machine: Machine, report: Callable[[Progress], None] | None, tensorboard: bool
) -> pl.Trainer:
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", machine.devices))
    nodes = int(os.environ.get("WORLD_SIZE", processes)) // processes if "LOCAL_WORLD_SIZE" in os.environ else 1
    callbacks: list[Callback] = [CurvesFile(run_dir / "metrics.csv")]
    if job.recipe.ema_decay is not None:
        callbacks.append(EMAWeightAveraging(decay=job.recipe.ema_decay))
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
        precision=job.recipe.precision,
        max_epochs=job.recipe.epochs,
        gradient_clip_val=job.recipe.gradient_clip,
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


def _write_result(run_dir: Path, result: RunResult, predictions: list[int]) -> None:
    record = {
        "conv": result.conv,
        "seed": result.seed,
        "metrics": dict(result.metrics),
        "seconds": result.seconds,
        "curves": dict(result.curves),
        "predictions": predictions,
    }
    write_text(run_dir / "result.json", json.dumps(record) + "\n")


def _quiet() -> None:
    """Lightning's hints about loaders and hardware are for its own users."""
    for name in ("lightning.pytorch", "lightning.fabric", "lightning"):
        logging.getLogger(name).setLevel(logging.WARNING)
    hints = ("does not have many workers", "Checkpoint directory .* exists", "number of training batches", "treespec")
    for words in hints:
        warnings.filterwarnings("ignore", f".*{words}.*")
