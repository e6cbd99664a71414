"""Segmentation as a comparison sees it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from rfaconv.data.segmentation import SegmentationData
from rfaconv.errors import UserError
from rfaconv.tasks.callbacks import Progress
from rfaconv.tasks.checkpoint import load_model
from rfaconv.tasks.facts import facts_of
from rfaconv.tasks.results import Metric, Plot, RunResult
from rfaconv.tasks.segment.fit import Network, SegmentJob, fit, read_class_iou, read_image_accuracy
from rfaconv.tasks.segment.pictures import choose_examples, class_bars, example
from rfaconv.tasks.segment.predict import segment_one
from rfaconv.tasks.segment.recipe import SegmentRecipe
from rfaconv.tasks.task import JobTask
from rfaconv.tasks.training import Machine

EXAMPLES = 8


@dataclass(frozen=True)
class SegmentTask(JobTask):
    """A network, data and a recipe; see `rfaconv.tasks.task.Task` for what each member is."""

    network: Network
    data: SegmentationData
    recipe: SegmentRecipe
    machine: Machine = field(default_factory=Machine)
    tensorboard: bool = False
    weights: Path | None = None
    """Classifiers' weights for the encoders; {conv} in it stands for the convolution's name."""

    name = "segment"
    metric = Metric("miou", "mean IoU", counts_images=False)

    def __post_init__(self) -> None:
        # A wrong name, argument or file is said before anything is done.
        self.build("conv")
        if self.weights is not None and "{conv}" not in str(self.weights) and not self.weights.exists():
            raise UserError(f"There is no weights file '{self.weights}'.")

    @property
    def model(self) -> str:
        """The encoder and its architecture, for the names of folders."""
        return f"{self.network.architecture}-{self.network.encoder}"

    @property
    def title(self) -> str:
        return f"{self.network.title}, on {self.data.name}"

    @property
    def input_size(self) -> tuple[int, int, int]:
        size = -(-self._job("conv", 0).record.image_size // 32) * 32
        return 3, size, size

    @property
    def cost_batch(self) -> int:
        return self.recipe.batch_size

    def facts(self) -> dict[str, str]:
        arguments = ", ".join(f"{name} {value}" for name, value in self.network.arguments.items())
        more = {
            "network": f"{self.network.title}{', ' if arguments else ''}{arguments}; convolutions exchanged in: "
            f"{self.network.where}"
        }
        if self.weights is not None:
            more["encoder's weights"] = str(self.weights)
        return facts_of(self.data, self.recipe, more)

    def build(self, conv: str) -> nn.Module:
        return self._job(conv, 0).record.build()

    def fit(self, conv: str, seed: int, run_dir: Path, report: Callable[[Progress], None] | None = None) -> RunResult:
        return fit(self._job(conv, seed), run_dir, machine=self.machine, report=report, tensorboard=self.tensorboard)

    def pictures(self, folder: Callable[[str], Path], ranking: Sequence[str], baseline: str) -> list[Plot]:
        variant = next(conv for conv in ranking if conv != baseline)
        ious = {conv: read_class_iou(folder(conv)) for conv in (baseline, variant)}
        return [
            Plot(
                "IoU of each class",
                f"{baseline} and the best variant, {variant}, with the first seed, over the validation images.",
                class_bars(self.data.classes, ious),
            ),
            Plot(
                "Example images",
                f"Image, truth, {baseline}, the best variant, {variant}, and where the two differ (first seed): "
                f"blue where only {variant} is right, orange where only {baseline} is, grey where both are wrong in "
                f"different ways. Shown are the images on which {variant} gains most and loses most, and some taken "
                "evenly from all.",
                self._examples(folder, baseline, variant),
            ),
        ]

    def _examples(self, folder: Callable[[str], Path], baseline: str, variant: str) -> str:
        accuracy = {conv: read_image_accuracy(folder(conv)) for conv in (baseline, variant)}
        chosen = choose_examples(accuracy[baseline], accuracy[variant], EXAMPLES)
        found: dict[str, list[Any]] = {}
        for conv in (baseline, variant):
            model, record = load_model(folder(conv))
            found[conv] = [segment_one(model, record, self.data.val.image(index)) for index in chosen]
        rows = [
            example(
                self.data.val.image(index),
                self.data.val.mask(index),
                found[baseline][place],
                found[variant][place],
                self.data.palette,
                f"{self.data.val.name(index)}: {accuracy[baseline][index]:.1%} of the pixels right by {baseline}, "
                f"{accuracy[variant][index]:.1%} by {variant}",
                (baseline, variant),
            )
            for place, index in enumerate(chosen)
        ]
        return f'<div style="display: grid; gap: 18px">{"".join(rows)}</div>'

    def _job(self, conv: str, seed: int) -> SegmentJob:
        return SegmentJob(self.network, conv, self.data, self.recipe, seed, self.weights)
