"""Resampling in integers: the same bits on every machine, which floating point does not promise."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

BITS = 14
"""Binary places of a coordinate, and of a sine."""
ONE = 1 << BITS
ANGLES = 256
"""Steps of a whole turn."""
_COS = tuple(round(math.cos(2 * math.pi * step / ANGLES) * ONE) for step in range(ANGLES))


def turn(step: int) -> tuple[int, int]:
    """Cosine and sine of `step` / 256 of a turn, in units of 2^-14."""
    return _COS[step % ANGLES], _COS[(step - ANGLES // 4) % ANGLES]


def grid(extent: int) -> tuple[Array, Array]:
    """Twice the distance of each pixel's centre from the centre of a square of `extent` pixels: across, down."""
    along = 2 * np.arange(extent, dtype=np.int64) + 1 - extent
    return along[None, :], along[:, None]


def resize(pixels: Array, side: int, extent: int) -> Array:
    """The upper left `side` x `side` pixels of uint8 [H, W, C] as [extent, extent, C], bilinearly."""
    centre = (2 * np.arange(extent, dtype=np.int64) + 1) * side * (ONE // 2) // extent - ONE // 2
    centre = centre.clip(0, (side - 1) * ONE)
    return bilinear(pixels[:side, :side], *np.broadcast_arrays(centre[None, :], centre[:, None]))


def rotate(pixels: Array, side: int, step: int) -> Array:
    """uint8 [n, n, C], scaled to `side` pixels and turned by `step` / 256 of a turn, on a square that holds it.

    What lies outside of `pixels` is zero.
    """
    count = len(pixels)
    extent = side * 3 // 2
    cosine, sine = turn(step)
    across, down = grid(extent)
    x = (across * cosine + down * sine) * count // (2 * side) + (count - 1) * ONE // 2
    y = (down * cosine - across * sine) * count // (2 * side) + (count - 1) * ONE // 2
    padded = np.pad(pixels, ((1, 1), (1, 1), (0, 0)))
    limit = count * ONE
    return bilinear(padded, x.clip(-ONE, limit) + ONE, y.clip(-ONE, limit) + ONE)


def bilinear(pixels: Array, x: Array, y: Array) -> Array:
    """uint8 [H, W, C] at the coordinates x and y (columns and rows in units of 2^-14), as uint8."""
    left, top = x >> BITS, y >> BITS
    right = np.minimum(left + 1, pixels.shape[1] - 1)
    bottom = np.minimum(top + 1, pixels.shape[0] - 1)
    fx, fy = (x & (ONE - 1))[..., None], (y & (ONE - 1))[..., None]
    values = pixels.astype(np.int64)
    upper = values[top, left] * (ONE - fx) + values[top, right] * fx
    lower = values[bottom, left] * (ONE - fx) + values[bottom, right] * fx
    mixed = upper * (ONE - fy) + lower * fy
    return ((mixed + (1 << (2 * BITS - 1))) >> (2 * BITS)).astype(np.uint8)
