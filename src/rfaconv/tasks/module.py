"""What the trainings of all tasks have in common, as Lightning sees it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import lightning.pytorch as pl
import torch
from torch import nn
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torchmetrics import Metric

from rfaconv.data.sampling import derive_seed
from rfaconv.tasks.recipe import Recipe
from rfaconv.tasks.schedule import learning_rate_factor


class TrainedModule(pl.LightningModule):
    """SGD by the recipe, a curve a figure, a clock, and what is random in the model tied to the place in the run.

    Args:
        model: what is trained.
        recipe: how to train.
        seed: of what is random in the model itself (dropout).
        curves: the figures' names, "lr" first.

    Attributes:
        curves: one value an epoch; part of the checkpoint, so that a resumed run has them all.
        seconds: wall time of the training so far, over all its parts.
    """

    def __init__(self, model: nn.Module, recipe: Recipe, seed: int, curves: Sequence[str]) -> None:
        super().__init__()
        self.model, self.recipe, self.seed = model, recipe, seed
        self.curves: dict[str, list[float]] = {name: [] for name in curves}
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

    def record_epoch(self, figures: dict[str, float], metrics: Sequence[Metric]) -> None:
        """Add an epoch's figures to the curves, the learning rate first, and reset the metrics they came from."""
        figures = {"lr": self.optimizers().param_groups[0]["lr"], **figures}
        for metric in metrics:
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
