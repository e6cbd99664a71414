"""One scene: a photograph, things that are no items, items, and things in front of them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from rfaconv.data.scenes.warp import ONE, Array, grid, resize, rotate, turn

MOST_ITEMS = 5
LEAST_VISIBLE = 40
"""Per cent of an item that stay visible at least, whatever comes in front of it."""
_TRIES = 8


@dataclass(frozen=True)
class Material:
    """What the scenes of one part are made of.

    Attributes:
        photos: uint8 [H, W, 3] each.
        items: uint8 [N, 28, 28], grey on black.
        labels: the items' classes.
    """

    photos: Sequence[Array]
    items: Array
    labels: Sequence[int]


@dataclass
class Scene:
    """A drawn scene; boxes are (left, top, right, bottom) in pixels around what is visible, the last two exclusive."""

    image: Array
    """uint8 [size, size, 3]."""
    instances: Array
    """uint8 [size, size]: 0 where no item is, else the item's number, counted from 1."""
    labels: list[int] = field(default_factory=list)
    """The class of each item, counted from 0."""
    areas: list[int] = field(default_factory=list)
    """Pixels of each item before anything came in front of it."""

    @property
    def mask(self) -> Array:
        """uint8 [size, size]: 0 where no item is, else the item's class plus 1."""
        return np.array([0, *(label + 1 for label in self.labels)], np.uint8)[self.instances]

    @property
    def boxes(self) -> Array:
        """int64 [items, 4]."""
        found = np.zeros((len(self.labels), 4), np.int64)
        for number in range(len(self.labels)):
            rows, columns = np.nonzero(self.instances == number + 1)
            found[number] = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
        return found


class Dice:
    """Random whole numbers of a seed. Python guarantees the sequence of `random()`, and nothing else is used of it."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed).random

    def below(self, count: int) -> int:
        """0, 1, ... or count - 1."""
        return int(self._random() * count)

    def between(self, least: int, most: int) -> int:
        """least, ... or most."""
        return least + self.below(most - least + 1)

    def colour(self, least: int, most: int) -> Array:
        """Three numbers from `least` to `most`."""
        return np.array([self.between(least, most) for _ in range(3)], np.int64)


def draw(material: Material, size: int, seed: int) -> Scene:
    """The scene of `size` x `size` pixels that `seed` means."""
    dice = Dice(seed)
    scene = Scene(_texture(material, size, dice), np.zeros((size, size), np.uint8))
    for _ in range(dice.between(0, 2)):
        _distractor(scene, material, dice)
    for _ in range(dice.between(1, MOST_ITEMS)):
        _item(scene, material, dice)
    for _ in range(dice.between(0, 2)):
        _distractor(scene, material, dice)
    return scene


def _texture(material: Material, extent: int, dice: Dice) -> Array:
    """A part of a photograph as uint8 [extent, extent, 3]: mirrored, lighter or darker, of another hue, or not."""
    photo = material.photos[dice.below(len(material.photos))]
    shorter = min(photo.shape[:2])
    side = dice.between(shorter * 2 // 5, shorter)
    top, left = dice.below(photo.shape[0] - side + 1), dice.below(photo.shape[1] - side + 1)
    part = photo[top : top + side, left : left + side]
    part = part[:, ::-1] if dice.below(2) else part
    part = part[::-1] if dice.below(2) else part
    pixels = resize(part, side, extent).astype(np.int64)
    light, hue = dice.between(176, 272), dice.colour(208, 288)
    return (pixels * light * hue // (256 * 256)).clip(0, 255).astype(np.uint8)


def _item(scene: Scene, material: Material, dice: Dice) -> None:
    """Paste an item where it leaves enough of the others visible; give up after a few tries."""
    size = len(scene.image)
    chosen = dice.below(len(material.items))
    grey = material.items[chosen]
    layers = np.stack([np.where(_shape(grey), grey, 0), np.where(_shape(grey), 255, 0)], axis=2).astype(np.uint8)
    layers = layers[:, ::-1] if dice.below(2) else layers
    dark, light = dice.colour(0, 64), dice.colour(144, 255)
    for _ in range(_TRIES):
        side = dice.between(size * 26 // 100, size * 56 // 100)
        turned = rotate(layers, side, dice.between(-32, 32)).astype(np.int64)
        value, alpha = turned[..., :1], turned[..., 1:]
        colour = (dark * alpha + (light - dark) * value) // 255
        if _paste(scene, colour, alpha, *_place(turned.shape[0], size, dice), label=material.labels[chosen]):
            return


def _shape(grey: Array) -> Array:
    """Where an item is: most of the 3 x 3 pixels around are not black, so that specks and pinholes do not count."""
    seen = np.pad((grey > 0).astype(np.int64), 1)
    height, width = grey.shape
    around: Array = np.stack([seen[i : i + height, j : j + width] for i in range(3) for j in range(3)])
    return around.sum(axis=0) >= 5


def _distractor(scene: Scene, material: Material, dice: Dice) -> None:
    """Paste a bar or an ellipse, of one colour or of a photograph's texture, which belongs to the background."""
    size = len(scene.image)
    for _ in range(_TRIES):
        half = dice.between(size * 8 // 100, size * 20 // 100)
        other = half * dice.between(25, 100) // 100 + 1
        extent = 2 * half + 2 * other
        across, down = grid(extent)
        cosine, sine = turn(dice.below(256))
        x, y = (across * cosine + down * sine) // ONE, (down * cosine - across * sine) // ONE
        if dice.below(2):
            inside = (np.abs(x) <= 2 * half) & (np.abs(y) <= 2 * other)
        else:
            inside = x * x * other * other + y * y * half * half <= 4 * half * half * other * other
        alpha = np.where(inside, 255, 0)[..., None]
        plain = np.broadcast_to(dice.colour(16, 240), (extent, extent, 3))
        colour = plain if dice.below(2) else _texture(material, extent, dice).astype(np.int64)
        if _paste(scene, colour * alpha // 255, alpha, *_place(extent, size, dice), label=None):
            return


def _place(extent: int, size: int, dice: Dice) -> tuple[int, int]:
    """Row and column of a square's corner, its centre being in the scene, an eighth of the size from the edge."""
    least, most = size // 8 - extent // 2, size - size // 8 - extent // 2
    return dice.between(least, most), dice.between(least, most)


def _paste(scene: Scene, colour: Array, alpha: Array, top: int, left: int, label: int | None) -> bool:
    """Put `colour` (already times alpha) over the scene, unless that hides too much of an item: then nothing is done.

    A pixel belongs to what is pasted where alpha is at least one half.
    """
    size, extent = len(scene.image), len(alpha)
    rows, columns = slice(max(top, 0), min(top + extent, size)), slice(max(left, 0), min(left + extent, size))
    inner = (slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left))
    covered = alpha[inner][..., 0] >= 128
    instances = scene.instances.copy()
    area = int(np.count_nonzero(alpha >= 128))
    instances[rows, columns][covered] = 0 if label is None else len(scene.labels) + 1
    areas = scene.areas if label is None else [*scene.areas, area]
    visible = np.bincount(instances.ravel(), minlength=len(areas) + 1)[1:]
    if any(
        100 * seen < LEAST_VISIBLE * whole or seen == 0 for seen, whole in zip(visible.tolist(), areas, strict=True)
    ):
        return False
    under = scene.image[rows, columns].astype(np.int64)
    over = colour[inner] + (255 - alpha[inner]) * under // 255
    scene.image[rows, columns] = over.clip(0, 255).astype(np.uint8)
    scene.instances, scene.areas = instances, areas
    if label is not None:
        scene.labels.append(label)
    return True
