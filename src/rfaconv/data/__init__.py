"""Labelled images for training and evaluation: where they lie, how they are read, augmented and ordered."""

from __future__ import annotations

from rfaconv.data.classification import ClassificationData, load_classification
from rfaconv.data.sampling import EpochSampler, LabelledImages
from rfaconv.data.transforms import build_transform

__all__ = ["ClassificationData", "EpochSampler", "LabelledImages", "build_transform", "load_classification"]
