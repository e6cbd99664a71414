"""How far converted models deviate from what they were: the table of docs/conversion.md.

The models of tests/conversion/networks.py, with drawn batch norm statistics, in eval mode, float32; Ultralytics' too
where it is installed. Run it with: .venv/bin/python benchmarks/conversion.py
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

import rfaconv

sys.path.append(str(Path(__file__).parents[1] / "tests" / "conversion"))


def row(name: str, case: Any) -> str:
    """A line of the table; the deviation is measured on other images than those of the calibration."""
    helpers = import_module("conversion_helpers")
    torch.manual_seed(0)
    model = helpers.realistic(case.build())
    plain = helpers.twin(model)
    summary = rfaconv.convert(model, case.conv, where=case.where, calibrate=case.images())
    images = case.images()
    found = helpers.deviation(helpers.outputs(plain, images), helpers.outputs(model, images))
    back = helpers.twin(model)
    rfaconv.simplify(back, calibrate=images)
    returned = helpers.deviation(helpers.outputs(plain, images), helpers.outputs(back, images))
    before, after = (f"{value / 1e6:.2f}" for value in summary.params)
    return f"| {name} | `{case.conv}` | {len(summary.replaced)} | {before} → {after} | {found:.1e} | {returned:.1e} |"


def main() -> None:
    """Print the table as Markdown, a line as soon as it is known."""
    networks = import_module("networks")
    cases = {**networks.FAST, **networks.SLOW, **(networks.ULTRALYTICS if networks.HAS_ULTRALYTICS else {})}
    print("| model | layer | places | params, M | deviation | after `simplify` |")
    print("| --- | --- | ---: | ---: | ---: | ---: |")
    for name in sorted(cases, key=str.lower):
        print(row(name, cases[name]), flush=True)


if __name__ == "__main__":
    main()
