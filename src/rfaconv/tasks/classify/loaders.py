"""The labelled images of a training."""

from __future__ import annotations

from rfaconv.data import ClassificationData, LabelledImages, build_transform
from rfaconv.tasks.loaders import TaskLoaders
from rfaconv.tasks.recipe import Recipe


class Loaders(TaskLoaders):
    """Training and validation loaders. The recipe's batch size is over all processes together.

    Args:
        data: the images.
        recipe: batch size, image size and transforms.
        seed: of order and augmentation.
        workers: processes that read images, for each training process; 0 reads in the training process.
    """

    def __init__(self, data: ClassificationData, recipe: Recipe, seed: int, workers: int) -> None:
        super().__init__(recipe, seed, workers)
        self.data = data
        self.image_size = image_size(data, recipe)

    def images(self, train: bool) -> LabelledImages:
        preset = self.recipe.augment if train else self.recipe.eval_transform
        transform = build_transform(preset, image_size=self.image_size, channels=self.data.channels)
        return LabelledImages(self.data.train if train else self.data.val, transform, self.seed)


def image_size(data: ClassificationData, recipe: Recipe) -> int:
    """Side in pixels of the images a model is trained on: the recipe's, else the data's own, else 224."""
    if recipe.image_size is not None:
        return recipe.image_size
    return max(data.image_size) if data.image_size else 224
