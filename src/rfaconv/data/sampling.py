"""Order and augmentation as pure functions of (seed, epoch, index).

So a run gives the same batches whatever the number of workers, after a resume, and for every layer that is compared.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from rfaconv.data.sources import ImageSource


def derive_seed(*parts: int | str) -> int:
    """A seed of 63 bits from numbers and words; neighbouring numbers give unrelated seeds."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") >> 1


@contextmanager
def augmenting(seed: int, epoch: int, index: int) -> Iterator[None]:
    """What torch's CPU generator gives inside depends on these alone, and it is as before afterwards."""
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed: that would reseed the accelerators too.
        torch.default_generator.manual_seed(derive_seed("augment", seed, epoch, index))
        yield


def split(count: int, fraction: float, *seeds: int | str) -> tuple[list[int], int]:
    """An order of `count` things, and how many of its first to hold out, at least one staying on either side."""
    generator = torch.Generator().manual_seed(derive_seed("split", *seeds))
    order: list[int] = torch.randperm(count, generator=generator).tolist()
    return order, min(max(round(count * fraction), 1), count - 1)


class LabelledImages(Dataset[tuple[Tensor, int]]):
    """The images of a source, transformed, with their classes' indices.

    Args:
        source: the images.
        transform: from uint8 [C, H, W] to float [C, H', W'].
        seed: of the transform's randomness.
    """

    def __init__(self, source: ImageSource, transform: Callable[[Tensor], Tensor], seed: int = 0) -> None:
        self.source = source
        self.transform = transform
        self.seed = seed

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, key: int | tuple[int, int]) -> tuple[Tensor, int]:
        """By index, for evaluation; by (epoch, index), as EpochSampler yields them, for training.

        For a pair, what torch's CPU generator gives to the transform depends on (seed, epoch, index) alone, and
        the generator is as before afterwards.
        """
        if not isinstance(key, tuple):
            return self.transform(self.source.image(key)), int(self.source.targets[key])
        epoch, index = key
        image = self.source.image(index)
        with augmenting(self.seed, epoch, index):
            return self.transform(image), int(self.source.targets[index])


class EpochSampler(Sampler[tuple[int, int]]):
    """Yields (epoch, index), in an order that is a pure function of (seed, epoch).

    Args:
        size: number of images.
        seed: of the order.
        rank: of this process, of `world_size`.
        world_size: how many processes share the images.
        shuffle: True for training: a new order each epoch, and every rank yields equally many (some images come
            twice where the size does not divide, as in DistributedSampler). False for evaluation: the order of the
            source, and no image twice, so ranks may differ by one.
    """

    def __init__(self, size: int, seed: int = 0, rank: int = 0, world_size: int = 1, shuffle: bool = True) -> None:
        if size < 0 or not 0 <= rank < world_size:
            raise ValueError(f"size must be >= 0 and 0 <= rank < world_size, got {size}, {rank}, {world_size}")
        self.size = size
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.shuffle = shuffle
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Which epoch comes next; Lightning calls it."""
        self.epoch = epoch

    def __len__(self) -> int:
        extra = self.world_size - 1 if self.shuffle else self.world_size - 1 - self.rank
        return (self.size + extra) // self.world_size

    def __iter__(self) -> Iterator[tuple[int, int]]:
        epoch = self.epoch
        order = self._order(epoch)
        for step in range(len(self)):
            yield epoch, order[(self.rank + step * self.world_size) % self.size]

    def _order(self, epoch: int) -> list[int]:
        if not self.shuffle:
            return list(range(self.size))
        generator = torch.Generator().manual_seed(derive_seed("order", self.seed, epoch))
        return torch.randperm(self.size, generator=generator).tolist()
