"""Images with boxes: read from the usual forms, checked, and written as Ultralytics takes them."""

from __future__ import annotations

from rfaconv.data.annotations.issues import RefusedError
from rfaconv.data.detection.convert import Converted, convert_detection
from rfaconv.data.detection.data import DetectionData, load_detection

__all__ = ["Converted", "DetectionData", "RefusedError", "convert_detection", "load_detection"]
