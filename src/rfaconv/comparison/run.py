"""A comparison from plan to report; killed at any moment, the same call goes on where it was."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from rfaconv.comparison.plan import Plan
from rfaconv.comparison.report import write_report
from rfaconv.comparison.results import Comparison, ModelCost, RunResult
from rfaconv.comparison.workers import Run, run_all
from rfaconv.files import write_text
from rfaconv.profiling import Ratio, machine, model_costs
from rfaconv.tasks.callbacks import Progress
from rfaconv.tasks.rundir import claim, read_json


class Watcher(Protocol):
    """Who is told how a comparison goes."""

    def progress(self, run: Run, progress: Progress) -> None:
        """A training has come further."""

    def finished(self, run: Run, result: RunResult) -> None:
        """A training is done (or was, before this start)."""

    def measuring(self, what: str) -> None:
        """The costs are being measured."""


def compare(
    plan: Plan,
    out: Path,
    *,
    jobs: int = 1,
    plugins: Sequence[str] = (),
    watcher: Watcher | None = None,
    command: str = "",
) -> Comparison:
    """Train what is not trained yet, measure what is not measured yet, and write the report into `out`.

    Leaves plan.json, runs/CONV-seedN/ (see the task's fit), costs.json, report.html, report.json and results.csv.

    Raises:
        UserError: `out` holds another comparison, or a run cannot go on.
    """
    claim(out, plan.facts())
    folder = _run_folder(out)
    results: dict[Run, RunResult] = {}
    for run, result in run_all(
        plan.task,
        plan.runs,
        folder,
        jobs=jobs,
        plugins=plugins,
        report=watcher.progress if watcher else None,
    ):
        results[run] = result
        if watcher:
            watcher.finished(run, result)
    costs, measured_on = _costs(plan, out / "costs.json", watcher)
    comparison = _comparison(plan, [results[run] for run in plan.runs], costs, measured_on, command, folder)
    write_report(comparison, out)
    return comparison


def _run_folder(out: Path) -> Callable[[str, int], Path]:
    return lambda conv, seed: out / "runs" / f"{conv}-seed{seed}"


def _costs(plan: Plan, path: Path, watcher: Watcher | None) -> tuple[dict[str, ModelCost], dict[str, str]]:
    """The cost of each model, and what it was measured on; kept in `path` once measured."""
    if not path.exists():
        device = _device(plan)
        models: Mapping[str, nn.Module] = {conv: plan.task.build(conv).to(device) for conv in plan.convs}
        measured = model_costs(
            models,
            plan.task.input_size,
            batch=plan.task.cost_batch,
            device=device,
            progress=watcher.measuring if watcher else None,
        )
        record = {
            "machine": machine(),
            "device": device,
            "threads": torch.get_num_threads(),
            "batch": plan.task.cost_batch,
            "costs": {conv: asdict(cost) for conv, cost in measured.items()},
        }
        write_text(path, json.dumps(record, indent=2) + "\n")
    found = read_json(path)
    costs = {conv: _cost(values) for conv, values in found["costs"].items()}
    batch = (
        f"a batch of {found.get('batch', plan.task.cost_batch)} images of {' x '.join(map(str, plan.task.input_size))}"
    )
    measured_on = {"costs measured with": f"{batch} on {found['device']}, {found['threads']} threads"}
    return costs, {**measured_on, **found["machine"]}


def _cost(values: dict[str, Any]) -> ModelCost:
    ratios = {name: Ratio(**values[name]) for name in ("inference", "training", "memory")}
    return ModelCost(**{**values, **ratios})


def _device(plan: Plan) -> str:
    return "cuda" if torch.cuda.is_available() and plan.task.accelerator != "cpu" else "cpu"


def _comparison(
    plan: Plan,
    runs: Sequence[RunResult],
    costs: Mapping[str, ModelCost],
    measured_on: Mapping[str, str],
    command: str,
    folder: Callable[[str, int], Path],
) -> Comparison:
    task = plan.task
    facts = {
        "command": command,
        **task.facts(),
        "convolutions": ", ".join(plan.convs),
        "seeds": ", ".join(map(str, plan.seeds)),
        **measured_on,
    }
    comparison = Comparison(
        task=task.name,
        title=task.title,
        metric=task.metric,
        baseline=plan.baseline,
        convs=plan.convs,
        seeds=plan.seeds,
        runs=runs,
        costs=costs,
        test_size=task.test_size,
        facts={name: value for name, value in facts.items() if value},
    )
    pictures = task.pictures(lambda conv: folder(conv, plan.seeds[0]), _ranking(comparison), plan.baseline)
    return Comparison(**{**vars(comparison), "pictures": pictures})


def _ranking(comparison: Comparison) -> list[str]:
    """All convolutions, the best mean first."""
    sign = -1 if comparison.metric.higher_is_better else 1
    return sorted(comparison.convs, key=lambda conv: sign * sum(comparison.scores(conv)))
