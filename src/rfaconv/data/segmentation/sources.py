"""Where images with masks come from: memory, pairs of files, or outlines in a COCO file."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from rfaconv.data.decode import BrokenImageError, read_image
from rfaconv.data.files import printable, quoted
from rfaconv.data.scenes import Scenes
from rfaconv.data.segmentation.masks import MaskRule, read_mask
from rfaconv.errors import UserError


class MaskedSource(Protocol):
    """Images with masks, by index."""

    def __len__(self) -> int: ...

    def image(self, i: int) -> Tensor:
        """uint8 [3, H, W]."""
        ...

    def mask(self, i: int) -> Tensor:
        """uint8 [H, W]: class numbers, 255 where a pixel counts for nothing."""
        ...

    def name(self, i: int) -> str:
        """For people: what to look for to find this image."""
        ...

    def files(self, i: int) -> Sequence[str]:
        """Of a source of files: the image's, and the mask's if it has one, relative to the root; else nothing."""
        ...


class SceneImages:
    """The embedded scenes; `label` begins their names."""

    def __init__(self, scenes: Scenes, label: str) -> None:
        self.scenes = scenes
        self.label = label

    def __len__(self) -> int:
        return len(self.scenes)

    def image(self, i: int) -> Tensor:
        """uint8 [3, size, size], a view."""
        return torch.from_numpy(self.scenes.images[i]).permute(2, 0, 1)

    def mask(self, i: int) -> Tensor:
        """uint8 [size, size], a view."""
        return torch.from_numpy(self.scenes.masks[i])

    def name(self, i: int) -> str:
        """e.g. "test scene 17"."""
        return f"{self.label} scene {i}"

    def files(self, i: int) -> Sequence[str]:
        """None: it is in memory."""
        return ()


class Pair(NamedTuple):
    """An image file and its mask's, relative to the data set's root, with '/' between folders."""

    image: str
    mask: str


class PairFiles:
    """Pairs of files under a root, decoded whenever they are asked for."""

    def __init__(self, root: Path, pairs: Sequence[Pair], rule: MaskRule) -> None:
        self.root = root
        self.pairs = pairs
        self.rule = rule

    def __len__(self) -> int:
        return len(self.pairs)

    def image(self, i: int) -> Tensor:
        """uint8 [3, H, W].

        Raises:
            UserError: the file is missing or broken; the message names it.
        """
        return readable_image(self.root / self.pairs[i].image)

    def mask(self, i: int) -> Tensor:
        """uint8 [H, W].

        Raises:
            UserError: the file is missing or broken; the message names it.
        """
        path = self.root / self.pairs[i].mask
        try:
            return read_mask(path, self.rule)
        except BrokenImageError as error:
            raise UserError(f"Mask {quoted(path)} cannot be used ({error}): mend it or remove the pair.") from error

    def name(self, i: int) -> str:
        """The image's, relative to the root."""
        return printable(self.pairs[i].image)

    def files(self, i: int) -> Sequence[str]:
        """Image and mask, relative to the root."""
        return self.pairs[i]

    def without(self, names: Collection[str]) -> PairFiles:
        """The same without the images of these files."""
        return PairFiles(self.root, [pair for pair in self.pairs if pair.image not in names], self.rule)

    def check(self, i: int) -> None:
        """Decode both.

        Raises:
            BrokenImageError: one of them is broken, or their sizes differ; the message is the reason alone.
        """
        image = read_image(self.root / self.pairs[i].image, 3)
        try:
            mask = read_mask(self.root / self.pairs[i].mask, self.rule)
        except BrokenImageError as error:
            raise BrokenImageError(f"its mask {quoted(self.pairs[i].mask)}: {error}") from error.__cause__
        if mask.shape != image.shape[1:]:
            raise BrokenImageError(
                f"its mask {quoted(self.pairs[i].mask)} has {_size(mask)} pixels, the image {_size(image)}"
            )


def readable_image(path: Path) -> Tensor:
    """uint8 [3, H, W]; a UserError names a file that cannot be read."""
    try:
        return read_image(path, 3)
    except BrokenImageError as error:
        raise UserError(f"Image {quoted(path)} cannot be read ({error}): mend it or remove it.") from error


def _size(pixels: Tensor) -> str:
    return f"{pixels.shape[-1]} x {pixels.shape[-2]}"
