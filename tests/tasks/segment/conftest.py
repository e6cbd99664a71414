"""Small scenes on which a training takes a second or two."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rfaconv.data.scenes import render_scenes
from rfaconv.data.segmentation import SegmentationData, load_segmentation
from rfaconv.data.segmentation.sources import SceneImages
from rfaconv.tasks.recipe import load_recipe
from rfaconv.tasks.segment import Network
from rfaconv.tasks.segment.recipe import SegmentRecipe


@pytest.fixture(scope="session")
def scenes() -> SegmentationData:
    """48 training and 18 validation scenes of 64 px."""
    return replace(
        load_segmentation(),
        train=SceneImages(render_scenes("train", 48, 64, 0), "train"),
        val=SceneImages(render_scenes("test", 18, 64, 0), "test"),
        fingerprint="part",
        image_size=(64, 64),
    )


@pytest.fixture
def recipe() -> SegmentRecipe:
    return load_recipe("small", SegmentRecipe).changed({"epochs": 3, "batch_size": 8})


@pytest.fixture
def network() -> Network:
    return Network("deeplabv3plus", "resnet10", 16, arguments={"decoder_channels": 16})
