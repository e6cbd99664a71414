"""What a trained classifier gets right."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchmetrics.classification import MulticlassAccuracy

from rfaconv.data import ClassificationData, LabelledImages, build_transform
from rfaconv.errors import UserError
from rfaconv.tasks.checkpoint import ModelRecord


@dataclass(frozen=True)
class Evaluation:
    """Figures over the validation images, as fractions, and the class given to each image."""

    metrics: dict[str, float]
    predictions: list[int]


def evaluate(
    model: nn.Module,
    record: ModelRecord,
    data: ClassificationData,
    *,
    batch_size: int = 128,
    workers: int = 0,
    device: torch.device | str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Run `model` over the validation images in float32: top1, top5 (of the classes there are) and cross-entropy.

    Raises:
        UserError: the model was trained on other classes or another number of channels.
    """
    check_fit(record, data)
    transform = build_transform(record.eval_transform, image_size=record.image_size, channels=record.channels)
    loader = DataLoader(LabelledImages(data.val, transform), batch_size, num_workers=workers)
    count = len(record.classes)
    top1 = MulticlassAccuracy(count, average="micro").to(device)
    top5 = MulticlassAccuracy(count, average="micro", top_k=min(5, count)).to(device)
    loss, predictions = 0.0, list[int]()
    model = model.to(device).eval()
    with torch.inference_mode():
        for images, targets in loader:
            logits: Tensor = model(images.to(device))
            targets = targets.to(device)
            top1.update(logits, targets)
            top5.update(logits, targets)
            loss += nn.functional.cross_entropy(logits, targets, reduction="sum").item()
            predictions += logits.argmax(1).tolist()
            if progress:
                progress(len(predictions), len(data.val))
    metrics = {"top1": top1.compute().item(), "top5": top5.compute().item(), "loss": loss / len(data.val)}
    return Evaluation(metrics, predictions)


def check_fit(record: ModelRecord, data: ClassificationData) -> None:
    """Raise a UserError if `data` is not what the model was trained for."""
    if record.channels != data.channels:
        raise UserError(
            f"The model takes images of {record.channels} channels and '{data.name}' has {data.channels}; "
            f"--channels {record.channels} reads them so."
        )
    if record.classes != data.classes:
        theirs = [name for name in data.classes if name not in record.classes]
        detail = f"among them '{theirs[0]}', which the model does not know" if theirs else "in another number or order"
        raise UserError(
            f"The model knows {len(record.classes)} classes and '{data.name}' has {len(data.classes)}, {detail}."
        )
