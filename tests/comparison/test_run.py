"""A comparison's folder: costs that are kept, measured again or refused, and one command at a time."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from rfaconv import UserError, create_conv
from rfaconv.comparison.plan import Plan
from rfaconv.comparison.results import Comparison
from rfaconv.comparison.run import compare
from rfaconv.locks import folder_lock
from rfaconv.tasks.results import Metric, Plot, RunResult


@dataclass(frozen=True)
class Toy:
    """A task that trains nothing."""

    size: int = 8
    lost: tuple[str, ...] = ()
    name: str = "toy"
    title: str = "toy"
    metric: Metric = Metric("top1", "top-1 accuracy")  # noqa: RUF009 - frozen
    test_size: int = 100
    accelerator: str = "cpu"
    cost_batch: int = 2

    @property
    def input_size(self) -> tuple[int, int, int]:
        return 3, self.size, self.size

    def identity(self) -> dict[str, Any]:
        return {"size": self.size}

    def facts(self) -> dict[str, str]:
        return {}

    def build(self, conv: str) -> nn.Module:
        return create_conv(conv, 3, 4, 3)

    def fit(self, conv: str, seed: int, run_dir: Path, report: Any = None) -> RunResult:
        return RunResult(conv, seed, {"top1": 0.5 + 0.01 * seed}, {}, 1.0, 1 if conv in self.lost else None)

    def pictures(self, folder: Callable[[str], Path], ranking: Sequence[str], baseline: str) -> list[Plot]:
        assert not set(self.lost) & set(ranking)
        return [Plot(", ".join(ranking), folder(baseline).name, "<svg></svg>")]


def run(out: Path, task: Toy = Toy(), **more: Any) -> Comparison:
    return compare(Plan(task, ("conv", "rfa"), (0, 1)), out, **more)


def test_costs_are_kept_until_they_are_to_be_measured_again(tmp_path: Path) -> None:
    first = run(tmp_path)
    assert first.report_path == tmp_path / "report.html"
    kept = (tmp_path / "costs.json").read_bytes()
    assert run(tmp_path).costs == first.costs
    assert (tmp_path / "costs.json").read_bytes() == kept
    assert run(tmp_path, measure_again=True).costs != first.costs
    assert (tmp_path / "costs.json").read_bytes() != kept


@pytest.mark.parametrize("text", ["{}", "[]", '{"of": 1, "costs": {}}', "no JSON"])
def test_costs_that_are_damaged_are_a_sentence(text: str, tmp_path: Path) -> None:
    run(tmp_path)
    (tmp_path / "costs.json").write_text(text)
    with pytest.raises(UserError, match=r"costs\.json"):
        run(tmp_path)
    assert run(tmp_path, measure_again=True).costs


def test_the_old_costs_are_not_returned_as_another_plan_s(tmp_path: Path) -> None:
    run(tmp_path)
    (tmp_path / "plan.json").unlink()
    with pytest.raises(UserError, match="costs of other models"):
        run(tmp_path, Toy(size=12))


def test_one_comparison_a_folder(tmp_path: Path) -> None:
    run(tmp_path)
    written = (tmp_path / "report.json").read_bytes()
    with folder_lock(tmp_path), pytest.raises(UserError, match="is in use by process"):
        run(tmp_path)
    assert (tmp_path / "report.json").read_bytes() == written


def test_what_diverged_is_no_part_of_the_task_s_plots(tmp_path: Path) -> None:
    comparison = run(tmp_path, Toy(lost=("rfa",)))
    assert comparison.failed == ["rfa"]
    assert comparison.task_plots[0].title == "conv"
    assert json.loads((tmp_path / "report.json").read_text())["rows"][1]["interval"] is None
    assert run(tmp_path, Toy(lost=("conv", "rfa"))).task_plots == []
