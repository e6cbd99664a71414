"""One small training that several tests look at."""

from __future__ import annotations

from pathlib import Path

import pytest
from yolo_settings import QUICK, Trained

from rfaconv.data.detection import load_detection
from rfaconv.models.yolo import YOLO


@pytest.fixture(scope="session")
def data_yaml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 scenes for training and 12 for validation, of 64 px."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        data = load_detection(scenes=(24, 12, 64, 0))
    return data.write(tmp_path_factory.mktemp("scenes"))


@pytest.fixture(scope="session")
def trained(data_yaml: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """yolov8n with RFAConv after an epoch on the scenes."""
    folder = tmp_path_factory.mktemp("trained")
    model = YOLO("yolov8n", conv="rfa")
    model.train(data=str(data_yaml), project=str(folder), name="run", **QUICK)
    return Trained(folder / "run", data_yaml, folder / "run" / "weights" / "last.pt")
