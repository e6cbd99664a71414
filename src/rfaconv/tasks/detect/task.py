"""Detection as a comparison sees it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image
from torch import nn

from rfaconv.data.detection import DetectionData
from rfaconv.models.yolo.rows import Where
from rfaconv.tasks.callbacks import Progress
from rfaconv.tasks.detect.evaluate import best_device, read_detections, truth
from rfaconv.tasks.detect.fit import DetectJob, fit, read_precision
from rfaconv.tasks.detect.pictures import choose_examples, example, precision_recall, size_bars
from rfaconv.tasks.detect.recipe import DetectRecipe
from rfaconv.tasks.facts import facts_of
from rfaconv.tasks.results import Metric, Plot, RunResult
from rfaconv.tasks.rundir import read_result
from rfaconv.tasks.task import JobTask
from rfaconv.tasks.training import Machine

EXAMPLES = 9


@dataclass(frozen=True)
class DetectTask(JobTask):
    """A model's name, data and a recipe; see `rfaconv.tasks.task.Task` for what each member is."""

    model: str
    data: DetectionData
    recipe: DetectRecipe
    machine: Machine = field(default_factory=Machine)
    where: Where = None
    weights: Path | None = None
    """A trained model (.pt) without our layers, from which every training goes on."""

    name = "detect"
    metric = Metric("map", "mAP", counts_images=False)

    def __post_init__(self) -> None:
        # A wrong name or place is said before anything is done.
        _ = self._job("rfa", 0).config
        best_device(self.machine.accelerator)

    @property
    def title(self) -> str:
        return f"{self.model} on {self.data.name}"

    @property
    def input_size(self) -> tuple[int, int, int]:
        size = self._job("conv", 0).image_size
        return 3, size, size

    @property
    def cost_batch(self) -> int:
        return self.recipe.batch_size

    def facts(self) -> dict[str, str]:
        boxes = [sum(len(image.boxes) for image in images) for images in (self.data.train, self.data.val)]
        more = {
            "boxes": f"{boxes[0]:,} for training, {boxes[1]:,} for validation",
            "mAP": "COCO's definition: the mean over overlaps of 0.50 to 0.95 and classes, 100 detections an image and "
            "class at most; small is below 32 x 32 pixels of the image, large above 96 x 96",
        }
        if self.weights is not None:
            more["starts from"] = str(self.weights)
        if self.where is not None:
            more["convolutions exchanged"] = str(self.where)
        return facts_of(self.data, self.recipe, more)

    def build(self, conv: str) -> nn.Module:
        return self._job(conv, 0).build()

    def fit(self, conv: str, seed: int, run_dir: Path, report: Callable[[Progress], None] | None = None) -> RunResult:
        return fit(self._job(conv, seed), run_dir, machine=self.machine, report=report)

    def pictures(self, folder: Callable[[str], Path], ranking: Sequence[str], baseline: str) -> list[Plot]:
        variant = next(conv for conv in ranking if conv != baseline)
        order = [baseline, *(conv for conv in ranking if conv != baseline)]
        return [
            Plot(
                "Precision and recall",
                "At an overlap of 0.50, the mean over the classes, with the first seed.",
                precision_recall({conv: read_precision(folder(conv)) for conv in order}),
            ),
            Plot(
                "mAP by size",
                "Of the objects in the image: small below 32 x 32 pixels, medium to 96 x 96, large above; first seed.",
                size_bars({conv: read_result(folder(conv)).metrics for conv in order}),
            ),
            Plot(
                "Example images",
                f"The truth, what {baseline} finds and what the best variant, {variant}, finds, from a confidence of "
                "0.25 (first seed): blue is right (an overlap of 0.50 or more), orange and dashed is wrong. Shown are "
                f"the images on which {variant} gains most and loses most, and some taken evenly from all.",
                self._examples(folder, baseline, variant),
            ),
        ]

    def _examples(self, folder: Callable[[str], Path], baseline: str, variant: str) -> str:
        true = truth(self.data)
        found = {conv: read_detections(folder(conv) / "detections.npz") for conv in (baseline, variant)}
        rows = []
        for index in choose_examples(true, found[baseline], found[variant], EXAMPLES):
            path = self.data.val[index].path
            with Image.open(path) as file:
                one = {conv: detections[index] for conv, detections in found.items()}
                rows.append(example(file, true[index], one, self.data.classes, path.name))
        return f'<div style="display: grid; gap: 18px">{"".join(rows)}</div>'

    def _job(self, conv: str, seed: int) -> DetectJob:
        return DetectJob(self.model, conv, self.data, self.recipe, seed, self.where, self.weights)
