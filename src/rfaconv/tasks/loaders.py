"""The images of a training, batch by batch, for each process its share; whatever the task."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
from torch.utils.data import DataLoader

from rfaconv.data import EpochSampler
from rfaconv.errors import UserError
from rfaconv.tasks.recipe import Recipe


class TaskLoaders(pl.LightningDataModule):
    """Training and validation loaders. The recipe's batch size is over all processes together.

    A task says what `images(train)` are: a data set that takes (epoch, index).

    Args:
        recipe: the batch size.
        seed: of the order.
        workers: processes that read images, for each training process; 0 reads in the training process.
    """

    def __init__(self, recipe: Recipe, seed: int, workers: int) -> None:
        super().__init__()
        self.recipe, self.seed, self.workers = recipe, seed, workers

    def images(self, train: bool) -> Any:
        """The transformed images of a part."""
        raise NotImplementedError

    def eval_batch_size(self) -> int:
        """Images a step in validation, over all processes together."""
        return self.recipe.batch_size

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
        images = self.images(train)
        return DataLoader(
            images,
            max(1, (self.recipe.batch_size if train else self.eval_batch_size()) // world_size),
            sampler=EpochSampler(len(images), self.seed, rank, world_size, shuffle=train),
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
            # The last small batch would train on statistics of a few images.
            drop_last=train and len(images) >= self.recipe.batch_size,
        )

    def _place(self) -> tuple[int, int]:
        return (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (1, 0)
