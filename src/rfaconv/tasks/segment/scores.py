"""Mean IoU, IoU of each class and pixel accuracy, by torchmetrics."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex

from rfaconv.data.segmentation import IGNORE


class Scores(nn.Module):
    """Counts over all pixels of all images that count; processes are added up by torchmetrics."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        # nan marks a class that is neither in the truth nor in the answers.
        self.iou = MulticlassJaccardIndex(classes, average="none", ignore_index=IGNORE, zero_division=float("nan"))
        self.accuracy = MulticlassAccuracy(classes, average="micro", ignore_index=IGNORE)

    @property
    def metrics(self) -> tuple[Metric, ...]:
        return self.iou, self.accuracy

    def update(self, found: Tensor, masks: Tensor) -> None:
        """Class numbers [B, H, W] found, and true (255: does not count)."""
        if (masks != IGNORE).any():
            self.iou.update(found, masks)
            self.accuracy.update(found, masks)

    def compute(self) -> tuple[dict[str, float], list[float]]:
        """({"miou", "pixel_accuracy"}, IoU of each class, nan for one that is nowhere); the mean is over the others."""
        ious = self.iou.compute()
        figures = {"miou": torch.nanmean(ious).item(), "pixel_accuracy": self.accuracy.compute().item()}
        return figures, ious.tolist()
