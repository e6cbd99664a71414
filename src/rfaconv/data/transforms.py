"""From a uint8 image to a normalised float image: the presets for training and evaluation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms import v2

from rfaconv.errors import UserError, unknown_name

# ImageNet's for colour, as every published recipe has them; greys go to [-1, 1].
MEAN_STD = {3: ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), 1: ((0.5,), (0.5,))}


SMALLEST, LARGEST = 4, 8192
"""Bounds of image_size: below, nothing is to be seen; beyond, no machine holds a batch."""


def _resize(size: int, shorter_side: int) -> list[Any]:
    return [v2.Resize(shorter_side, antialias=True), v2.CenterCrop(size)]


def _imagenet(size: int) -> list[Any]:
    return [v2.RandomResizedCrop(size, antialias=True), v2.RandomHorizontalFlip()]


def _small(size: int) -> list[Any]:
    # CIFAR's recipe, whose padding of 4 is an eighth of 32 px. The resizing leaves images of the right size alone.
    return [*_resize(size, size), v2.RandomCrop(size, padding=max(1, size // 8)), v2.RandomHorizontalFlip()]


def _flip(size: int) -> list[Any]:
    return [*_resize(size, size), v2.RandomHorizontalFlip()]


_PRESETS: dict[str, Callable[[int], list[Any]]] = {
    "imagenet": _imagenet,
    "small": _small,
    "flip": _flip,
    "none": lambda size: _resize(size, size),
    "resize": lambda size: _resize(size, size),
    "resize256": lambda size: _resize(size, round(size * 256 / 224)),
}


def check_image_size(size: int) -> None:
    """Raise a UserError for a side that no image has in training."""
    if not SMALLEST <= size <= LARGEST:
        raise UserError(f"image_size must be between {SMALLEST} and {LARGEST} pixels, got {size}.")


def build_transform(preset: str, *, image_size: int, channels: int) -> Callable[[Tensor], Tensor]:
    """A transform from uint8 [channels, H, W] to float32 [channels, image_size, image_size].

    For training: "imagenet" (a random part of the image, resized, and a flip), "small" (a random shift by up to an
    eighth of the image, and a flip), "flip" (a flip alone), "none" (as "resize": for images in which left and right
    differ, such as digits).
    For evaluation: "resize" (the shorter side resized to image_size, centre crop; the paper's protocol), "resize256"
    (the shorter side resized to image_size * 256 / 224, centre crop; the usual protocol).

    Values are scaled to [0, 1] and normalised: with ImageNet's mean and deviation for 3 channels, with 0.5 and 0.5 for
    1 channel. All randomness comes from torch's CPU generator. The result can be pickled.

    Args:
        preset: one of the names above.
        image_size: side of the square result, in pixels.
        channels: 1 or 3.

    Raises:
        UserError: an unknown preset, a size out of bounds (`SMALLEST`, `LARGEST`), or another number of channels.
    """
    if preset not in _PRESETS:
        unknown_name("transform", preset, _PRESETS)
    check_image_size(image_size)
    if channels not in MEAN_STD:
        raise UserError(f"channels must be 1 or 3, got {channels}.")
    mean, std = MEAN_STD[channels]
    return v2.Compose(
        [*_PRESETS[preset](image_size), v2.ToDtype(torch.float32, scale=True), v2.Normalize(list(mean), list(std))]
    )
