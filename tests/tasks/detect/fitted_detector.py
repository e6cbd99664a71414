"""Ultralytics' settings in a folder of their own, and what a finished run is."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("YOLO_CONFIG_DIR", tempfile.mkdtemp(prefix="yolo-config-"))

from rfaconv.tasks.detect.fit import DetectJob
from rfaconv.tasks.results import RunResult


class Fitted(NamedTuple):
    """A finished run."""

    folder: Path
    job: DetectJob
    result: RunResult
