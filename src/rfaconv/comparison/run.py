"""A comparison from plan to report; killed at any moment, the same call goes on where it was."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from rfaconv.comparison.plan import Plan
from rfaconv.comparison.report import write_report
from rfaconv.comparison.results import Comparison, ModelCost, Plot, RunResult
from rfaconv.comparison.workers import Run, run_all
from rfaconv.errors import UserError
from rfaconv.files import write_text
from rfaconv.locks import folder_lock
from rfaconv.profiling import Conditions, Ratio, machine, model_costs
from rfaconv.tasks.callbacks import Progress
from rfaconv.tasks.rundir import claim, config_digest, read_json
from rfaconv.tasks.task import Task


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
    measure_again: bool = False,
) -> Comparison:
    """Train what is not trained yet, measure what is not measured yet, and write the report into `out`.

    Leaves plan.json, runs/CONV-seedN/ (see the task's fit), costs.json, report.html, report.json and results.csv.

    Args:
        jobs: trainings at a time.
        plugins: files with layers of the user's own.
        watcher: told how it goes.
        command: what was called, for the report.
        measure_again: measure the costs anew, e.g. because the machine was busy.

    Raises:
        UserError: `out` holds another comparison or is in use, or a run cannot go on.
        OutputError: a file cannot be written.
    """
    with folder_lock(out):
        return _compare(plan, out, jobs, plugins, watcher, command, measure_again)


def _compare(
    plan: Plan,
    out: Path,
    jobs: int,
    plugins: Sequence[str],
    watcher: Watcher | None,
    command: str,
    measure_again: bool,
) -> Comparison:
    claim(out, plan.facts())
    if measure_again:
        (out / "costs.json").unlink(missing_ok=True)
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
    return replace(comparison, report_path=write_report(comparison, out))


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
            "of": config_digest(plan.task.identity()),
            "costs": {conv: asdict(cost) for conv, cost in measured.items()},
        }
        write_text(path, json.dumps(record, indent=2) + "\n")
    found = read_json(path)
    try:
        if found["of"] != config_digest(plan.task.identity()) or set(found["costs"]) != set(plan.convs):
            raise UserError(f"'{path}' holds the costs of other models; measure them again (--measure-again).")
        costs = {conv: _cost(found["costs"][conv]) for conv in plan.convs}
        batch = f"a batch of {found['batch']} images of {' x '.join(map(str, plan.task.input_size))}"
        measured_on = {"costs measured with": f"{batch} on {found['device']}, {found['threads']} threads"}
        return costs, {**measured_on, **found["machine"]}
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"'{path}' is damaged ({error!r}); measure the costs again (--measure-again).") from error


def _cost(values: dict[str, Any]) -> ModelCost:
    ratios = {name: Ratio(**values[name]) for name in ("inference", "training", "memory")}
    return ModelCost(**{**values, **ratios, "conditions": Conditions(**values["conditions"])})


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
    return replace(comparison, task_plots=_task_plots(task, comparison, folder))


def _task_plots(task: Task, comparison: Comparison, folder: Callable[[str, int], Path]) -> Sequence[Plot]:
    """Of the first seed that finished with the baseline, for the convolutions that finished with it, the best first."""
    scores = {conv: comparison.scores(conv) for conv in comparison.convs}
    seed = next(iter(scores[comparison.baseline]), None)
    if seed is None:
        return []
    sign = -1 if comparison.metric.higher_is_better else 1
    means = {row.conv: row.interval.mean for row in comparison.rows if row.interval is not None}
    ranking = sorted((conv for conv in means if seed in scores[conv]), key=lambda conv: sign * means[conv])
    return task.pictures(lambda conv: folder(conv, seed), ranking, comparison.baseline)
