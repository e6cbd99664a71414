"""The training of a classifier as Lightning sees it."""

from __future__ import annotations

import time
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from rfaconv.data.sampling import derive_seed
from rfaconv.tasks.classify.schedule import learning_rate_factor
from rfaconv.tasks.recipe import Recipe

CURVES = ("lr", "train_loss", "val_loss", "val_top1", "val_top5")


class Classifier(pl.LightningModule):
    """Cross-entropy and SGD, and the curves of what came of it.

    Args:
        model: from images [B, C, H, W] to logits [B, num_classes].
        recipe: how to train.
        num_classes: outputs of the model.
        seed: of what is random in the model itself (dropout).

    Attributes:
        curves: one value an epoch; part of the checkpoint, so that a resumed run has them all.
        seconds: wall time of the training so far, over all its parts.
    """

    def __init__(self, model: nn.Module, recipe: Recipe, num_classes: int, seed: int) -> None:
        super().__init__()
        self.model, self.recipe, self.seed = model, recipe, seed
        self.loss = nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing)
        self.train_loss, self.val_loss = MeanMetric(), MeanMetric()
        self.top1 = MulticlassAccuracy(num_classes, average="micro")
        self.top5 = MulticlassAccuracy(num_classes, average="micro", top_k=min(5, num_classes))
        self.curves: dict[str, list[float]] = {name: [] for name in CURVES}
        self.seconds = 0.0
        self._started = 0.0

    def configure_optimizers(self) -> Any:
        recipe = self.recipe
        optimizer: Optimizer = SGD(
            self.model.parameters(),
            lr=recipe.lr,
            momentum=recipe.momentum,
            nesterov=recipe.nesterov,
            weight_decay=recipe.weight_decay,
        )
        steps = int(self.trainer.estimated_stepping_batches) // recipe.epochs
        scheduler = LambdaLR(optimizer, lambda step: learning_rate_factor(recipe, step, steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_fit_start(self) -> None:
        self._started = time.perf_counter()

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        # What is random in the model depends on the place in the run alone: a resumed run draws what an undisturbed
        # one draws, whatever the loaders and loops drew in between.
        torch.manual_seed(derive_seed("model", self.seed, self.current_epoch, batch_idx, self.global_rank))

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
        # Validation is the last thing in a training epoch, so the training loss is whole here.
        figures = {
            "lr": self.optimizers().param_groups[0]["lr"],
            "train_loss": self.train_loss.compute().item(),
            "val_loss": self.val_loss.compute().item(),
            "val_top1": self.top1.compute().item(),
            "val_top5": self.top5.compute().item(),
        }
        for metric in (self.train_loss, self.val_loss, self.top1, self.top5):
            metric.reset()
        for name, value in figures.items():
            self.curves[name].append(value)
        self.log_dict(figures)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._stop_clock()
        checkpoint["rfaconv"] = {"curves": self.curves, "seconds": self.seconds}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.curves = {name: list(values) for name, values in checkpoint["rfaconv"]["curves"].items()}
        self.seconds = checkpoint["rfaconv"]["seconds"]

    def on_fit_end(self) -> None:
        self._stop_clock()

    def _stop_clock(self) -> None:
        now = time.perf_counter()
        self.seconds, self._started = self.seconds + now - self._started, now
