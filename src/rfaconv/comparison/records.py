"""A comparison for machines: JSON with everything in it, and a CSV line a run."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rfaconv.comparison.results import Comparison
from rfaconv.errors import MissingExtraError

if TYPE_CHECKING:
    import pandas as pd

FORMAT = 2
"""Raised when a key of the JSON changes its meaning or goes; docs/statistics.md lists the keys."""


def as_json(comparison: Comparison) -> str:
    """All facts, figures and verdicts, strictly valid: what is not finite (a diverged loss) is null.

    Plots are named but not contained: report.html has them.
    """
    record = {
        "format": FORMAT,
        "task": comparison.task,
        "title": comparison.title,
        "conclusion": comparison.conclusion,
        "metric": asdict(comparison.metric),
        "baseline": comparison.baseline,
        "convs": list(comparison.convs),
        "seeds": list(comparison.seeds),
        "test_size": comparison.test_size,
        "rows": [asdict(row) for row in comparison.rows],
        "costs": {conv: {**asdict(cost), "busy": cost.busy or None} for conv, cost in comparison.costs.items()},
        "runs": [
            {
                "conv": run.conv,
                "seed": run.seed,
                "diverged": run.diverged,
                "seconds": run.seconds,
                "metrics": dict(run.metrics),
                "curves": {key: list(curve) for key, curve in run.curves.items()},
            }
            for run in comparison.runs
        ],
        "plots": [{"title": plot.title, "caption": plot.caption} for plot in comparison.task_plots],
        "facts": dict(comparison.facts),
    }
    return json.dumps(_finite(record), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def as_csv(comparison: Comparison) -> str:
    """A line a run: its conv, seed, metrics as they were measured, the epoch it diverged in, seconds, params and MACs.

    What a run does not have is left empty.
    """
    metrics = metric_names(comparison)
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["conv", "seed", *metrics, "diverged", "seconds", "params", "macs"])
    for run in comparison.runs:
        cost = comparison.costs.get(run.conv)
        table.writerow(
            [run.conv, run.seed]
            + [run.metrics.get(name, "") for name in metrics]
            + [run.diverged or "", run.seconds]
            + ([cost.params, cost.macs] if cost else ["", ""])
        )
    return text.getvalue()


def frame(comparison: Comparison) -> pd.DataFrame:
    """The table as a pandas DataFrame; see `Comparison.to_frame`."""
    try:
        import pandas as pd
    except ModuleNotFoundError as error:
        raise MissingExtraError("to_frame needs 'pandas', which is not installed: pip install pandas") from error
    lines = []
    for row in comparison.rows:
        mean, difference, cost = row.interval, row.difference, comparison.costs.get(row.conv)
        lines.append(
            {
                "conv": row.conv,
                comparison.metric.key: mean and mean.mean,
                "low": mean and mean.low,
                "high": mean and mean.high,
                "difference": difference and difference.mean,
                "difference_low": difference and difference.low,
                "difference_high": difference and difference.high,
                "p": row.adjusted_p,
                "verdict": row.verdict,
                "finished": row.finished,
                "diverged": row.diverged,
                "params": cost and cost.params,
                "macs": cost and cost.macs,
                "inference": cost and cost.inference.median,
                "training": cost and cost.training.median,
                "memory": cost and cost.memory.median,
                "busy": cost and bool(cost.busy),
            }
        )
    return pd.DataFrame(lines).set_index("conv")


def metric_names(comparison: Comparison) -> list[str]:
    """The keys of all runs' metrics, the comparison's own first, the others in the order they appear."""
    return list(dict.fromkeys([comparison.metric.key, *(name for run in comparison.runs for name in run.metrics)]))


def _finite(value: Any) -> Any:
    """`value` with None for every float that JSON has no word for."""
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
