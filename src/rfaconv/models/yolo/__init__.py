"""YOLO models with our layers, on Ultralytics (extra: detect; AGPL-3.0), whose source stays as it is."""

from __future__ import annotations

from rfaconv.models.yolo import library
from rfaconv.models.yolo.yolo import YOLO, model_names

__all__ = ["YOLO", "library", "model_names"]  # library first: it sets up what Ultralytics reads on import
