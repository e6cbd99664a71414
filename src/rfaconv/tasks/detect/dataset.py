"""Ultralytics' data set over annotations that were read and checked here.

Its own reads the label files again and keeps what it found in a pickle beside them: one that another program left there
would be unpickled, one of other labels of the same size taken for theirs, and two trainings would write it at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from ultralytics.data.dataset import YOLODataset
from ultralytics.utils import IterableSimpleNamespace

from rfaconv.data.detection.boxes import BoxedImage


class CheckedDataset(YOLODataset):
    """YOLODataset of just these images and boxes; no file is read or written but the images.

    Args:
        images: all of them, with their boxes.
        data: what Ultralytics made of the data.yaml.
        settings: Ultralytics', of the training or validation.
        batch_size: images at a time.
        augment: for training.
        rect: images of like shape together, each with as little margin as it needs.
        stride: of the model, in pixels.
    """

    def __init__(
        self,
        images: Sequence[BoxedImage],
        data: dict[str, Any],
        settings: IterableSimpleNamespace,
        *,
        batch_size: int,
        augment: bool,
        rect: bool,
        stride: int,
    ) -> None:
        self._images = {str(image.path.absolute()): image for image in images}
        super().__init__(
            img_path="", data=data, task="detect", imgsz=settings.imgsz, hyp=settings, batch_size=batch_size,
            augment=augment, rect=rect, stride=stride, pad=0.0 if augment else 0.5,
        )  # fmt: skip

    def get_img_files(self, img_path: Any) -> list[str]:
        """The images' paths."""
        return sorted(self._images)

    def get_labels(self) -> list[dict[str, Any]]:
        """The boxes in Ultralytics' form."""
        return [_label(path, self._images[path]) for path in self.im_files]


def _label(path: str, image: BoxedImage) -> dict[str, Any]:
    corners = np.array([box[1:] for box in image.boxes], np.float64).reshape(-1, 4)
    low, high = corners[:, :2], corners[:, 2:]
    extent = np.array([image.width, image.height])
    return {
        "im_file": path,
        "shape": (image.height, image.width),
        "cls": np.array([[box.target] for box in image.boxes], np.float32).reshape(-1, 1),
        "bboxes": np.concatenate([(low + high) / 2 / extent, (high - low) / extent], 1).astype(np.float32),
        "segments": [],
        "keypoints": None,
        "normalized": True,
        "bbox_format": "xywh",
    }
