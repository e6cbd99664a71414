"""The script that makes the embedded images."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from rfaconv.data import load_classification

ROOT = Path(__file__).resolve().parents[2]
SOURCE = Path("/usr/share/datasets/fashion-mnist")


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "scripts/make_embedded_images.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.skipif(not SOURCE.is_dir(), reason="needs the Debian package dataset-fashion-mnist")
def test_makes_what_is_embedded(tmp_path):
    assert run("--out", tmp_path / "fashion").returncode == 0
    assert load_classification(tmp_path / "fashion").fingerprint == load_classification().fingerprint


def test_says_what_is_missing(tmp_path):
    result = run("--source", tmp_path / "no", "--out", tmp_path / "out")
    assert result.returncode == 2
    assert "apt-get install dataset-fashion-mnist" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()
