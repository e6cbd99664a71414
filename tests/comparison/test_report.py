"""The report as its readers meet it: a page that loads nothing and escapes everything, strict JSON, CSV, a table."""

from __future__ import annotations

import csv
import html
import io
import json
import math
import re
import sys
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from rfaconv.comparison.report import write_report
from rfaconv.comparison.results import Comparison, Metric, ModelCost, Plot, Ratio, RunResult
from rfaconv.comparison.terminal import table
from rfaconv.errors import MissingExtraError, UserError
from rfaconv.profiling import Conditions, numbers

ALL = ("conv", "rf", "rfa", "rfcbam", "rfca", "cam", "cbam", "ca")
EVIL = '<script>alert("1")</script><img src="http://evil.example/x">'
VOID = {"meta", "img", "br", "hr", "link", "input"}


class Page(HTMLParser):
    """Checks that all tags are closed in order, and keeps attributes and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str]] = []
        self.text = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def values(self, name: str) -> list[str]:
        return [value for _, found, value in self.attributes if found == name]


def finished(convs: tuple[str, ...] = ALL, seeds: int = 3, epochs: int = 4, **changes: Any) -> Comparison:
    """A comparison in which each variant is a little better and dearer than the one before."""
    runs = [
        RunResult(
            conv,
            seed,
            {"top1": 0.88 + 0.002 * i + 0.001 * seed * (1 + i % 2), "loss": 0.3},
            {"train_loss": [1.0 / (e + 1) for e in range(epochs)], "val_top1": [0.2 * e for e in range(epochs)]},
            61.0 + seed,
        )
        for i, conv in enumerate(convs)
        for seed in range(seeds)
    ]
    one = Ratio(1.0, 1.0, 1.0)
    costs = {
        conv: ModelCost(
            306_000 + i, 10_200_000 * (i + 1), *[3.21, Ratio(1 + 0.5 * i, 1.0, 1.2) if i else one] * 2, 812.0, one
        )
        for i, conv in enumerate(convs)
    }
    comparison = Comparison(
        task="classify",
        title="resnet8 on Fashion-MNIST",
        metric=Metric("top1", "top-1 accuracy"),
        baseline=convs[0],
        convs=list(convs),
        seeds=list(range(seeds)),
        runs=runs,
        costs=costs,
        test_size=2000,
        facts={"command": "rfaconv compare", "data": "/data/x"},
    )
    return replace(comparison, **changes)


def written(comparison: Comparison, folder: Path) -> tuple[Page, Any, list[dict[str, str]]]:
    """The three files, parsed; JSON by a parser that refuses NaN and Infinity."""
    path = write_report(comparison, folder)
    assert path == folder / "report.html"
    assert sorted(file.name for file in folder.iterdir()) == ["report.html", "report.json", "results.csv"]

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    record = json.loads((folder / "report.json").read_text("utf-8"), parse_constant=refuse)
    with open(folder / "results.csv", encoding="utf-8", newline="") as file:
        return Page(path.read_text("utf-8")), record, list(csv.DictReader(file))


@pytest.mark.parametrize(("convs", "seeds"), [(ALL, 3), (("conv", "rfa"), 1), (("rf",), 2), (ALL[:2], 10)])
def test_every_conv_is_everywhere(convs: tuple[str, ...], seeds: int, tmp_path: Path) -> None:
    comparison = finished(convs, seeds)
    page, record, lines = written(comparison, tmp_path)
    results = (tmp_path / "report.html").read_text("utf-8").split("<tbody>")[1].split("</tbody>")[0]
    assert re.findall(r'<th scope="row">(\w+)</th>', results) == list(convs)
    assert record["convs"] == [row["conv"] for row in record["rows"]] == list(convs)
    assert record["conclusion"][0] in page.text
    assert [(line["conv"], int(line["seed"])) for line in lines] == [(run.conv, run.seed) for run in comparison.runs]
    assert [float(line["top1"]) for line in lines] == [run.metrics["top1"] for run in comparison.runs]
    assert {line["params"] for line in lines if line["conv"] == convs[-1]} == {str(306_000 + len(convs) - 1)}


def test_the_page_loads_nothing(tmp_path: Path) -> None:
    page, _, _ = written(finished(), tmp_path)
    text = (tmp_path / "report.html").read_text("utf-8")
    assert page.tags["script"] == page.tags["link"] == page.tags["iframe"] == 0
    for name in ("src", "href", "xlink:href", "srcset", "data", "action"):
        assert all(value.startswith(("#", "data:")) for value in page.values(name)), name
    assert "@import" not in text
    assert all(target.startswith("#") for target in re.findall(r"url\(['\"]?([^)]*)", text))
    assert any("default-src 'none'" in value for value in page.values("content"))


def test_ids_are_unique_and_all_references_resolve(tmp_path: Path) -> None:
    page, _, _ = written(finished(), tmp_path)
    ids = page.values("id")
    assert page.tags["svg"] == 5
    assert [name for name, count in Counter(ids).items() if count > 1] == []
    targets = {value[1:] for value in page.values("xlink:href") + page.values("href") if value.startswith("#")}
    targets |= {target for _, _, value in page.attributes for target in re.findall(r"url\(#([^)]*)\)", value)}
    assert targets
    assert targets <= set(ids)


def test_what_users_write_is_escaped(tmp_path: Path) -> None:
    comparison = finished(
        ("conv", EVIL),
        title=EVIL,
        metric=Metric("top1", EVIL),
        facts={EVIL: EVIL},
        task_plots=[Plot(EVIL, EVIL, "<svg><g></g></svg>")],
    )
    page, record, _ = written(comparison, tmp_path)
    assert page.tags["script"] == page.tags["img"] == 0
    assert page.tags["svg"] == 6
    assert EVIL in page.text
    assert record["facts"] == {EVIL: EVIL}


def test_json_has_everything_and_no_nan(tmp_path: Path) -> None:
    comparison = finished(("conv", "rfa"))
    broken = replace(
        comparison.runs[0],
        metrics={"top1": 0.88, "loss": math.nan},
        curves={"train_loss": [1.0, math.inf], "val_top1": [0.1, 0.2]},
        diverged=2,
    )
    comparison = replace(comparison, runs=[broken, *comparison.runs[1:]])
    page, record, lines = written(comparison, tmp_path)
    assert record["runs"][0]["metrics"] == {"top1": 0.88, "loss": None}
    assert record["runs"][0]["curves"]["train_loss"] == [1.0, None]
    assert lines[0]["loss"] == "nan"
    assert [run["diverged"] for run in record["runs"]] == [2, *[None] * 5]
    assert [line["diverged"] for line in lines] == ["2", *[""] * 5]
    assert (record["rows"][0]["finished"], record["rows"][0]["diverged"]) == (2, 1)
    assert record["rows"][1]["difference"]["per_seed"] == pytest.approx([0.003, 0.004])
    assert record["rows"][0]["difference"] is None
    assert record["costs"]["rfa"]["inference"] == {"median": 1.5, "low": 1.0, "high": 1.2}
    assert list(record)[:3] == ["format", "task", "title"]
    assert record["format"] == 2
    assert "svg" in page.tags


def test_writing_again_gives_the_same_bytes(tmp_path: Path) -> None:
    names = ("report.html", "report.json", "results.csv")
    write_report(finished(), tmp_path / "a")
    write_report(finished(), tmp_path / "b")
    first = [(tmp_path / "a" / name).read_bytes() for name in names]
    assert first == [(tmp_path / "b" / name).read_bytes() for name in names]
    write_report(finished(("conv", "ca")), tmp_path / "b")
    assert first != [(tmp_path / "b" / name).read_bytes() for name in names]


def test_a_missing_cost_leaves_a_gap_and_no_error(tmp_path: Path) -> None:
    comparison = finished(("conv", "rfa", "ca"))
    costs = {conv: cost for conv, cost in comparison.costs.items() if conv != "rfa"}
    page, _, lines = written(replace(comparison, costs=costs), tmp_path)
    assert page.text.count("not measured") == 1
    assert [line["macs"] for line in lines if line["conv"] == "rfa"] == [""] * 3
    without, _, _ = written(replace(comparison, costs={}), tmp_path)
    assert without.tags["svg"] == 3
    assert "n/a" in shown(replace(comparison, costs=costs))


def diverged(comparison: Comparison, *convs: str) -> Comparison:
    """`comparison` with every run of `convs` lost in epoch 2."""
    curves = {"train_loss": [1.0, math.nan], "val_top1": [0.1, 0.1]}
    lost = [replace(run, diverged=2, curves=curves) if run.conv in convs else run for run in comparison.runs]
    return replace(comparison, runs=lost)


@pytest.mark.parametrize("convs", [("rfa",), ("conv",), ("conv", "rfa", "ca")])
def test_a_report_of_divergence(convs: tuple[str, ...], tmp_path: Path) -> None:
    comparison = diverged(finished(("conv", "rfa", "ca")), *convs)
    page, record, _ = written(comparison, tmp_path)
    assert page.text.count("0 of 3 seeds; 3 diverged") == len(convs)
    assert page.text.count("diverged at epoch 2") == 3 * len(convs)
    # The curve is shown: as an SVG its legend says it.
    assert f"{convs[0]} (diverged)" in page.text
    assert [row["interval"] is None for row in record["rows"]] == [conv in convs for conv in ("conv", "rfa", "ca")]
    assert "0 of 3 seeds; 3 diverged" in " ".join(shown(comparison, width=140).split("\n"))
    assert comparison.failed == list(convs)


def test_a_busy_machine_is_marked_everywhere(tmp_path: Path) -> None:
    comparison = finished(("conv", "rfa"))
    busy = replace(comparison.costs["rfa"], conditions=Conditions(2.0, 2.5, 1.3, 1.3))
    comparison = replace(comparison, costs={**comparison.costs, "rfa": busy})
    page, record, _ = written(comparison, tmp_path)
    assert "1.50x*" in page.text
    assert "Measured on a busy machine: other processes kept 1.3 cores busy" in page.text
    assert record["costs"]["rfa"]["busy"] == "other processes kept 1.3 cores busy"
    assert record["costs"]["rfa"]["conditions"]["load_after"] == 2.5
    assert record["costs"]["conv"]["busy"] is None
    assert "1.50x*" in shown(comparison)
    assert "* measured on a busy machine" in shown(comparison)


def test_names_that_are_no_text_break_nothing(tmp_path: Path) -> None:
    name = "caf\udce9"  # what Python makes of a Latin-1 file name
    comparison = finished(("conv", "rfa"), facts={"data": name}, title=name)
    page, record, _ = written(comparison, tmp_path)
    assert "caf\\udce9" in page.text
    assert record["facts"]["data"].startswith("caf")
    assert "caf" in shown(comparison, width=140)
    comparison._repr_html_().encode()


def test_a_notebook_shows_the_table_and_the_plots() -> None:
    comparison = finished(("conv", "rfa"))
    page = Page(comparison._repr_html_())
    assert page.tags["table"] == 1
    assert "88.10 %" in page.text
    assert page.tags["script"] == 0
    for kind in ("macs", "time", "differences", "metric", "loss"):
        assert Page(comparison.plot(kind)._repr_html_()).tags["svg"] == 1
    with pytest.raises(UserError, match="Did you mean 'loss'"):
        comparison.plot("los")
    with pytest.raises(UserError, match="nothing to draw for 'time'"):
        replace(comparison, costs={}).plot("time")
    assert comparison.conclusion[0] in str(comparison)


def test_a_frame_has_the_table_s_figures() -> None:
    pandas = pytest.importorskip("pandas")
    comparison = diverged(finished(("conv", "rfa", "ca")), "ca")
    found = comparison.to_frame()
    assert isinstance(found, pandas.DataFrame)
    assert list(found.index) == ["conv", "rfa", "ca"]
    assert found.loc["rfa", "difference"] == comparison.rows[1].difference.mean
    assert found.loc["ca", "verdict"] == "diverged"
    assert math.isnan(found.loc["ca", "top1"])


def test_without_pandas_the_command_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingExtraError, match="pip install pandas"):
        finished(("conv", "rfa")).to_frame()


@pytest.mark.parametrize("epochs", [0, 1])
def test_short_curves(epochs: int, tmp_path: Path) -> None:
    page, _, _ = written(finished(("conv", "rfa"), epochs=epochs), tmp_path)
    assert page.tags["svg"] == (5 if epochs else 3)


def test_metrics_that_only_some_runs_have(tmp_path: Path) -> None:
    comparison = finished(("conv", "rfa"))
    last = replace(comparison.runs[-1], metrics={"top1": 0.9, "top5": 0.99})
    page, _, lines = written(replace(comparison, runs=[*comparison.runs[:-1], last]), tmp_path)
    assert [line["top5"] for line in lines] == [""] * 5 + ["0.99"]
    assert "n/a" in page.text


def test_lower_is_better_is_said(tmp_path: Path) -> None:
    page, _, _ = written(finished(metric=Metric("top1", "top-1 error", higher_is_better=False)), tmp_path)
    assert "A lower top-1 error is better." in page.text
    assert "← better" in page.text
    assert "Left and down is good" in page.text
    assert "▼ worse" in page.text


def test_figures_are_written_as_promised(tmp_path: Path) -> None:
    page, _, _ = written(finished(("conv", "rfa")), tmp_path)
    cells = [html.unescape(cell) for cell in page.text.split("\n")]
    assert "88.10 %±0.25" in cells
    assert "+0.30+0.05 to +0.55" in cells
    assert {"0.31 M", "10.2 M", "20.4 M", "1.50x1.00 to 1.20", "1.00x3.21 ms", "1.00x812 MiB"} <= set(cells)


def shown(comparison: Comparison, width: int = 100) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(table(comparison))
    return console.export_text()


def test_the_terminal_s_table_fits_100_columns() -> None:
    lines = [line.rstrip() for line in shown(finished()).splitlines()]
    rows = [line for line in lines if " M " in line]
    assert [row.split()[0] for row in rows] == list(ALL)
    # No cell was folded to a second line: every row ends with its memory ratio.
    assert all(row.endswith("1.00x") for row in rows)
    assert "3 seeds" in lines[-2] + lines[-1]


def test_the_terminal_takes_names_literally() -> None:
    assert "[red]x" in shown(finished(("conv", "[red]x"), title="[bold]"), width=140)


@pytest.mark.parametrize(
    ("value", "text"),
    [(306_000, "0.31 M"), (10_200_000, "10.2 M"), (1.82e9, "1.82 G"), (999.7e6, "1.00 G"), (4210, "4.21 k"), (7, "7")],
)
def test_amounts(value: float, text: str) -> None:
    assert numbers.amount(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0031, "+0.31"),
        (-0.0031, "-0.31"),
        (0.0, "+0.00"),
        (-1e-9, "+0.00"),
        (-0.00003, "-0.0030"),
        (0.12345, "+12.35"),
    ],
)
def test_points(value: float, text: str) -> None:
    assert numbers.points(value) == text
    assert numbers.points(value, sign=False) == text[1:]


@pytest.mark.parametrize(
    ("seconds", "text"), [(7.4, "7 s"), (59.6, "1 min 00 s"), (725, "12 min 05 s"), (11_220, "3 h 07 min")]
)
def test_durations(seconds: float, text: str) -> None:
    assert numbers.duration(seconds) == text
