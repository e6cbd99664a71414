"""`make demo`, as the Makefile has it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

MAKEFILE = (Path(__file__).parents[2] / "Makefile").read_text("utf-8")
RECIPE = re.search(r"^demo:.*\n((?:\t.*\n)+)", MAKEFILE, re.MULTILINE)
COMMANDS = [line.removeprefix("\t$(BIN)/rfaconv ").split() for line in RECIPE[1].splitlines()] if RECIPE else []


def run(arguments: list[str], folder: Path) -> str:
    command = [sys.executable, "-m", "rfaconv", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


def report(said: str, folder: Path) -> Any:
    page = folder / said.rpartition("Report: ")[2].strip()
    assert page.is_file()
    return json.loads(page.with_suffix(".json").read_text())


@pytest.mark.slow
def test_the_demo_trains_all_seven_and_reports(tmp_path: Path) -> None:
    found = report(run(COMMANDS[0], tmp_path), tmp_path)
    assert found["convs"] == ["conv", "rfa", "rfcbam", "rfca", "cam", "cbam", "ca"]
    assert len(found["runs"]) == 21
    assert min(one["metrics"]["top1"] for one in found["runs"]) > 0.8


@pytest.mark.slow
def test_and_converts_a_trained_model_without_changing_a_class(tmp_path: Path) -> None:
    said = [run(command, tmp_path) for command in COMMANDS[1:]]
    assert "2,000 of 2,000 images get the same class." in " ".join(said[1].split())
    found = report(said[-1], tmp_path)
    assert found["convs"] == ["conv", "rfa"]
    assert min(one["metrics"]["top1"] for one in found["runs"]) > 0.85
