"""One training of a segmentation model: from names, data and a recipe to a saved model; resumes where it was."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rfaconv.data.segmentation import SegmentationData
from rfaconv.tasks.callbacks import Progress
from rfaconv.tasks.results import RunResult
from rfaconv.tasks.rundir import read_json
from rfaconv.tasks.segment.evaluate import evaluate
from rfaconv.tasks.segment.loaders import Loaders, image_size
from rfaconv.tasks.segment.module import Segmenter
from rfaconv.tasks.segment.recipe import SegmentRecipe
from rfaconv.tasks.segment.record import SegmenterRecord
from rfaconv.tasks.training import Machine, fit_job


@dataclass(frozen=True)
class Network:
    """A segmentation model but for its convolution.

    Attributes:
        architecture: e.g. deeplabv3plus.
        encoder: e.g. resnet18.
        output_stride: None: the architecture's own.
        where: encoder, aspp or decoder; see `rfaconv.create_segmenter`.
        arguments: the architecture's, e.g. {"decoder_channels": 64}.
    """

    architecture: str = "deeplabv3plus"
    encoder: str = "resnet18"
    output_stride: int | None = None
    where: str = "encoder"
    arguments: Mapping[str, Any] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """For people."""
        stride = "" if self.output_stride is None else f", output stride {self.output_stride}"
        return f"{self.architecture} on {self.encoder}{stride}"


@dataclass(frozen=True)
class SegmentJob:
    """What to train: a network with a convolution, on data, by a recipe, from a seed."""

    network: Network
    conv: str
    data: SegmentationData
    recipe: SegmentRecipe
    seed: int
    weights: Path | None = None
    """A classifier's weights for the encoder; {conv} in it stands for the convolution's name."""

    @property
    def record(self) -> SegmenterRecord:
        """What the trained model is saved with."""
        network = self.network
        return SegmenterRecord(
            network.architecture,
            network.encoder,
            self.conv,
            self.data.classes,
            self.data.palette,
            image_size(self.data, self.recipe),
            network.output_stride,
            network.where,
            dict(network.arguments),
        )

    @property
    def weights_path(self) -> Path | None:
        """The weights for this convolution."""
        return None if self.weights is None else Path(str(self.weights).replace("{conv}", self.conv))

    def build(self) -> nn.Module:
        """The model to train: freshly initialised, or its encoder started from a classifier's weights."""
        return self.record.build(None if self.weights_path is None else str(self.weights_path))

    def facts(self) -> dict[str, Any]:
        """What tells this job from every other, as plain data."""
        network = self.network
        return {
            "task": "segment",
            "architecture": network.architecture,
            "model": network.encoder,
            "output_stride": network.output_stride,
            "where": network.where,
            "arguments": dict(network.arguments),
            "conv": self.conv,
            "data": {"name": self.data.name, "fingerprint": self.data.fingerprint},
            "recipe": self.recipe.as_dict(),
            "seed": self.seed,
            "weights": _fingerprint(self.weights_path),
        }


def fit(
    job: SegmentJob,
    run_dir: Path,
    *,
    machine: Machine | None = None,
    report: Callable[[Progress], None] | None = None,
    tensorboard: bool = False,
) -> RunResult:
    """Train `job` in `run_dir`, or go on where a killed run stopped; see `rfaconv.tasks.training.fit_job`.

    result.json also holds the IoU of each class and the share of right pixels of each validation image.
    """
    return fit_job(
        job,
        run_dir,
        module=lambda: Segmenter(job.build(), job.recipe, len(job.data.classes), job.seed),
        loaders=lambda workers: Loaders(job.data, job.recipe, job.seed, workers),
        evaluate=partial(_evaluated, job),
        machine=machine,
        report=report,
        tensorboard=tensorboard,
    )


def _evaluated(job: SegmentJob, model: nn.Module, device: torch.device) -> tuple[dict[str, float], dict[str, Any]]:
    found = evaluate(model, job.record, job.data, batch_size=job.recipe.batch_size, device=device)
    return found.metrics, {"class_iou": found.class_iou, "image_accuracy": found.image_accuracy}


def read_class_iou(run_dir: Path) -> list[float]:
    """The IoU of each class that a finished run's model reached; nan where a class is nowhere."""
    found: list[float] = read_json(run_dir / "result.json")["class_iou"]
    return found


def read_image_accuracy(run_dir: Path) -> list[float]:
    """The share of right pixels of each validation image; nan where none counts."""
    found: list[float] = read_json(run_dir / "result.json")["image_accuracy"]
    return found


def _fingerprint(path: Path | None) -> str | None:
    """16 hex digits of a weights file; the path itself where there is none, which building the model will say."""
    if path is None:
        return None
    file = path / "model.safetensors" if path.is_dir() else path
    return hashlib.sha256(file.read_bytes()).hexdigest()[:16] if file.is_file() else str(path)
