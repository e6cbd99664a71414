"""What a comparison knows when its runs are done: plain data, so that every report is made from the same facts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Metric:
    """The figure a task is judged by. `key` names it in RunResult.metrics, as a fraction of one."""

    key: str
    label: str
    higher_is_better: bool = True


@dataclass(frozen=True)
class RunResult:
    """One finished training: a convolution and a seed."""

    conv: str
    seed: int
    metrics: Mapping[str, float]
    """Final figures on the validation data, e.g. {"top1": 0.884, "top5": 0.997, "loss": 0.33}."""
    curves: Mapping[str, Sequence[float]]
    """One value an epoch, e.g. {"train_loss": [...], "val_loss": [...], "val_top1": [...]}."""
    seconds: float
    """Wall time of the training, in seconds (of all its parts, if it was interrupted)."""


@dataclass(frozen=True)
class Ratio:
    """A cost relative to the baseline, measured in alternation: median and quartiles of the paired ratios."""

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Cost:
    """What one model costs. Ratios are to the baseline's model; the baseline's own are 1."""

    params: int
    macs: int
    """Multiply-adds for one image."""
    inference_ms: float
    """Median time of a forward pass in eval mode, for the batch named in Comparison.facts."""
    inference: Ratio
    training: Ratio
    """A training step: forward, backward and optimizer."""
    memory_mb: float
    """Peak memory of a training step, in MiB, above what the model itself holds."""
    memory: Ratio


@dataclass(frozen=True)
class Picture:
    """One picture of the report, as an SVG or an <img> with its data in it."""

    title: str
    caption: str
    html: str


@dataclass(frozen=True)
class Comparison:
    """A finished comparison: the input of every report."""

    task: str
    title: str
    """e.g. "resnet8 on Fashion-MNIST subset"."""
    metric: Metric
    baseline: str
    convs: Sequence[str]
    """In the order of the table; the baseline comes first."""
    seeds: Sequence[int]
    runs: Sequence[RunResult]
    costs: Mapping[str, Cost]
    test_size: int
    """How many images the metric was computed on."""
    facts: Mapping[str, str]
    """What was done, for whoever repeats it: command, data, fingerprint, recipe, versions, machine."""
    pictures: Sequence[Picture] = field(default=())
    """The task's own pictures, e.g. the confusion matrix and example images."""

    def scores(self, conv: str) -> list[float]:
        """The metric of `conv`'s runs, in the order of `seeds`."""
        found = {run.seed: run.metrics[self.metric.key] for run in self.runs if run.conv == conv}
        return [found[seed] for seed in self.seeds]
