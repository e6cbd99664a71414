"""`rfaconv compare --task detect`: all seven convolutions from one command."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rfaconv.data.detection import DetectionData
from told import WATCHED, assert_mistake

SEVEN = ["conv", "rfa", "rfcbam", "rfca", "cam", "cbam", "ca"]


@pytest.mark.parametrize("convs", [["conv", "rfa"], pytest.param(SEVEN, marks=pytest.mark.slow)], ids=["two", "seven"])
def test_convolutions_from_one_command(convs: list[str], scenes: DetectionData, tmp_path: Path) -> None:
    """In a process of its own, two trainings at a time; again it trains nothing. Seven are the default."""
    data = scenes.write(tmp_path / "data")
    command = [
        sys.executable, "-m", "rfaconv", "compare", "--task", "detect", "--data", str(data), "--seeds", "1",
        "--epochs", "1", "--set", "batch_size=8", "--set", "image_size=64", "--accelerator", "cpu",
        "--jobs", "2", "--out", "out", *([] if convs == SEVEN else ["--convs", ",".join(convs)]),
    ]  # fmt: skip
    environment = {**os.environ, "COLUMNS": "100", "NO_COLOR": "1"}
    for start in range(2):
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment, timeout=900
        )
        assert done.returncode == 0, done.stderr[-3000:]
        assert "Traceback" not in done.stderr
        made = json.loads((tmp_path / "out" / "report.json").read_text())
        assert made["convs"] == convs
        assert [picture["title"] for picture in made["plots"]] == [
            "Precision and recall", "mAP by size", "Example images",
        ]  # fmt: skip
        if start == 0:
            times = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "runs").rglob("model.pt")}
            assert len(times) == len(convs)
    assert {path: path.stat().st_mtime_ns for path in times} == times
    rows = list(csv.DictReader((tmp_path / "out" / "results.csv").open()))
    assert [row["conv"] for row in rows] == convs
    assert {"map", "map50", "map75"} <= set(rows[0])
    params = {row["conv"]: int(row["params"]) for row in rows}
    rising = [params[conv] for conv in ("conv", "cam", "rfa") if conv in params]
    assert rising == sorted(set(rising))
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("data:image/png;base64") >= 9
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "command", [["train"], ["compare", "--convs", "rfa", "--seeds", "1", "--jobs", "1"]], ids=lambda words: words[0]
)
def test_trainings_ask_for_no_network(command: list[str], scenes: DetectionData, tmp_path: Path) -> None:
    """In a process of its own, where Ultralytics is imported by the command; nor is a program (pip) started."""
    data = scenes.write(tmp_path / "data")
    quick = ["--task", "detect", "--data", str(data), "--epochs", "1", "--set", "batch_size=8", "--accelerator", "cpu"]
    environment = {
        name: value for name, value in os.environ.items() if name not in ("YOLO_OFFLINE", "YOLO_AUTOINSTALL")
    }
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, *command, *quick, "--set", "image_size=64", "--out", "out"],
        capture_output=True, text=True, check=False, env=environment, cwd=tmp_path, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip().splitlines()[-1] == "attempts [] True"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["compare", "--task", "detect", "--model", "yolov8"], "Did you mean 'yolov8"),
        (["compare", "--task", "detect", "--recipe", "smal"], "Unknown recipe 'smal'. Did you mean 'small'?"),
        (["compare", "--task", "detect", "--where", "head"], "Unknown place in a YOLO 'head'"),
        (["compare", "--task", "detect", "--data", "nowhere"], "nowhere"),
        (["train", "--task", "detect", "--arch", "unet"], "--arch is for --task segment."),
        (["train", "--task", "detect", "--devices", "2"], "Detection trains in one process here"),
        (["eval", "nowhere.pt"], "There is no model 'nowhere.pt'"),
        (["predict", "nowhere.onnx", "x.png"], "There is no"),
        (["data", "convert", "nowhere", "out"], "nowhere"),
        (["data", "convert", "coco", "out"], "COCO 2017 is not here"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_mistake_is_one_sentence_and_exit_code_2(
    arguments: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert_mistake(arguments, words, tmp_path, monkeypatch, capsys)
    assert {path.name for path in tmp_path.iterdir()} <= {"cache"}
