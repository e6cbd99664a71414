"""Masks in run lengths: COCO's, plain and compressed, CVAT's and Label Studio's."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

_LARGEST = 1 << 28
"""Pixels a mask may have: 16,384 x 16,384."""


class Runs(NamedTuple):
    """Lengths of runs that are outside and inside by turns, beginning with outside."""

    counts: tuple[int, ...]
    height: int
    width: int
    order: Literal["F", "C"] = "F"
    """F: column by column, as COCO; C: row by row."""
    left: int = 0
    top: int = 0
    """Where the mask's corner lies in the image."""

    def mask(self) -> NDArray[np.bool_]:
        """bool [height, width]."""
        values = np.repeat(np.arange(len(self.counts)) % 2 == 1, self.counts)
        return values.reshape((self.height, self.width), order=self.order)

    def corners(self) -> tuple[float, float, float, float]:
        """left, top, right, bottom of what is inside, in pixels of the image; all equal where nothing is."""
        rows, columns = (self.mask().any(axis) for axis in (1, 0))
        if not rows.any():
            return (self.left, self.top, self.left, self.top)
        down, across = np.flatnonzero(rows), np.flatnonzero(columns)
        return (
            float(self.left + across[0]), float(self.top + down[0]),
            float(self.left + across[-1] + 1), float(self.top + down[-1] + 1),
        )  # fmt: skip


def checked_runs(
    counts: Iterable[Any], height: Any, width: Any, order: Literal["F", "C"] = "F", left: int = 0, top: int = 0
) -> Runs:
    """Runs whose lengths are whole, not negative, and fill height x width; a ValueError says what is wrong."""
    for value in (height, width):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"its run lengths are for {width!r:.20} x {height!r:.20} pixels")
    if height * width > _LARGEST:
        raise ValueError(f"its run lengths are for {width} x {height} pixels, more than are read ({_LARGEST:,})")
    lengths = []
    for value in counts:
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= height * width:
            raise ValueError("a run length is no number of pixels of its image")
        lengths.append(value)
    if sum(lengths) != height * width:
        raise ValueError(f"its run lengths give {sum(lengths)} pixels, and {width} x {height} has {height * width}")
    return Runs(tuple(lengths), height, width, order, left, top)


def coco_counts(text: str) -> list[int]:
    """COCO's compressed run lengths: five bits a character from '0' on, a sixth for "more follows".

    From the fourth length on, each is the difference to the one two before.
    """
    lengths: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 30:
            raise ValueError("its compressed run lengths are damaged")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:  # the sign
            value -= 1 << shift
        lengths.append(value + lengths[-2] if len(lengths) > 2 else value)
        value = shift = 0
    if shift:
        raise ValueError("its compressed run lengths are cut short")
    return lengths


def brush_mask(data: list[Any], height: int, width: int) -> Runs:
    """Label Studio's brush: RGBA values in packed runs, of which alpha is the mask; a ValueError if it is damaged.

    A head of 32 bits (how many values), 5 (bits of a value, less one) and four times 4 (bits of a length, less one);
    then blocks: one bit whether a value is repeated, two bits which of the four sizes the length has, the length less
    one, and the value or values.
    """
    if any(isinstance(byte, bool) or not isinstance(byte, int) or not 0 <= byte <= 255 for byte in data):
        raise ValueError("its brush holds what is no byte")
    if not 0 < height * width <= _LARGEST:
        raise ValueError(f"its brush is for {width} x {height} pixels")
    bits = np.unpackbits(np.array(data, np.uint8))
    place = 0

    def take(count: int) -> int:
        nonlocal place
        if place + count > len(bits):
            raise ValueError("its brush is cut short")
        value = int("".join(map(str, bits[place : place + count])), 2)
        place += count
        return value

    total, word = take(32), take(5) + 1
    sizes = [take(4) + 1 for _ in range(4)]
    if total != height * width * 4 or word != 8:
        raise ValueError(
            f"its brush has {total} values, and {width} x {height} pixels of four have {height * width * 4}"
        )
    values = np.zeros(total, np.uint8)
    done = 0
    while done < total:
        repeated, size = take(1), sizes[take(2)]
        length = take(size) + 1
        if done + length > total:
            raise ValueError("its brush has more values than it says")
        if repeated:
            values[done : done + length] = take(word)
        else:
            values[done : done + length] = [take(word) for _ in range(length)]
        done += length
    inside = values.reshape(-1, 4)[:, 3] > 127
    edges = np.flatnonzero(np.diff(inside, prepend=False))
    counts = np.diff(np.concatenate([[0], edges, [len(inside)]]))
    return checked_runs(counts.tolist(), height, width, "C")
