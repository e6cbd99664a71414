"""Image and mask together: the presets for training and evaluation, all of torchvision's transforms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from rfaconv.data.sampling import augmenting
from rfaconv.data.segmentation.masks import IGNORE
from rfaconv.data.segmentation.sources import MaskedSource
from rfaconv.data.transforms import MEAN_STD, check_image_size
from rfaconv.errors import unknown_name

MaskedTransform = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]

_MEAN, _STD = MEAN_STD[3]
# What is beyond the image: its normalised value is about 0, and its pixels count for nothing.
_FILL: dict[Any, Any] = {tv_tensors.Image: [round(255 * value) for value in _MEAN], tv_tensors.Mask: IGNORE}


def _crop(size: int) -> list[Any]:
    return [v2.RandomCrop(size, pad_if_needed=True, fill=_FILL)]


def _scale(size: int) -> list[Any]:
    return [v2.ScaleJitter((size, size), (0.5, 2.0)), *_crop(size), v2.RandomHorizontalFlip()]


_PRESETS: dict[str, Callable[[int], list[Any]]] = {
    "scale": _scale,
    "crop": lambda size: [*_crop(size), v2.RandomHorizontalFlip()],
    "none": _crop,
}
MASK_PRESETS = (*_PRESETS, "whole")


class MaskTransform:
    """From uint8 [3, H, W] and uint8 [H, W] to a normalised float32 image and an int64 mask of the same size."""

    def __init__(self, steps: list[Any]) -> None:
        self._steps = v2.Compose(steps)
        self._last = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize(list(_MEAN), list(_STD))])

    def __call__(self, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        moved, ids = self._steps(tv_tensors.Image(image), tv_tensors.Mask(mask))
        return self._last(moved.as_subclass(Tensor)), ids.as_subclass(Tensor).long()


def build_mask_transform(preset: str, *, image_size: int) -> MaskedTransform:
    """A transform of image and mask together.

    For training, all of them to image_size x image_size: "scale" (scaled by 0.5 to 2, a random part, a flip; the usual
    recipe), "crop" (a random part and a flip; images of that size stay whole), "none" (a random part alone).
    For evaluation: "whole" (the image as it is).

    Where an image is smaller than the part, the rest is the mean colour and counts for nothing. Values are normalised
    by ImageNet's mean and deviation. All randomness comes from torch's CPU generator. The result can be pickled.

    Args:
        preset: one of the names above.
        image_size: side of the square result, in pixels; "whole" does not use it.

    Raises:
        UserError: an unknown preset, or a size out of bounds.
    """
    if preset not in MASK_PRESETS:
        unknown_name("transform", preset, MASK_PRESETS)
    if preset != "whole":
        check_image_size(image_size)
    return MaskTransform([v2.Identity()] if preset == "whole" else _PRESETS[preset](image_size))


class MaskedImages(Dataset[tuple[Tensor, Tensor]]):
    """The images and masks of a source, transformed.

    Args:
        source: images and masks.
        transform: of both together.
        seed: of the transform's randomness.
    """

    def __init__(self, source: MaskedSource, transform: MaskedTransform, seed: int = 0) -> None:
        self.source = source
        self.transform = transform
        self.seed = seed

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, key: int | tuple[int, int]) -> tuple[Tensor, Tensor]:
        """By index, or by (epoch, index) as EpochSampler yields them: randomness depends on (seed, epoch, index)."""
        epoch, index = key if isinstance(key, tuple) else (0, key)
        image, mask = self.source.image(index), self.source.mask(index)
        with augmenting(self.seed, epoch, index):
            return self.transform(image, mask)
