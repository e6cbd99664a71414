"""What a trained segmentation model gets right."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.data import DataLoader

from rfaconv.data.segmentation import IGNORE, MaskedImages, SegmentationData, build_mask_transform
from rfaconv.errors import UserError
from rfaconv.tasks.segment.infer import Manner, probabilities
from rfaconv.tasks.segment.loaders import eval_batch
from rfaconv.tasks.segment.record import SegmenterRecord
from rfaconv.tasks.segment.scores import Scores


@dataclass(frozen=True)
class Evaluation:
    """Figures over the validation images, as fractions."""

    metrics: dict[str, float]
    """miou, pixel_accuracy, and loss: the mean cross-entropy of the pixels that count."""
    class_iou: list[float]
    """nan for a class that is neither in the truth nor in the answers."""
    image_accuracy: list[float]
    """The share of right pixels of each image; nan where none counts."""


def evaluate(
    model: nn.Module,
    record: SegmenterRecord,
    data: SegmentationData,
    *,
    manner: Manner | None = None,
    batch_size: int = 16,
    workers: int = 0,
    device: torch.device | str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Run `model` over the validation images in their own size, in float32.

    Args:
        manner: scales, mirroring and windows; by default the whole image once.

    Raises:
        UserError: the model was trained on other classes.
    """
    check_fit(record, data)
    images = MaskedImages(data.val, build_mask_transform("whole", image_size=record.image_size))
    loader = DataLoader(images, eval_batch(data, batch_size), num_workers=workers)
    scores = Scores(len(record.classes)).to(device)
    loss, counted, accuracies = 0.0, 0, list[float]()
    model = model.to(device).eval()
    with torch.inference_mode():
        for batch, truth in loader:
            masks = truth.to(device)
            shares = probabilities(model, batch.to(device), manner)
            found = shares.argmax(1)
            scores.update(found, masks)
            counts = masks != IGNORE
            chances = shares.gather(1, masks.where(counts, 0)[:, None])[:, 0]
            loss -= chances.clamp(min=1e-12).log()[counts].sum().item()
            counted += int(counts.sum())
            right = ((found == masks) & counts).flatten(1).sum(1) / counts.flatten(1).sum(1)
            accuracies += right.tolist()
            if progress:
                progress(len(accuracies), len(data.val))
    figures, ious = scores.compute()
    return Evaluation({**figures, "loss": loss / max(counted, 1)}, ious, accuracies)


def check_fit(record: SegmenterRecord, data: SegmentationData) -> None:
    """Raise a UserError if `data` is not what the model was trained for."""
    if record.classes != data.classes:
        theirs = [name for name in data.classes if name not in record.classes]
        detail = f"among them '{theirs[0]}', which the model does not know" if theirs else "in another number or order"
        raise UserError(
            f"The model knows {len(record.classes)} classes and '{data.name}' has {len(data.classes)}, {detail}."
        )
