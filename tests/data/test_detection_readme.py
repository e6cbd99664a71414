"""The six lines of docs/detection.md from a Roboflow export to a comparison."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from forms import image, write_coco

PAGE = Path(__file__).parents[2] / "docs/detection.md"
QUICK = ["--epochs", "1", "--set", "image_size=64", "--set", "batch_size=2", "--accelerator", "cpu"]
MORE = {"train": QUICK, "compare": [*QUICK, "--seeds", "1", "--jobs", "1"], "data": [], "eval": [], "predict": []}


def test_six_lines(tmp_path: Path) -> None:
    lines = re.findall(r"^    (.+)$", PAGE.read_text("utf-8").split("\n## ")[0], re.MULTILINE)
    assert lines[0].startswith("pip install '.[detect]'")
    assert len(lines) == 6
    write_coco(tmp_path / "Downloads" / "my-project.v3i.coco")
    image(tmp_path / "photo.jpg")
    environment = {**os.environ, "HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache"), "COLUMNS": "110"}
    environment["YOLO_CONFIG_DIR"] = str(tmp_path)
    said = {}
    for line in lines[1:]:
        program, *words = shlex.split(line.replace("~", str(tmp_path)), comments=True)
        assert program == "rfaconv"
        done = subprocess.run(
            [sys.executable, "-m", "rfaconv", *words, *MORE[words[0]]],
            capture_output=True, text=True, check=False, cwd=tmp_path, env=environment, timeout=600,
        )  # fmt: skip
        assert done.returncode == 0, (line, done.stderr[-2000:])
        said[words[0]] = done.stdout
    assert "coco: train 4 images with 6 boxes, val 2 images with 2 boxes; 2 classes" in said["data"]
    assert "Model: my-run/model.pt" in said["train"]
    assert "map50" in said["eval"]
    assert "photo.jpg: " in said["predict"]
    assert "Report: runs/compare-detect-" in said["compare"]
