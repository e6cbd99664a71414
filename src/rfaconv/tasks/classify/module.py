"""The training of a classifier as Lightning sees it."""

from __future__ import annotations

from torch import Tensor, nn
from torchmetrics.classification import MulticlassAccuracy

from rfaconv.tasks.module import TrainedModule
from rfaconv.tasks.recipe import Recipe

CURVES = ("lr", "train_loss", "val_loss", "val_top1", "val_top5")


class Classifier(TrainedModule):
    """Cross-entropy and SGD, and the curves of what came of it.

    Args:
        model: from images [B, C, H, W] to logits [B, num_classes].
        recipe: how to train.
        num_classes: outputs of the model.
        seed: of what is random in the model itself (dropout).
    """

    def __init__(self, model: nn.Module, recipe: Recipe, num_classes: int, seed: int) -> None:
        super().__init__(model, recipe, seed, CURVES)
        self.loss = nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing)
        self.top1 = MulticlassAccuracy(num_classes, average="micro")
        self.top5 = MulticlassAccuracy(num_classes, average="micro", top_k=min(5, num_classes))

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        images, targets = batch
        loss: Tensor = self.loss(self.model(images), targets)
        self.train_loss.update(loss.detach(), weight=len(images))
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        images, targets = batch
        logits = self.model(images).float()
        self.val_loss.update(nn.functional.cross_entropy(logits, targets), weight=len(images))
        self.top1.update(logits, targets)
        self.top5.update(logits, targets)

    def on_validation_epoch_end(self) -> None:
        figures = {"val_top1": self.top1.compute().item(), "val_top5": self.top5.compute().item()}
        self.record_epoch(figures, (self.top1, self.top5))
