"""The table of a comparison for the terminal: the page's columns in at most 100 characters."""

from __future__ import annotations

from rich import box
from rich.table import Table
from rich.text import Text

from rfaconv.comparison.results import Comparison
from rfaconv.comparison.statistics import Row
from rfaconv.files import printable
from rfaconv.profiling import numbers

_STYLES = {"better": "bold green", "worse": "bold red", "baseline": "bold"}


def table(comparison: Comparison) -> Table:
    """One line a convolution; inference, training and memory are relative to the baseline.

    Raises:
        UserError: a run is missing, or has no figure.
    """
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True, padding=(0, 1), title_justify="left")
    made.title = Text(printable(comparison.title))
    made.caption = Text("\n".join([_caption(comparison), *_busy(comparison)]))
    made.caption_justify = "left"
    made.add_column("conv", no_wrap=True)
    made.add_column(Text(comparison.metric.label), justify="right")
    made.add_column("difference (95 %)", justify="right")
    made.add_column("verdict", no_wrap=True)
    for name in ("params", "MACs", "infer", "train", "memory"):
        made.add_column(name, justify="right", no_wrap=True)
    for row in comparison.rows:
        style = _STYLES.get(row.verdict, "")
        conv, verdict = Text(printable(row.conv)), Text(row.verdict, style)
        made.add_row(conv, _score(row), _difference(row), verdict, *_costs(comparison, row.conv))
    return made


def _score(row: Row) -> str:
    score = numbers.MISSING if row.interval is None else f"{100 * row.interval.mean:.2f} {row.interval}".strip()
    return f"{score}\n{row.seeds}".strip()


def _difference(row: Row) -> str:
    if row.difference is None:
        return ""
    mean = numbers.points(row.difference.mean)
    if row.difference.low is None or row.difference.high is None:
        return mean
    return f"{mean} ({numbers.points(row.difference.low)} {numbers.points(row.difference.high)})"


def _costs(comparison: Comparison, conv: str) -> list[str]:
    cost = comparison.costs.get(conv)
    if cost is None:
        return [numbers.MISSING] * 5
    mark = "*" if cost.busy else ""
    return [
        numbers.amount(cost.params),
        numbers.amount(cost.macs),
        numbers.times(cost.inference) + mark,
        numbers.times(cost.training) + mark,
        numbers.times(cost.memory),
    ]


def _busy(comparison: Comparison) -> list[str]:
    return [f"* measured on a busy machine: {next(iter(comparison.busy.values()))}"] if comparison.busy else []


def _caption(comparison: Comparison) -> str:
    seeds = len(comparison.seeds)
    text = f"{seeds} seed{'s' if seeds != 1 else ''}; differences to {comparison.baseline} are paired, in points"
    cost = comparison.costs.get(comparison.baseline)
    if cost is None:
        return text
    return (
        f"{text}; {comparison.baseline}: {numbers.milliseconds(cost.inference_ms)} inference, "
        f"{numbers.mebibytes(cost.memory_mb)} training memory"
    )
