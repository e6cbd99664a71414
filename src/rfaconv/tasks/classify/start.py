"""Training that goes on from a plain model's weights: each layer starts as the convolution it stands for."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset

from rfaconv.data import ClassificationData, LabelledImages, build_transform
from rfaconv.errors import UserError
from rfaconv.models import create_model
from rfaconv.models.pretrained import start_layers
from rfaconv.tasks.checkpoint import ModelRecord

BATCHES, BATCH = 8, 64
"""Of training images, for calibration."""


@dataclass(frozen=True)
class Start:
    """A file with the weights of the plain model: of `rfaconv train --conv conv`, or a state dict with timm's names."""

    path: Path
    fingerprint: str
    """16 hex digits of the file's SHA-256."""

    @classmethod
    def of(cls, path: Path) -> Start:
        """Of a file, or of the folder of a training; a UserError if there is none."""
        path = path.expanduser()
        path = path / "model.safetensors" if path.is_dir() else path
        if not path.is_file():
            raise UserError(f"There is no file '{path}' with weights to start from.")
        return cls(path, hashlib.sha256(path.read_bytes()).hexdigest()[:16])


def build_started(record: ModelRecord, start: Start, data: ClassificationData) -> nn.Module:
    """The model of `record`, computing what the plain model with the file's weights does.

    Args:
        data: its first training images calibrate the layers.

    Raises:
        UserError: the file holds another model's weights.
    """
    sizes: dict[str, Any] = {"num_classes": len(record.classes), "in_chans": record.channels}
    model = create_model(record.model, "conv", pretrained=str(start.path), **sizes)
    start_layers(model, record.conv, calibration_batches(record, data))
    return model


def calibration_batches(record: ModelRecord, data: ClassificationData) -> list[Tensor]:
    """Training images as the model's evaluation sees them."""
    return image_batches(data, record.eval_transform, record.image_size, record.channels)


def image_batches(data: ClassificationData, preset: str, size: int, channels: int) -> list[Tensor]:
    """Batches of training images, evenly from all of them: files may lie class by class."""
    transform = build_transform(preset, image_size=size, channels=channels)
    step = max(1, len(data.train) // (BATCHES * BATCH))
    indices = range(0, len(data.train), step)[: BATCHES * BATCH]
    images: Any = Subset(LabelledImages(data.train, transform), indices)
    # Every eighth image to the same batch, so that each batch has all classes.
    order = [index for offset in range(BATCHES) for index in range(offset, len(indices), BATCHES)]
    return [batch for batch, _ in DataLoader(images, BATCH, sampler=order)]
