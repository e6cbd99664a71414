"""Tiny data sets, and a cache of their own."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

Draw = Callable[..., None]


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that stands in for ~/.cache."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


@pytest.fixture
def draw() -> Draw:
    """draw(root, "cat/1.png", "cat/2.png"): writes small images, each a different one."""

    def write(root: Path, *names: str, size: tuple[int, int] = (8, 6), mode: str = "RGB") -> None:
        for name in names:
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            noise = np.random.default_rng(sum(map(ord, name))).integers(0, 256, (size[1], size[0], 3), np.uint8)
            Image.fromarray(noise).convert(mode).save(path, format="JPEG" if path.suffix.lower() != ".png" else "PNG")

    return write


@pytest.fixture
def two_classes(tmp_path: Path, draw: Draw) -> Path:
    """One folder with the classes cat (5 images) and dog (10 images)."""
    root = tmp_path / "pets"
    draw(root, *(f"cat/{i}.png" for i in range(5)), *(f"dog/{i}.jpg" for i in range(10)))
    return root


@pytest.fixture
def idx_bytes() -> Callable[[np.ndarray], bytes]:
    """The bytes of an IDX file of a uint8 array."""

    def encode(array: np.ndarray) -> bytes:
        return struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()

    return encode


@pytest.fixture
def idx_folder(tmp_path: Path, idx_bytes: Callable[[np.ndarray], bytes]) -> Path:
    """A digit set of 6 + 4 images of 5 x 4 px with the labels 0, 1, 2."""
    root = tmp_path / "digits"
    root.mkdir()
    pixels = np.arange(6 * 5 * 4, dtype=np.uint8).reshape(6, 5, 4)
    for part, count in (("train", 6), ("t10k", 4)):
        (root / f"{part}-images-idx3-ubyte").write_bytes(idx_bytes(pixels[:count]))
        (root / f"{part}-labels-idx1-ubyte").write_bytes(idx_bytes(np.arange(count) % 3))
    return root
