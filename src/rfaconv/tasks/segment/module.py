"""The training of a segmentation model as Lightning sees it."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from rfaconv.errors import UserError
from rfaconv.tasks.module import TrainedModule
from rfaconv.tasks.segment.infer import logits_of
from rfaconv.tasks.segment.loss import SegmentationLoss
from rfaconv.tasks.segment.recipe import SegmentRecipe
from rfaconv.tasks.segment.scores import Scores

CURVES = ("lr", "train_loss", "val_loss", "val_miou", "val_pixel_accuracy")


class Segmenter(TrainedModule):
    """Cross-entropy, Dice and SGD, and the curves of what came of it.

    Args:
        model: from images [B, 3, H, W] to logits [B, classes, H, W].
        recipe: how to train.
        classes: how many.
        seed: of what is random in the model itself (dropout).
    """

    def __init__(self, model: nn.Module, recipe: SegmentRecipe, classes: int, seed: int) -> None:
        super().__init__(model, recipe, seed, CURVES)
        self.freeze_norm = recipe.freeze_norm
        self.loss = SegmentationLoss(recipe.dice, recipe.label_smoothing)
        self.scores = Scores(classes)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        super().on_train_batch_start(batch, batch_idx)
        if self.freeze_norm:
            for module in self.model.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        images, masks = batch
        if len(images) == 1 and not self.freeze_norm:
            raise UserError(
                "A batch of one image for each process has no statistics to normalise by: train on more images, or "
                "--set batch_size=N higher, or --set freeze_norm=true."
            )
        loss: Tensor = self.loss(logits_of(self.model, images), masks, self._share)
        self.train_loss.update(loss.detach(), weight=len(images))
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        images, masks = batch
        logits = logits_of(self.model, images).float()
        self.val_loss.update(self.loss(logits, masks), weight=len(images))
        self.scores.update(logits.argmax(1), masks)

    def on_validation_epoch_end(self) -> None:
        figures, _ = self.scores.compute()
        self.record_epoch({f"val_{name}": value for name, value in figures.items()}, self.scores.metrics)

    def _share(self, count: Tensor) -> Tensor:
        mean: Tensor = self.trainer.strategy.reduce(count.clone(), reduce_op="mean")
        return mean
