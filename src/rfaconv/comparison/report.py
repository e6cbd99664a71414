"""The report of a comparison: one page for people, JSON and CSV for machines, all from the same facts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from rfaconv.comparison.records import as_csv, as_json, metric_names
from rfaconv.comparison.results import Comparison, ModelCost, Plot, Ratio, RunResult
from rfaconv.comparison.statistics import Row
from rfaconv.files import printable, write_text
from rfaconv.profiling import numbers

MACS_NOTE = "MACs are multiply-adds for one image: conv and linear layers, affine norm at 4 per element, pooling."
TIME_NOTE = (
    "Times were measured in alternating pairs in one process, variant against baseline; ratios are medians over the "
    "pairs, the quartiles are under them. Memory is the peak of a training step above what the model itself holds."
)


def write_report(comparison: Comparison, out_dir: str | Path) -> Path:
    """Write report.html, report.json and results.csv to `out_dir` (made if need be); return the page's path.

    A file that is there already is replaced at once or not at all.

    Raises:
        UserError: a run is missing, or has no figure.
    """
    folder = Path(out_dir)
    write_text(folder / "results.csv", as_csv(comparison))
    write_text(folder / "report.json", as_json(comparison))
    write_text(folder / "report.html", as_html(comparison))
    return folder / "report.html"


def as_html(comparison: Comparison) -> str:
    """The page: self-contained, without scripts, and with a policy that keeps it from loading anything.

    All text is escaped but the plots' html, which must come from `rfaconv.tasks`.
    """
    return _template("report.html.j2").render(
        comparison=comparison,
        sentences=comparison.conclusion,
        rows=[_cells(comparison, row) for row in comparison.rows],
        seeds=", ".join(str(seed) for seed in comparison.seeds),
        plots=[_safe(plot) for plot in comparison.plots],
        task_plots=[_safe(plot) for plot in comparison.task_plots],
        metric_names=metric_names(comparison),
        runs=[_run_cells(comparison, run) for run in comparison.runs],
        notes=[MACS_NOTE, TIME_NOTE],
    )


def table_html(comparison: Comparison) -> str:
    """The table alone, for a notebook; it brings no style of its own."""
    rows = [_cells(comparison, row) for row in comparison.rows]
    return printable(_template("table.html.j2").render(comparison=comparison, rows=rows))


def _template(name: str) -> Template:
    environment = Environment(
        loader=PackageLoader("rfaconv", "comparison"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)


def _cells(comparison: Comparison, row: Row) -> dict[str, Any]:
    """What one line of the page's table shows: (text, small print) a cell."""
    difference = row.difference
    is_baseline = row.verdict == "baseline"
    cost = comparison.costs.get(row.conv)
    between = ""
    if difference is not None and difference.low is not None and difference.high is not None:
        between = f"{numbers.points(difference.low)} to {numbers.points(difference.high)}"
    return {
        "conv": row.conv,
        "score": (numbers.MISSING, "")
        if row.interval is None
        else (numbers.percent(row.interval.mean), str(row.interval)),
        "seeds": row.seeds,
        "difference": ("", "") if difference is None else (numbers.points(difference.mean), between),
        "verdict": row.verdict,
        "p": "" if row.adjusted_p is None else f"p = {row.adjusted_p:.2g}",
        "is_baseline": is_baseline,
        "costs": [] if cost is None else _cost_cells(cost, is_baseline),
    }


def _cost_cells(cost: ModelCost, is_baseline: bool) -> list[tuple[str, str, str]]:
    """Parameters, MACs, inference, training, memory: text, small print, exact figure."""

    def relative(ratio: Ratio, exact: str, mark: str = "") -> tuple[str, str, str]:
        return numbers.times(ratio) + mark, exact if is_baseline else numbers.quartiles(ratio), exact

    mark = "*" if cost.busy else ""
    return [
        (numbers.amount(cost.params), "", f"{cost.params:,} parameters"),
        (numbers.amount(cost.macs), "", f"{cost.macs:,} multiply-adds"),
        relative(cost.inference, numbers.milliseconds(cost.inference_ms), mark),
        relative(cost.training, numbers.milliseconds(cost.training_ms), mark),
        relative(cost.memory, numbers.mebibytes(cost.memory_mb)),
    ]


def _run_cells(comparison: Comparison, run: RunResult) -> list[str]:
    figures = [run.metrics.get(name) for name in metric_names(comparison)]
    epoch = run.diverged
    return [
        run.conv,
        str(run.seed),
        *(numbers.MISSING if figure is None else f"{figure:.4f}" for figure in figures),
        numbers.duration(run.seconds) + ("" if epoch is None else f", diverged at epoch {epoch}"),
    ]


def _safe(plot: Plot) -> dict[str, Any]:
    return {"title": plot.title, "caption": plot.caption, "html": Markup(plot.html)}
