"""Class probabilities for images of any size: padded, at several scales, mirrored, or window by window."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rfaconv.errors import UserError

MULTIPLE = 32
"""Every architecture takes sides that are multiples of this."""
LEAST = 64
"""Pixels of the smallest side a model is given: some architectures pool a smaller one to nothing."""


@dataclass(frozen=True)
class Manner:
    """How an image is looked at when it counts.

    Attributes:
        scales: sizes relative to the image's own; the probabilities are averaged.
        flip: look at the mirrored image too.
        window: images with a longer side than this many pixels are looked at in overlapping windows of this size, each
            moved by two thirds of it; None looks at all of it at once.
    """

    scales: tuple[float, ...] = (1.0,)
    flip: bool = False
    window: int | None = None

    def __post_init__(self) -> None:
        if not self.scales or not all(0.1 <= scale <= 8 for scale in self.scales):
            raise UserError(f"Scales lie between 0.1 and 8, e.g. 0.75,1,1.25; got {', '.join(map(str, self.scales))}.")
        if self.window is not None and self.window < LEAST:
            raise UserError(f"A window has at least {LEAST} pixels, got {self.window}.")


def logits_of(model: nn.Module, images: Tensor) -> Tensor:
    """[B, 3, H, W] to [B, classes, H, W]: padded to what the model takes (by the mean colour), and cut again."""
    height, width = images.shape[2:]
    tall, wide = (max(LEAST, -(-side // MULTIPLE) * MULTIPLE) for side in (height, width))
    if (tall, wide) != (height, width):
        images = nn.functional.pad(images, (0, wide - width, 0, tall - height))
    logits: Tensor = model(images)
    return logits[:, :, :height, :width]


def probabilities(model: nn.Module, images: Tensor, manner: Manner | None = None) -> Tensor:
    """Class probabilities [B, classes, H, W] of normalised images [B, 3, H, W], float32."""
    manner = manner or Manner()
    total: Tensor | None = None
    for scale in manner.scales:
        found = _at_scale(model, images, scale, manner.window)
        if manner.flip:
            found = (found + _at_scale(model, images.flip(3), scale, manner.window).flip(3)) / 2
        total = found if total is None else total + found
    assert total is not None
    return total / len(manner.scales)


def _at_scale(model: nn.Module, images: Tensor, scale: float, window: int | None) -> Tensor:
    height, width = images.shape[2:]
    if scale == 1:
        return _windowed(model, images, window)
    sides = max(1, round(height * scale)), max(1, round(width * scale))
    scaled = nn.functional.interpolate(images, sides, mode="bilinear", align_corners=False, antialias=True)
    found = _windowed(model, scaled, window)
    return nn.functional.interpolate(found, (height, width), mode="bilinear", align_corners=False)


def _windowed(model: nn.Module, images: Tensor, window: int | None) -> Tensor:
    height, width = images.shape[2:]
    if window is None or max(height, width) <= window:
        return logits_of(model, images).float().softmax(1)
    total, seen = None, images.new_zeros((1, 1, height, width))
    for rows in _spans(height, window):
        for columns in _spans(width, window):
            found = logits_of(model, images[:, :, rows, columns]).float().softmax(1)
            if total is None:
                total = found.new_zeros((len(images), found.shape[1], height, width))
            total[:, :, rows, columns] += found
            seen[:, :, rows, columns] += 1
    assert total is not None
    return total / seen


def _spans(length: int, window: int) -> Iterator[slice]:
    """Windows that cover `length`, the last one ending where it ends."""
    step = max(1, window * 2 // 3)
    start = 0
    while start + window < length:
        yield slice(start, start + window)
        start += step
    yield slice(max(0, length - window), length)


def colours(palette: Sequence[Sequence[int]], device: torch.device | str = "cpu") -> Tensor:
    """The palette as uint8 [256, 3], white for what does not count."""
    table = torch.full((256, 3), 255, dtype=torch.uint8, device=device)
    table[: len(palette)] = torch.tensor([list(colour) for colour in palette], dtype=torch.uint8, device=device)
    return table
