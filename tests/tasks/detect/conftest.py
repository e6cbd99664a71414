"""Small data on which a detector is trained in seconds, and such a detector."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest
from fitted_detector import Fitted

from rfaconv.data.detection import DetectionData, load_detection
from rfaconv.tasks.detect.fit import DetectJob, fit
from rfaconv.tasks.detect.recipe import DetectRecipe
from rfaconv.tasks.recipe import load_recipe


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> DetectionData:
    """16 scenes of 64 px, copies of which are validated on too: what is learnt by heart is found again."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        data = load_detection(scenes=(16, 1, 64, 0))
    folder = tmp_path_factory.mktemp("copies")
    for kind in ("images", "labels"):
        shutil.copytree(data.train[0].path.parents[2] / kind / "train", folder / kind)
    copies = (replace(image, path=folder / "images" / image.path.name) for image in data.train)
    return replace(data, val=tuple(copies))


@pytest.fixture(scope="session")
def quick() -> DetectRecipe:
    changes = {"epochs": 3, "batch_size": 8, "augment": "mosaic", "plain_epochs": 1}
    return load_recipe("small", DetectRecipe).changed(changes)


@pytest.fixture(scope="session")
def plain(scenes: DetectionData, quick: DetectRecipe, tmp_path_factory: pytest.TempPathFactory) -> Fitted:
    """The plain model, trained on eight scenes for long enough to know them by heart."""
    changes = {"epochs": 60, "augment": "none", "batch_size": 4, "warmup_epochs": 0.0}
    few = replace(scenes, train=scenes.train[:8], val=scenes.val[:8], fingerprint="eight")
    job = DetectJob("yolov8n", "conv", few, quick.changed(changes), 0)
    folder = tmp_path_factory.mktemp("runs") / "plain"
    return Fitted(folder, job, fit(job, folder))


@pytest.fixture(scope="session")
def fitted(plain: Fitted, tmp_path_factory: pytest.TempPathFactory) -> Fitted:
    """RFAConv in that model, trained on."""
    recipe = plain.job.recipe.changed({"epochs": 2, "lr": 1e-4})
    job = replace(plain.job, conv="rfa", recipe=recipe, where="backbone", weights=plain.folder / "model.pt")
    folder = tmp_path_factory.mktemp("runs") / "run"
    return Fitted(folder, job, fit(job, folder))
