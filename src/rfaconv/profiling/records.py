"""Measured costs for machines: CSV with one line a measurement, each with the machine and versions it was made with."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence

from rfaconv.profiling.layers import LayerCost
from rfaconv.profiling.models import ModelCost
from rfaconv.profiling.timing import Ratio


def models_csv(costs: Mapping[str, ModelCost], facts: Mapping[str, str]) -> str:
    """A line a model. Times are medians in ms, memory is in MiB, a ratio has its quartiles (p25, p75) beside it.

    Args:
        costs: as `model_costs` gives them.
        facts: a column each at the end of every line: `machine()`, and how it was measured (batch, input, device).
    """
    header = ["model", "params", "macs", "inference_ms", *_columns("inference"), "training_ms", *_columns("training")]
    header += ["memory_mib", "memory_ratio"]
    rows = []
    for name, cost in costs.items():
        row: list[object] = [name, cost.params, cost.macs, cost.inference_ms, *_three(cost.inference)]
        row += [cost.training_ms, *_three(cost.training), cost.memory_mb, cost.memory.median]
        rows.append(row)
    return _csv(header, rows, facts)


def layers_csv(costs: Iterable[LayerCost], facts: Mapping[str, str]) -> str:
    """A line a layer and shape, ratios to Conv2d; those of the plain formula are empty where it is no other.

    Args:
        costs: as `layer_costs` gives them.
        facts: a column each at the end of every line: `machine()`, and how it was measured (device, dtype).
    """
    header = ["conv", "batch", "in_channels", "out_channels", "size", "stride", "kernel_size"]
    header += ["conv2d_inference_ms", "conv2d_training_ms", "conv2d_memory_mib", "conv2d_block_memory_mib"]
    for kind in ("", "plain_"):
        header += [*_columns(f"{kind}inference"), *_columns(f"{kind}training")]
        header += [f"{kind}memory_ratio", f"{kind}block_memory_ratio"]
    rows = []
    for cost in costs:
        row: list[object] = [cost.conv, *cost.shape]
        row += [cost.conv2d_inference_ms, cost.conv2d_training_ms, cost.conv2d_memory_mb, cost.conv2d_block_memory_mb]
        row += [*_three(cost.inference), *_three(cost.training), cost.memory, cost.block_memory]
        row += [*_three(cost.plain_inference), *_three(cost.plain_training)]
        row += [cost.plain_memory, cost.plain_block_memory]
        rows.append(row)
    return _csv(header, rows, facts)


def _columns(name: str) -> list[str]:
    return [f"{name}_ratio", f"{name}_ratio_p25", f"{name}_ratio_p75"]


def _three(ratio: Ratio | None) -> list[float | None]:
    return [None, None, None] if ratio is None else [ratio.median, ratio.low, ratio.high]


def _csv(header: Sequence[str], rows: Iterable[Sequence[object]], facts: Mapping[str, str]) -> str:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow([*header, *facts])
    for row in rows:
        table.writerow([*(f"{cell:.6g}" if isinstance(cell, float) else cell for cell in row), *facts.values()])
    return text.getvalue()
