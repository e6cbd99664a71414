"""One training of a detector: from a model's name, data and a recipe to a saved model; resumes where it was."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from rfaconv.data.detection import DetectionData
from rfaconv.errors import UserError
from rfaconv.models.yolo import YOLO, library
from rfaconv.models.yolo.model import AttentionDetectionModel
from rfaconv.models.yolo.rows import Config, Where, with_conv
from rfaconv.models.yolo.yolo import load_config
from rfaconv.tasks.callbacks import Progress
from rfaconv.tasks.detect.evaluate import best_device, evaluate, save_detections
from rfaconv.tasks.detect.recipe import DetectRecipe
from rfaconv.tasks.detect.trainer import RecipeTrainer
from rfaconv.tasks.results import RunResult
from rfaconv.tasks.rundir import claim, read_json, read_result, write_result
from rfaconv.tasks.training import Machine


def configuration(model: str, conv: str, where: Where = None, weights: Path | None = None) -> Config:
    """The configuration of a model (of `weights`, where there are some) with the convolution in its places.

    Raises:
        UserError: an unknown model, layer or place.
    """
    if weights is not None:
        found: Config = YOLO(weights, conv, where).model.yaml
        return found
    config = load_config(model)
    return config if conv == "conv" else with_conv(config, conv, where)


def one_process(machine: Machine) -> None:
    """Raise a UserError if more than one process is asked for."""
    if machine.devices > 1:
        raise UserError(
            "Detection trains in one process here; rfaconv.YOLO(...).train(device=[0, 1]) takes several GPUs."
        )


@dataclass(frozen=True)
class DetectJob:
    """What to train: a model with a convolution, on data, by a recipe, from a seed."""

    model: str
    conv: str
    data: DetectionData
    recipe: DetectRecipe
    seed: int
    where: Where = None
    weights: Path | None = None
    """A trained model (.pt) without our layers to go on from; it says what model it is."""

    @property
    def config(self) -> Config:
        """The model's configuration, with the convolution in its places."""
        return configuration(self.model, self.conv, self.where, self.weights)

    def trained(self) -> AttentionDetectionModel:
        """The model of `weights`, each layer starting as the convolution it stands for."""
        assert self.weights is not None
        found: AttentionDetectionModel = YOLO(self.weights, self.conv, self.where).model
        return found

    @property
    def image_size(self) -> int:
        """Side in pixels the images are brought to: the recipe's, the data's own, or 640; a multiple of 32."""
        own = max(self.data.image_size) if self.data.image_size else 640
        return self.recipe.image_size or -(-own // 32) * 32

    def build(self) -> nn.Module:
        """The model, freshly initialised."""
        with library.quietly():
            return AttentionDetectionModel(self.config, nc=len(self.data.classes))

    def facts(self) -> dict[str, Any]:
        """What tells this job from every other, as plain data."""
        return {
            "task": "detect",
            "model": self.model,
            "where": self.where if self.where is None or isinstance(self.where, str) else list(self.where),
            "conv": self.conv,
            "data": {"name": self.data.name, "fingerprint": self.data.fingerprint},
            "recipe": self.recipe.as_dict(),
            "seed": self.seed,
            "weights": None if self.weights is None else hashlib.sha256(self.weights.read_bytes()).hexdigest()[:16],
        }


def fit(
    job: DetectJob,
    run_dir: Path,
    *,
    machine: Machine | None = None,
    report: Callable[[Progress], None] | None = None,
) -> RunResult:
    """Train `job` in `run_dir`, or go on where a killed run stopped; a finished one is only read.

    Leaves plan.json (what it is), metrics.csv (a row an epoch), model.pt (Ultralytics' form), detections.npz (what it
    finds in the validation images) and result.json. While it runs, state.pt holds the last whole epoch: a kill costs
    the epoch in progress, and the numbers come out the same.

    Raises:
        UserError: the folder is another job's, or a file in it cannot be read; or more than one process is asked for.
    """
    machine = machine or Machine()
    one_process(machine)
    device = best_device(machine.accelerator)
    claim(run_dir, job.facts())
    if (run_dir / "result.json").exists():
        return read_result(run_dir)
    settings = {
        **job.recipe.settings(),
        "model": f"{job.model}.yaml", "task": "detect", "mode": "train", "data": str(job.data.write(run_dir)),
        "imgsz": job.image_size, "seed": job.seed, "device": device, "workers": machine.workers, "plots": False,
        "verbose": False, "project": str(run_dir.parent.resolve()), "name": run_dir.name, "exist_ok": True,
    }  # fmt: skip
    with library.quietly():
        weights = None if job.weights is None else job.trained()
        config = job.config if weights is None else weights.yaml
        trainer = RecipeTrainer(settings, config, job.data, report, weights)
        if not trainer.finished():
            trainer.train()
    metrics, more = dict[str, float](), dict[str, Any]()
    if trainer.diverged is None:
        found = evaluate(
            trainer.model_path, job.data, image_size=job.image_size, batch_size=job.recipe.batch_size, device=device
        )
        save_detections(run_dir / "detections.npz", found.found)
        # Without sizes of which there are no boxes.
        metrics = {name: value for name, value in found.scores.metrics.items() if value == value}
        precision = _mean_precision(found.scores.precision)
        more = {"class_ap": _plain(found.scores.class_ap), "precision": _plain(precision)}
    result = RunResult(job.conv, job.seed, metrics, trainer.curves, trainer.seconds, trainer.diverged)
    write_result(run_dir, result, **more)
    _tidy(run_dir)
    return result


def _mean_precision(precision: Any) -> Any:
    """[101]: the mean over the classes that have a box to be found."""
    known = precision[~np.isnan(precision).any(axis=1)]
    return known.mean(axis=0) if len(known) else np.full(precision.shape[1], np.nan)


def _plain(values: Any) -> list[float | None]:
    """For JSON, which has no word for nan."""
    return [None if value != value else float(value) for value in values]


def _tidy(run_dir: Path) -> None:
    """What only a training in progress needs."""
    (run_dir / "state.pt").unlink(missing_ok=True)
    for name in ("last.pt", "best.pt"):
        (run_dir / "weights" / name).unlink(missing_ok=True)
    (run_dir / "weights").rmdir()


def read_precision(run_dir: Path) -> list[float]:
    """Mean precision of a finished run at the overlap 0.50, at 101 recalls from 0 to 1."""
    return [float("nan") if value is None else value for value in read_json(run_dir / "result.json")["precision"]]
