"""Measured costs for people: the same tables for the terminal (rich) and for the documentation (Markdown)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from rfaconv.errors import require
from rfaconv.profiling.layers import LayerCost, geometric_means
from rfaconv.profiling.models import ModelCost
from rfaconv.profiling.numbers import amount, mebibytes, milliseconds, three_digits
from rfaconv.profiling.timing import Ratio

if TYPE_CHECKING:
    from rich.table import Table

LAYERS_NOTE = (
    "Times and peak training memory as multiples of nn.Conv2d's at the same shape: medians, with the quartiles in "
    "brackets, of pairs measured in alternation in one process. Training is forward and backward. Plain is the same "
    "layer as the paper's formula step by step; no entry: it is computed the same way. Block memory is the peak of "
    "training the layer, BatchNorm2d and ReLU in a row, as in a network, as a multiple of Conv2d's, BatchNorm2d's and "
    "ReLU's. Shapes are the input's BxCxHxW, 'to' the output's channels if they are others, s2 with stride 2, k5 with "
    "a 5x5 kernel."
)
MODELS_NOTE = (
    "Times as multiples of the baseline's: medians, with the quartiles in brackets, of pairs measured in alternation "
    "in one process. Training is a step: forward, backward, SGD. Memory is the peak of a step above what model, "
    "optimizer and batch hold. MACs are multiply-adds for one image."
)


class Cells(NamedTuple):
    """A table as text: columns with their headings, and groups of rows with a line between the groups.

    The first `names` columns are names, the others figures.
    """

    header: Sequence[str]
    groups: Sequence[Sequence[Sequence[str]]]
    names: int


def model_cells(costs: Mapping[str, ModelCost]) -> Cells:
    """A row a model, in the order of `costs`."""
    header = ("model", "params", "MACs", "infer ms", "infer", "train ms", "train", "memory MiB", "memory")
    rows = []
    for name, cost in costs.items():
        row = [name, amount(cost.params), amount(cost.macs), three_digits(cost.inference_ms), _ratio(cost.inference)]
        row += [
            three_digits(cost.training_ms),
            _ratio(cost.training),
            three_digits(cost.memory_mb),
            _ratio(cost.memory),
        ]
        rows.append(row)
    return Cells(header, [rows], 1)


def layer_cells(costs: Sequence[LayerCost]) -> Cells:
    """A group a shape with Conv2d's own times first; the geometric means over the shapes are the last group."""
    kinds = ("infer", "train", "memory", "block memory")
    header = ("shape", "layer", *kinds, *(f"plain {kind}" for kind in kinds))
    groups: list[list[list[str]]] = []
    for shape in dict.fromkeys(cost.shape for cost in costs):
        here = [cost for cost in costs if cost.shape == shape]
        base = [milliseconds(here[0].conv2d_inference_ms), milliseconds(here[0].conv2d_training_ms)]
        base += [mebibytes(here[0].conv2d_memory_mb), mebibytes(here[0].conv2d_block_memory_mb)]
        groups.append([[str(shape), "Conv2d", *base, *[""] * len(kinds)]])
        for cost in here:
            row = [_ratio(cost.inference), _ratio(cost.training), _ratio(cost.memory), _ratio(cost.block_memory)]
            row += [_ratio(cost.plain_inference), _ratio(cost.plain_training)]
            row += [_ratio(cost.plain_memory), _ratio(cost.plain_block_memory)]
            groups[-1].append(["", cost.conv, *row])
    means = geometric_means(costs)
    names = ["geometric mean", *[""] * len(means)]
    groups.append([[name, conv, *map(_ratio, mean)] for name, (conv, mean) in zip(names, means.items(), strict=False)])
    return Cells(header, groups, 2)


def model_table(costs: Mapping[str, ModelCost]) -> Table:
    """What `model_costs` found, for the terminal; needs rich."""
    return _rich(model_cells(costs), MODELS_NOTE)


def layer_table(costs: Sequence[LayerCost]) -> Table:
    """What `layer_costs` found, for the terminal; needs rich."""
    # Ten columns: without a gap more than the least they fit into the 110 characters of the command line's pages.
    return _rich(layer_cells(costs), LAYERS_NOTE, gap=0)


def models_markdown(title: str, costs: Mapping[str, ModelCost], facts: Mapping[str, str]) -> str:
    """A section of docs/benchmarks.md: title, table, what it shows, and the facts, e.g. `machine()` and the batch."""
    return _markdown(title, model_cells(costs), MODELS_NOTE, facts)


def layers_markdown(title: str, costs: Sequence[LayerCost], facts: Mapping[str, str]) -> str:
    """A section of docs/benchmarks.md: title, table, what it shows, and the facts, e.g. `machine()` and the dtype."""
    return _markdown(title, layer_cells(costs), LAYERS_NOTE, facts)


def _rich(cells: Cells, note: str, gap: int = 1) -> Table:
    box, text = require("rich.box", "classify"), require("rich.text", "classify")
    table: Table = require("rich.table", "classify").Table(
        box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True, padding=(0, gap), caption_justify="left"
    )
    table.caption = text.Text(note)
    for index, heading in enumerate(cells.header):
        is_name = index < cells.names
        # A word a line leaves the room to the figures; where there is none, they are broken, never cut.
        heading = heading if is_name else heading.replace(" ", "\n")
        table.add_column(heading, justify="left" if is_name else "right", no_wrap=is_name, overflow="fold")
    for group in cells.groups:
        for row in group:
            table.add_row(*map(text.Text, row))
        table.add_section()
    return table


def _markdown(title: str, cells: Cells, note: str, facts: Mapping[str, str]) -> str:
    lines = [f"## {title}", "", _line(cells.header)]
    lines.append(_line(["---"] * cells.names + ["---:"] * (len(cells.header) - cells.names)))
    lines += [_line(row) for group in cells.groups for row in group]
    lines += ["", note, "", "Measured with: " + "; ".join(f"{name} {value}" for name, value in facts.items()) + "."]
    return "\n".join(lines) + "\n"


def _line(row: Sequence[str]) -> str:
    escaped = [cell.replace("|", "\\|") for cell in row]
    return f"| {' | '.join(escaped)} |"


def _ratio(value: Ratio | float | None) -> str:
    """ "1.05x (1.03-1.08)"; without a spread "1.05x"; nothing for None."""
    if value is None:
        return ""
    if not isinstance(value, Ratio):
        return f"{three_digits(value)}x"
    spread = "" if value.low == value.high else f" ({three_digits(value.low)}-{three_digits(value.high)})"
    return f"{three_digits(value.median)}x{spread}"
