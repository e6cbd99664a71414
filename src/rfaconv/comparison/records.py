"""A comparison for machines: JSON with everything in it, and a CSV line a run."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rfaconv.comparison.results import Comparison
from rfaconv.comparison.statistics import Row

FORMAT = 1
"""Raised when a key of the JSON changes its meaning or goes."""


def as_json(comparison: Comparison, rows: Sequence[Row], sentences: Sequence[str]) -> str:
    """All facts, figures and verdicts, strictly valid: what is not finite (a diverged loss) is null.

    Pictures are named but not contained: report.html has them.
    """
    record = {
        "format": FORMAT,
        "task": comparison.task,
        "title": comparison.title,
        "conclusion": list(sentences),
        "metric": asdict(comparison.metric),
        "baseline": comparison.baseline,
        "convs": list(comparison.convs),
        "seeds": list(comparison.seeds),
        "test_size": comparison.test_size,
        "rows": [asdict(row) for row in rows],
        "costs": {conv: asdict(cost) for conv, cost in comparison.costs.items()},
        "runs": [
            {
                "conv": run.conv,
                "seed": run.seed,
                "seconds": run.seconds,
                "metrics": dict(run.metrics),
                "curves": {key: list(curve) for key, curve in run.curves.items()},
            }
            for run in comparison.runs
        ],
        "pictures": [{"title": picture.title, "caption": picture.caption} for picture in comparison.pictures],
        "facts": dict(comparison.facts),
    }
    return json.dumps(_finite(record), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def as_csv(comparison: Comparison) -> str:
    """A line a run: its conv, seed, metrics as they were measured, seconds, and its model's params and MACs.

    What a run does not have is left empty; a metric that diverged is "nan".
    """
    metrics = metric_names(comparison)
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["conv", "seed", *metrics, "seconds", "params", "macs"])
    for run in comparison.runs:
        cost = comparison.costs.get(run.conv)
        table.writerow(
            [run.conv, run.seed]
            + [run.metrics.get(name, "") for name in metrics]
            + [run.seconds]
            + ([cost.params, cost.macs] if cost else ["", ""])
        )
    return text.getvalue()


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
