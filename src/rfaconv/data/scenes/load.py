"""`load_scenes`: the embedded data for detection and segmentation, drawn on first use and kept in the user's cache."""

from __future__ import annotations

import hashlib
import io
import os
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from PIL import Image

from rfaconv.data.idx import FASHION_CLASSES, read_idx
from rfaconv.data.sampling import derive_seed
from rfaconv.data.scenes.draw import Material, draw
from rfaconv.data.scenes.warp import Array
from rfaconv.errors import UserError
from rfaconv.files import replacing

SCENE_CLASSES = FASHION_CLASSES
"""The classes of the items; in masks they are counted from 1, and 0 is everything else."""
VERSION = 1
"""Raised when the same seed gives another scene."""
_DATA = Path(__file__).parent
_PARTS = {"train": "train", "test": "t10k"}


@dataclass(frozen=True)
class Scenes:
    """Images with everything that is known of them. All arrays are in memory.

    Attributes:
        images: uint8 [N, size, size, 3].
        instances: uint8 [N, size, size]: 0 where no item is, else the item's number in its scene, counted from 1.
        masks: uint8 [N, size, size]: 0 where no item is, else the item's class plus 1.
        boxes: int64 [items, 4]: left, top, right, bottom in pixels around what is visible of each item, the last two
            exclusive; all scenes' items one after the other.
        labels: int64 [items]: their classes, counted from 0.
        starts: int64 [N + 1]: scene i has the items starts[i] to starts[i + 1].
    """

    images: Array
    instances: Array
    masks: Array
    boxes: Array
    labels: Array
    starts: Array

    def __len__(self) -> int:
        return len(self.images)

    def items(self, i: int) -> tuple[Array, Array]:
        """Boxes [n, 4] and labels [n] of scene i."""
        inside = slice(int(self.starts[i]), int(self.starts[i + 1]))
        return self.boxes[inside], self.labels[inside]

    @property
    def fingerprint(self) -> str:
        """16 hex digits of a SHA-256 over shapes and contents."""
        digest = hashlib.sha256()
        for array in (self.images, self.instances, self.masks, self.boxes, self.labels, self.starts):
            digest.update(str(array.shape).encode())
            digest.update(np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<"))).tobytes())
        return digest.hexdigest()[:16]


@dataclass(frozen=True)
class SceneData:
    """Two parts that share neither items nor photographs."""

    train: Scenes
    test: Scenes

    @property
    def fingerprint(self) -> str:
        """16 hex digits, of both parts."""
        return hashlib.sha256(f"{self.train.fingerprint}{self.test.fingerprint}".encode()).hexdigest()[:16]


def load_scenes(*, train: int = 1600, test: int = 400, size: int = 96, seed: int = 0) -> SceneData:
    """Scenes of Fashion-MNIST items on photographs: synthetic, but made of real pictures, with exact boxes and masks.

    One to five items a scene, of ten classes, scaled, turned by up to 45 degrees, coloured at random, partly behind one
    another and behind bars and ellipses that belong to no class; at least 40 % of each stay visible.
    Items, photographs and what lies in front are those of the part: 6,000 items and 6 photographs for training, 2,000
    and 4 for the test.

    The same arguments give the same bits on every machine (whole numbers throughout). Drawn once (some milliseconds a
    scene), then read from $XDG_CACHE_HOME or ~/.cache, rfaconv/scenes/; where that cannot be written, drawn again.

    Args:
        train: scenes for training; the first n of a longer set are those of a shorter one.
        test: scenes for the test.
        size: side of the images, in pixels, at least 32.
        seed: another one gives other scenes of the same items and photographs.

    Raises:
        UserError: no scenes asked for, or too small ones.
    """
    return SceneData(_cached("train", train, size, seed), _cached("test", test, size, seed))


def render_scenes(part: str, count: int, size: int, seed: int) -> Scenes:
    """Draw scenes 0 to count - 1 of a part ("train" or "test"); see `load_scenes`.

    Raises:
        UserError: no scenes asked for, or too small ones.
    """
    if count < 1 or size < 32:
        raise UserError(f"Scenes are at least one, of 32 pixels or more; got {count} of {size}.")
    material = _material(part)
    drawn = [draw(material, size, derive_seed("scene", VERSION, part, seed, index)) for index in range(count)]
    return Scenes(
        np.stack([scene.image for scene in drawn]),
        np.stack([scene.instances for scene in drawn]),
        np.stack([scene.mask for scene in drawn]),
        np.concatenate([scene.boxes for scene in drawn]),
        np.array([label for scene in drawn for label in scene.labels], np.int64),
        np.cumsum([0, *(len(scene.labels) for scene in drawn)]).astype(np.int64),
    )


@lru_cache(maxsize=2)
def _material(part: str) -> Material:
    photos = sorted((_DATA / "photos" / part).glob("*.png"))
    files = _DATA.parent / "fashion_mnist"
    items = read_idx(files / f"{_PARTS[part]}-images-idx3-ubyte.gz", (3,)).numpy()
    labels = read_idx(files / f"{_PARTS[part]}-labels-idx1-ubyte.gz", (1,)).tolist()
    return Material([np.asarray(Image.open(path).convert("RGB")) for path in photos], items, labels)


def _cached(part: str, count: int, size: int, seed: int) -> Scenes:
    path = _cache_path(part, count, size, seed)
    if path is not None and (known := _read(path, count, size)) is not None:
        return known
    scenes = render_scenes(part, count, size, seed)
    if path is not None:
        buffer = io.BytesIO()
        np.savez_compressed(buffer, allow_pickle=False, **vars(scenes))
        with suppress(OSError), replacing(path) as file:  # a cache that cannot be written only costs time
            file.write(buffer.getvalue())
    return scenes


def _read(path: Path, count: int, size: int) -> Scenes | None:
    """What `_cached` wrote; None if there is nothing, or not that."""
    try:
        with np.load(path, allow_pickle=False) as found:
            scenes = Scenes(**found)
    except (OSError, ValueError, TypeError, KeyError, EOFError, BadZipFile):
        return None
    return scenes if scenes.images.shape == (count, size, size, 3) else None


def _cache_path(part: str, count: int, size: int, seed: int) -> Path | None:
    try:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:
        return None
    return base / "rfaconv" / "scenes" / f"v{VERSION}-{part}-{count}x{size}-seed{seed}.npz"
