"""A finished comparison: plain data, what follows from it (computed once), and the forms it can be shown in."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from rfaconv.comparison.conclusion import conclusion
from rfaconv.comparison.statistics import Row, summarise
from rfaconv.errors import UserError, unknown_name
from rfaconv.profiling import ModelCost, Ratio
from rfaconv.tasks.results import Metric, Plot, RunResult

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Comparison", "Metric", "ModelCost", "Plot", "Ratio", "RunResult"]


@dataclass(frozen=True)
class Comparison:
    """A finished comparison: the input of every report. In a notebook it shows itself as its table."""

    task: str
    title: str
    """e.g. "resnet10s on Fashion-MNIST subset"."""
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
    task_plots: Sequence[Plot] = field(default=())
    """The task's own plots, e.g. the confusion matrix and example images."""
    report_path: Path | None = None
    """The page, once it is written."""

    @cached_property
    def rows(self) -> list[Row]:
        """The table: one row per convolution with its interval, paired difference and verdict.

        Raises:
            UserError: a run is missing, or has no figure although its training did not diverge.
        """
        scores = {conv: self.scores(conv) for conv in self.convs}
        return summarise(scores, self.baseline, len(self.seeds), self.metric.higher_is_better)

    @cached_property
    def conclusion(self) -> list[str]:
        """What the figures say, in sentences, the most important first."""
        return conclusion(self)

    @cached_property
    def plots(self) -> list[Plot]:
        """The comparison's own plots as SVG, those that the data allow."""
        from rfaconv.comparison.plots import plots

        return plots(self)

    @property
    def failed(self) -> list[str]:
        """The convolutions of which every run diverged: the comparison has no figure for them."""
        return [row.conv for row in self.rows if row.interval is None]

    @cached_property
    def busy(self) -> dict[str, str]:
        """Why the costs of a convolution are not to be trusted, for those measured on a busy machine."""
        return {conv: cost.busy for conv, cost in self.costs.items() if cost.busy}

    def scores(self, conv: str) -> dict[int, float]:
        """The metric of `conv`'s runs by seed, without those that diverged.

        Raises:
            UserError: a run is missing, or has no figure although its training did not diverge.
        """
        runs = {run.seed: run for run in self.runs if run.conv == conv}
        found = {}
        for seed in self.seeds:
            if seed not in runs:
                raise UserError(
                    f"The runs of '{conv}' are not complete (no {seed}): run the comparison again to finish them."
                )
            if runs[seed].diverged is None:
                found[seed] = self._score(runs[seed])
        return found

    def to_frame(self) -> pd.DataFrame:
        """The table as a pandas DataFrame, a row a convolution (the index), fractions of one and ratios as numbers.

        Raises:
            MissingExtraError: pandas is not installed; the message names the command.
        """
        from rfaconv.comparison.records import frame

        return frame(self)

    def plot(self, kind: str = "differences") -> Plot:
        """One plot, which a notebook shows.

        Args:
            kind: "macs" or "time" (the metric against it), "differences", "metric" or "loss" (the training curves).

        Raises:
            UserError: an unknown kind, or the data for it are missing (no costs, say).
        """
        from rfaconv.comparison.plots import KINDS

        draw = KINDS.get(kind) or unknown_name("kind of plot", kind, KINDS)
        svg = draw(self)
        if not svg:
            raise UserError(f"There is nothing to draw for '{kind}': its figures are missing in this comparison.")
        return Plot(kind, "", svg)

    def _repr_html_(self) -> str:
        from rfaconv.comparison.report import table_html

        return table_html(self)

    def __str__(self) -> str:
        """The table and the sentences as plain text."""
        from rich.console import Console

        from rfaconv.comparison.terminal import table

        console = Console(width=100, file=io.StringIO(), record=True)
        console.print(table(self))
        return console.export_text() + "\n".join(f"- {sentence}" for sentence in self.conclusion)

    def _score(self, run: RunResult) -> float:
        score = run.metrics.get(self.metric.key, math.nan)
        if not math.isfinite(score):
            raise UserError(
                f"The run of '{run.conv}' with seed {run.seed} has no figure ({self.metric.key} = {score}) although "
                "its training loss is finite: is there anything to be counted in the validation data?"
            )
        return score
