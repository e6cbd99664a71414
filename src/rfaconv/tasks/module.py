"""What the trainings of all tasks have in common, as Lightning sees it."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from itertools import chain
from typing import Any

import lightning.pytorch as pl
import torch
from torch import nn
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torchmetrics import MeanMetric, Metric

from rfaconv.data.sampling import derive_seed
from rfaconv.tasks.recipe import Recipe
from rfaconv.tasks.schedule import learning_rate_factor


def weights_are_finite(model: nn.Module) -> bool:
    """Whether every parameter and buffer is finite."""
    found = [value.isfinite().all() for value in chain(model.parameters(), model.buffers())]
    return bool(torch.stack(found).all())


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
        diverged: the epoch (from 1) in which a loss or the weights stopped being finite, which ends the training.
    """

    def __init__(self, model: nn.Module, recipe: Recipe, seed: int, curves: Sequence[str]) -> None:
        super().__init__()
        self.model, self.recipe, self.seed = model, recipe, seed
        self.curves: dict[str, list[float]] = {name: [] for name in curves}
        self.seconds = 0.0
        self.diverged: int | None = None
        # Not the default strategy, which leaves losses that are NaN out of the mean.
        self.train_loss, self.val_loss = MeanMetric(nan_strategy="disable"), MeanMetric(nan_strategy="disable")
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
        if self.diverged is not None:  # killed between the last epoch and its result
            self.trainer.should_stop = True

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        # What is random in the model depends on the place in the run alone: a resumed run draws what an undisturbed
        # one draws, whatever the loaders and loops drew in between.
        torch.manual_seed(derive_seed("model", self.seed, self.current_epoch, batch_idx, self.global_rank))

    def record_epoch(self, figures: dict[str, float], metrics: Sequence[Metric]) -> None:
        """Add an epoch's figures to the curves (learning rate and losses first) and reset the metrics they came from.

        Validation is the last thing in a training epoch, so the training loss is whole by then.
        """
        losses = {"train_loss": self.train_loss.compute().item(), "val_loss": self.val_loss.compute().item()}
        figures = {"lr": self.optimizers().param_groups[0]["lr"], **losses, **figures}
        for metric in (self.train_loss, self.val_loss, *metrics):
            metric.reset()
        for name, value in figures.items():
            self.curves[name].append(value)
        self.log_dict(figures)
        # Both are the same in all processes: losses are means over them, weights are kept alike.
        if not (all(map(math.isfinite, losses.values())) and weights_are_finite(self.model)):
            self.diverged, self.trainer.should_stop = self.current_epoch + 1, True

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._stop_clock()
        checkpoint["rfaconv"] = {"curves": self.curves, "seconds": self.seconds, "diverged": self.diverged}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.curves = {name: list(values) for name, values in checkpoint["rfaconv"]["curves"].items()}
        self.seconds, self.diverged = checkpoint["rfaconv"]["seconds"], checkpoint["rfaconv"]["diverged"]

    def on_fit_end(self) -> None:
        self._stop_clock()

    def _stop_clock(self) -> None:
        now = time.perf_counter()
        self.seconds, self._started = self.seconds + now - self._started, now
