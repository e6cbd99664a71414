"""What a trained classifier sees in single image files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from rfaconv.data import build_transform
from rfaconv.data.decode import BrokenImageError, read_image
from rfaconv.tasks.checkpoint import ModelRecord


@dataclass(frozen=True)
class Prediction:
    """One image: the most likely classes with their probabilities, or why it could not be read."""

    path: Path
    classes: tuple[tuple[str, float], ...]
    error: str | None = None


def predict(
    model: nn.Module,
    record: ModelRecord,
    paths: Sequence[Path],
    *,
    top: int = 5,
    batch_size: int = 32,
    device: torch.device | str = "cpu",
) -> Iterator[Prediction]:
    """The `top` classes of each file, in order; a file that cannot be read yields its error and stops nothing."""
    transform = build_transform(record.eval_transform, image_size=record.image_size, channels=record.channels)
    model = model.to(device).eval()
    for first in range(0, len(paths), batch_size):
        images: dict[Path, torch.Tensor] = {}
        errors: dict[Path, str] = {}
        for path in paths[first : first + batch_size]:
            try:
                images[path] = transform(read_image(path, record.channels))
            except BrokenImageError as error:
                errors[path] = str(error)
        found = dict(zip(images, _top(model, record, list(images.values()), top, device), strict=True))
        for path in paths[first : first + batch_size]:
            yield Prediction(path, found.get(path, ()), errors.get(path))


def _top(
    model: nn.Module, record: ModelRecord, images: list[torch.Tensor], top: int, device: torch.device | str
) -> list[tuple[tuple[str, float], ...]]:
    if not images:
        return []
    with torch.inference_mode():
        shares, indices = model(torch.stack(images).to(device)).softmax(1).topk(min(top, len(record.classes)))
    return [
        tuple((record.classes[index], share) for share, index in zip(row, order, strict=True))
        for row, order in zip(shares.tolist(), indices.tolist(), strict=True)
    ]
