"""What a comparison knows when its runs are done: plain data, so that every report is made from the same facts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rfaconv.profiling import ModelCost, Ratio
from rfaconv.tasks.results import Metric, Plot, RunResult

__all__ = ["Comparison", "Metric", "ModelCost", "Plot", "Ratio", "RunResult"]


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
    costs: Mapping[str, ModelCost]
    test_size: int
    """How many images the metric was computed on."""
    facts: Mapping[str, str]
    """What was done, for whoever repeats it: command, data, fingerprint, recipe, versions, machine."""
    pictures: Sequence[Plot] = field(default=())
    """The task's own pictures, e.g. the confusion matrix and example images."""

    def scores(self, conv: str) -> list[float]:
        """The metric of `conv`'s runs, in the order of `seeds`."""
        found = {run.seed: run.metrics[self.metric.key] for run in self.runs if run.conv == conv}
        return [found[seed] for seed in self.seeds]
