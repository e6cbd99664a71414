"""One training of a classifier: from a model's name, data and a recipe to a saved model; resumes where it was."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rfaconv.data import ClassificationData
from rfaconv.tasks.callbacks import Progress
from rfaconv.tasks.checkpoint import ModelRecord
from rfaconv.tasks.classify.evaluate import evaluate
from rfaconv.tasks.classify.loaders import Loaders, image_size
from rfaconv.tasks.classify.module import Classifier
from rfaconv.tasks.classify.start import Start, build_started
from rfaconv.tasks.recipe import Recipe
from rfaconv.tasks.results import RunResult
from rfaconv.tasks.rundir import read_json
from rfaconv.tasks.training import Machine, fit_job


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


def fit(
    job: ClassifyJob,
    run_dir: Path,
    *,
    machine: Machine | None = None,
    report: Callable[[Progress], None] | None = None,
    tensorboard: bool = False,
) -> RunResult:
    """Train `job` in `run_dir`, or go on where a killed run stopped; see `rfaconv.tasks.training.fit_job`.

    result.json also holds the class that the model gives to each validation image.
    """
    return fit_job(
        job,
        run_dir,
        module=lambda: Classifier(job.build(), job.recipe, len(job.data.classes), job.seed),
        loaders=lambda workers: Loaders(job.data, job.recipe, job.seed, workers),
        evaluate=partial(_evaluated, job),
        machine=machine,
        report=report,
        tensorboard=tensorboard,
    )


def _evaluated(job: ClassifyJob, model: nn.Module, device: torch.device) -> tuple[dict[str, float], dict[str, Any]]:
    found = evaluate(model, job.record, job.data, batch_size=job.recipe.batch_size, device=device)
    return found.metrics, {"predictions": found.predictions}


def read_predictions(run_dir: Path) -> list[int]:
    """The class a finished run's model gave to each validation image."""
    predictions: list[int] = read_json(run_dir / "result.json")["predictions"]
    return predictions
