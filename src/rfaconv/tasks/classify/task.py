"""Classification as a comparison sees it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn
from torchmetrics.functional.classification import multiclass_confusion_matrix

from rfaconv.data import ClassificationData
from rfaconv.errors import unknown_name
from rfaconv.models import model_names
from rfaconv.tasks.callbacks import Progress
from rfaconv.tasks.classify.fit import ClassifyJob, fit, read_predictions
from rfaconv.tasks.classify.pictures import choose_examples, confusion_matrix, examples
from rfaconv.tasks.classify.start import Start
from rfaconv.tasks.facts import facts_of
from rfaconv.tasks.recipe import Recipe
from rfaconv.tasks.results import Metric, Plot, RunResult
from rfaconv.tasks.task import JobTask
from rfaconv.tasks.training import Machine


@dataclass(frozen=True)
class ClassifyTask(JobTask):
    """A model's name, data and a recipe; see `rfaconv.tasks.task.Task` for what each member is."""

    model: str
    data: ClassificationData
    recipe: Recipe
    machine: Machine = field(default_factory=Machine)
    tensorboard: bool = False
    start: Start | None = None
    """The plain model's weights, where the trainings go on from those."""

    name = "classify"
    metric = Metric("top1", "top-1 accuracy")

    def __post_init__(self) -> None:
        if self.model not in model_names():
            unknown_name("model", self.model, model_names())

    @property
    def title(self) -> str:
        return f"{self.model} on {self.data.name}"

    @property
    def input_size(self) -> tuple[int, int, int]:
        record = self._job("conv", 0).record
        return record.channels, record.image_size, record.image_size

    @property
    def cost_batch(self) -> int:
        return 32

    def facts(self) -> dict[str, str]:
        more = {}
        if self.start is not None:
            more["started from"] = (
                f"{self.start.path} (SHA-256 {self.start.fingerprint}), each layer as its convolution"
            )
        return facts_of(self.data, self.recipe, more)

    def build(self, conv: str) -> nn.Module:
        return self._job(conv, 0).record.build()

    def fit(self, conv: str, seed: int, run_dir: Path, report: Callable[[Progress], None] | None = None) -> RunResult:
        return fit(self._job(conv, seed), run_dir, machine=self.machine, report=report, tensorboard=self.tensorboard)

    def pictures(self, folder: Callable[[str], Path], ranking: Sequence[str], baseline: str) -> list[Plot]:
        best, variant = ranking[0], next(conv for conv in ranking if conv != baseline)
        found = {conv: read_predictions(folder(conv)) for conv in (baseline, variant)}
        truth = [int(target) for target in self.data.val.targets]
        matrix = multiclass_confusion_matrix(torch.tensor(found[best]), torch.tensor(truth), len(self.data.classes))
        return [
            Plot(
                f"What {best} confuses",
                f"The convolution with the highest mean, {best}, with the first seed, over the validation images.",
                confusion_matrix(self.data.classes, matrix),
            ),
            Plot(
                "Example images",
                f"Validation images on which {baseline} and the best variant, {variant}, differ each way, and some "
                "that both get wrong (first seed); taken evenly from all such images, not by how they look.",
                self._examples(truth, found, baseline, variant),
            ),
        ]

    def _examples(self, truth: list[int], found: dict[str, list[int]], baseline: str, variant: str) -> str:
        chosen = choose_examples(truth, found[baseline], found[variant], 12)
        return examples(
            [self.data.val.image(index) for index in chosen.indices],
            [truth[index] for index in chosen.indices],
            {conv: [values[index] for index in chosen.indices] for conv, values in found.items()},
            self.data.classes,
            chosen.remarks(baseline, variant),
        )

    def _job(self, conv: str, seed: int) -> ClassifyJob:
        return ClassifyJob(self.model, conv, self.data, self.recipe, seed, self.start)
