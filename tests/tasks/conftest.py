"""Small data on which a training takes a second or two."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from rfaconv.data import ClassificationData, load_classification
from rfaconv.data.sources import ArrayImages, ImageSource
from rfaconv.tasks.recipe import Recipe, load_recipe


@pytest.fixture(scope="session")
def data() -> ClassificationData:
    """The first 320 training and 130 validation images of the embedded set."""
    full = load_classification()

    def first(source: ImageSource, count: int) -> ArrayImages:
        images = torch.stack([source.image(i) for i in range(count)])
        return ArrayImages(images, [int(source.targets[i]) for i in range(count)], "part")

    return replace(full, train=first(full.train, 320), val=first(full.val, 130), fingerprint="part")


@pytest.fixture
def recipe() -> Recipe:
    return load_recipe("small").changed({"epochs": 3, "batch_size": 32})
