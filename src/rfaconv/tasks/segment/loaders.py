"""The images and masks of a training."""

from __future__ import annotations

from rfaconv.data.segmentation import MaskedImages, SegmentationData, build_mask_transform
from rfaconv.errors import UserError
from rfaconv.tasks.loaders import TaskLoaders
from rfaconv.tasks.segment.recipe import SegmentRecipe


class Loaders(TaskLoaders):
    """Training and validation loaders; images of several sizes are validated one by one.

    Args:
        data: the images and masks.
        recipe: batch size, image size and transforms.
        seed: of order and augmentation.
        workers: processes that read images, for each training process; 0 reads in the training process.
    """

    def __init__(self, data: SegmentationData, recipe: SegmentRecipe, seed: int, workers: int) -> None:
        super().__init__(recipe, seed, workers)
        self.data = data
        self.image_size = image_size(data, recipe)

    def images(self, train: bool) -> MaskedImages:
        preset = self.recipe.augment if train else self.recipe.eval_transform
        transform = build_mask_transform(preset, image_size=self.image_size)
        return MaskedImages(self.data.train if train else self.data.val, transform, self.seed)

    def eval_batch_size(self) -> int:
        return eval_batch(self.data, self.recipe.batch_size)


def eval_batch(data: SegmentationData, most: int) -> int:
    """Images that can be evaluated at a time: one, where their sizes differ."""
    return most if data.image_size else 1


def image_size(data: SegmentationData, recipe: SegmentRecipe) -> int:
    """Side in pixels of what a model is trained on: the recipe's, else the data's own, else 513 as usual for VOC."""
    size = recipe.image_size or (max(data.image_size) if data.image_size else 513)
    if size < 32:
        raise UserError(f"The recipe's image_size must be at least 32 for segmentation, got {size}.")
    return size
