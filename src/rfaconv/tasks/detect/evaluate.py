"""What a trained detector finds in the validation images, and what that is worth by COCO's definition."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from ultralytics.models.yolo.detect import DetectionValidator
from ultralytics.utils import ops

from rfaconv.data.detection import DetectionData
from rfaconv.errors import UserError
from rfaconv.files import replacing
from rfaconv.models.yolo import YOLO, library
from rfaconv.tasks.detect.dataset import CheckedDataset
from rfaconv.tasks.detect.scores import Array, Boxes, Detections, Scores, score


@dataclass(frozen=True)
class Evaluation:
    """Scores, and the detections of each validation image, in their order."""

    scores: Scores
    found: list[Detections]


class _Collector(DetectionValidator):
    """Ultralytics' validator on checked images, keeping what it finds."""

    images: DetectionData
    kept: dict[str, Detections]

    def build_dataset(self, img_path: str, mode: str = "val", batch: int | None = None) -> CheckedDataset:
        return CheckedDataset(
            self.images.val, self.data, self.args, batch_size=batch or 1, augment=False, rect=False, stride=self.stride
        )

    def update_metrics(self, preds: Any, batch: Any) -> None:
        for index, pred in enumerate(preds):
            prepared = self._prepare_batch(index, batch)
            boxes = pred["bboxes"].clone()
            shape, ratio = prepared["ori_shape"], prepared["ratio_pad"]
            corners = ops.scale_boxes(prepared["imgsz"], boxes, shape, ratio_pad=ratio)
            self.kept[str(Path(batch["im_file"][index]))] = Detections(
                corners.float().cpu().numpy(), pred["conf"].float().cpu().numpy(), pred["cls"].long().cpu().numpy()
            )
        super().update_metrics(preds, batch)


def evaluate(
    model: Path, data: DetectionData, *, image_size: int = 640, batch_size: int = 16, device: str = "cpu"
) -> Evaluation:
    """Run a detector over the validation images.

    Non-maximum suppression at an overlap of 0.7, 300 detections an image at most, from a confidence of 0.001.

    Args:
        model: a checkpoint (.pt), or an exported model (.onnx).
        data: the images and their true boxes.
        image_size: side in pixels the images are brought to.
        batch_size: images at a time.
        device: "cpu" or a CUDA device.

    Raises:
        UserError: the model was trained on other classes.
    """
    with TemporaryDirectory(prefix="rfaconv-") as folder, library.quietly():
        settings = {
            "data": str(data.write(Path(folder))), "imgsz": image_size, "batch": batch_size, "device": device,
            "conf": 0.001, "iou": 0.7, "max_det": 300, "rect": False, "plots": False, "workers": 0, "verbose": False,
            "task": "detect", "mode": "val", "model": str(model), "project": folder, "name": "val",
        }  # fmt: skip
        check_classes(YOLO(model, task="detect"), data)
        collector = _Collector(args=settings, save_dir=Path(folder))
        collector.images, collector.kept = data, {}
        collector(model=str(model))
    found = [collector.kept[str(image.path.absolute())] for image in data.val]
    return Evaluation(score(truth(data), found, len(data.classes)), found)


def trained_size(model: Path) -> int:
    """Side in pixels of the images a model was trained on, or exported for; 640 where it does not say."""
    found = YOLO(model, task="detect")
    if isinstance(found.model, torch.nn.Module):
        return int(found.overrides.get("imgsz", 640))
    import onnx

    shape = onnx.load(str(model), load_external_data=False).graph.input[0].type.tensor_type.shape
    return int(shape.dim[-1].dim_value or 640)


def check_classes(model: YOLO, data: DetectionData) -> None:
    """Raise a UserError if the model was trained on other classes."""
    names = tuple(str(name) for name in model.names.values())
    if names != data.classes:
        raise UserError(
            f"The model knows {len(names)} classes ({', '.join(names[:3])}, ...) and '{data.name}' has "
            f"{len(data.classes)} ({', '.join(data.classes[:3])}, ...)."
        )


def truth(data: DetectionData) -> list[Boxes]:
    """The true boxes of the validation images."""
    return [
        Boxes(
            np.array([box[1:] for box in image.boxes], float).reshape(-1, 4),
            np.array([box.target for box in image.boxes], np.int64),
        )
        for image in data.val
    ]


def save_detections(path: Path, found: Sequence[Detections]) -> None:
    """Write what was found, for pictures and other scores."""
    counts = np.array([len(one.confidences) for one in found], np.int64)
    with replacing(path) as file:
        np.savez_compressed(
            file,
            counts=counts,
            corners=np.concatenate([one.corners for one in found]).astype(np.float32),
            confidences=np.concatenate([one.confidences for one in found]).astype(np.float32),
            classes=np.concatenate([one.classes for one in found]).astype(np.int32),
        )


def read_detections(path: Path) -> list[Detections]:
    """What `save_detections` wrote.

    Raises:
        UserError: no such file, or not one of these.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            ends = np.cumsum(file["counts"])[:-1]
            parts: list[list[Array]] = [np.split(file[name], ends) for name in ("corners", "confidences", "classes")]
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"'{path}' cannot be read ({error}); delete the run's folder and run again.") from error
    return [Detections(*one) for one in zip(*parts, strict=True)]


def best_device(accelerator: str) -> str:
    """Ultralytics' name for "auto", "cpu" or "gpu".

    Raises:
        UserError: a GPU is asked for and there is none.
    """
    if accelerator == "gpu" and not torch.cuda.is_available():
        raise UserError("There is no GPU that torch can use; leave --accelerator gpu out.")
    return "0" if torch.cuda.is_available() and accelerator != "cpu" else "cpu"
