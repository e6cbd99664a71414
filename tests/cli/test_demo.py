"""`make demo`, as it is typed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_the_demo_trains_all_seven_and_reports(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "rfaconv", "compare"], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    report = tmp_path / done.stdout.rpartition("Report: ")[2].strip()
    assert report.is_file()
    found = json.loads(report.with_suffix(".json").read_text())
    assert found["convs"] == ["conv", "rfa", "rfcbam", "rfca", "cam", "cbam", "ca"]
    assert len(found["runs"]) == 21
    assert min(run["metrics"]["top1"] for run in found["runs"]) > 0.8
