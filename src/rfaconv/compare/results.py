"""What a comparison knows when its runs are done: plain data, so that every report is made from the same facts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rfaconv.tasks.results import Metric, Picture, RunResult

__all__ = ["Comparison", "Cost", "Metric", "Picture", "Ratio", "RunResult"]


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
