"""The images of a training, batch by batch, for each process its share."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
from torch.utils.data import DataLoader

from rfaconv.data import ClassificationData, EpochSampler, LabelledImages, build_transform
from rfaconv.errors import UserError
from rfaconv.tasks.recipe import Recipe


class Loaders(pl.LightningDataModule):
    """Training and validation loaders. The recipe's batch size is over all processes together.

    Args:
        data: the images.
        recipe: batch size, image size and transforms.
        seed: of order and augmentation.
        workers: processes that read images, for each training process; 0 reads in the training process.
    """

    def __init__(self, data: ClassificationData, recipe: Recipe, seed: int, workers: int) -> None:
        super().__init__()
        self.data, self.recipe, self.seed, self.workers = data, recipe, seed, workers
        self.image_size = image_size(data, recipe)

    def train_dataloader(self) -> DataLoader[Any]:
        return self._loader(train=True)

    def val_dataloader(self) -> DataLoader[Any]:
        return self._loader(train=False)

    def _loader(self, train: bool) -> DataLoader[Any]:
        world_size, rank = self._place()
        if self.recipe.batch_size % world_size:
            raise UserError(
                f"The recipe's batch_size {self.recipe.batch_size} does not divide over {world_size} processes; "
                f"choose one that does, with --set batch_size=N."
            )
        preset = self.recipe.augment if train else self.recipe.eval_transform
        transform = build_transform(preset, image_size=self.image_size, channels=self.data.channels)
        images = LabelledImages(self.data.train if train else self.data.val, transform, self.seed)
        return DataLoader(
            images,
            self.recipe.batch_size // world_size,
            sampler=EpochSampler(len(images), self.seed, rank, world_size, shuffle=train),
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
            # The last small batch would train on statistics of a few images.
            drop_last=train and len(images) >= self.recipe.batch_size,
        )

    def _place(self) -> tuple[int, int]:
        return (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (1, 0)


def image_size(data: ClassificationData, recipe: Recipe) -> int:
    """Side in pixels of the images a model is trained on: the recipe's, else the data's own, else 224."""
    if recipe.image_size is not None:
        return recipe.image_size
    return max(data.image_size) if data.image_size else 224
