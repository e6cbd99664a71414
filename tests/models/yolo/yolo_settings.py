"""Ultralytics' settings in a folder of their own, and those of a training that is done in seconds."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("YOLO_CONFIG_DIR", tempfile.mkdtemp(prefix="yolo-config-"))

QUICK: dict[str, Any] = {
    "imgsz": 64, "batch": 8, "epochs": 1, "device": "cpu", "workers": 0, "plots": False, "verbose": False, "seed": 0,
    "nbs": 8,
}  # fmt: skip


class Trained(NamedTuple):
    """A finished training: the folder, the data.yaml and the checkpoint of its last epoch."""

    folder: Path
    data: Path
    last: Path
