"""Images with masks for training and evaluation: where they lie, how they are read and augmented."""

from __future__ import annotations

from rfaconv.data.segmentation.data import SegmentationData, load_segmentation
from rfaconv.data.segmentation.masks import IGNORE, voc_palette
from rfaconv.data.segmentation.sources import MaskedSource
from rfaconv.data.segmentation.transforms import MaskedImages, build_mask_transform

__all__ = [
    "IGNORE",
    "MaskedImages",
    "MaskedSource",
    "SegmentationData",
    "build_mask_transform",
    "load_segmentation",
    "voc_palette",
]
