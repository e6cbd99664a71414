"""Cityscapes's 19 classes, and how the ids of its labelIds files become them."""

from __future__ import annotations

CITYSCAPES_CLASSES = (
    "road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation", "terrain",
    "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle",
)  # fmt: skip
_EVALUATED = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
TRAIN_IDS = tuple(_EVALUATED.index(number) if number in _EVALUATED else 255 for number in range(256))
"""The class of each id; 255 for those that are not evaluated."""
