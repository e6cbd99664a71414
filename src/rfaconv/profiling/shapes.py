"""The shapes that layers are measured at, and how they are written: the same in tables and on the command line."""

from __future__ import annotations

import re
from typing import NamedTuple

from rfaconv.errors import UserError


class LayerShape(NamedTuple):
    """A square convolution of [batch, in_channels, size, size] with padding kernel_size // 2."""

    batch: int
    in_channels: int
    out_channels: int
    size: int
    stride: int = 1
    kernel_size: int = 3

    def __str__(self) -> str:
        """ "8x64x56x56 to 128 s2 k5": the input; output channels if others, stride if not 1, kernel if not 3x3."""
        text = f"{self.batch}x{self.in_channels}x{self.size}x{self.size}"
        if self.out_channels != self.in_channels:
            text += f" to {self.out_channels}"
        if self.stride != 1:
            text += f" s{self.stride}"
        return text if self.kernel_size == 3 else f"{text} k{self.kernel_size}"

    @property
    def padding(self) -> int:
        return self.kernel_size // 2

    @property
    def out_size(self) -> int:
        """The height and width of the output."""
        return (self.size + 2 * self.padding - self.kernel_size) // self.stride + 1

    def check(self) -> None:
        """Raise a UserError if no layer can be trained at this shape."""
        if min(self) < 1:
            raise UserError(f"Shape '{self}': every number must be at least 1.")
        if self.batch * self.out_size**2 == 1:
            raise UserError(f"Shape '{self}' has one output value a channel: batch norm needs two or more to train.")


SHAPES = (
    # The four stages of a ResNet-18 at 224 px, the step between two of them, and two of single images.
    LayerShape(8, 64, 64, 56),
    LayerShape(8, 128, 128, 28),
    LayerShape(8, 256, 256, 14),
    LayerShape(8, 512, 512, 7),
    LayerShape(8, 64, 128, 56, 2),
    LayerShape(1, 64, 64, 56),
    LayerShape(1, 32, 64, 80, 2),
)

_WRITTEN = re.compile(r"(\d+)x(\d+)x(\d+)x(\d+)(?:to(\d+))?(?:s(\d+))?(?:k(\d+))?", re.ASCII)


def parse_shape(text: str) -> LayerShape:
    """The shape that `str` writes as `text`, with or without the spaces: "8x64x56x56 to 128 s2", "8x64x56x56k5".

    Raises:
        UserError: it is no shape, not a square one, or none that can be measured.
    """
    found = _WRITTEN.fullmatch("".join(text.split()))
    if found is None:
        raise UserError(
            f"'{text}' is no shape: write the input as BxCxHxW, e.g. 8x64x56x56, and behind it what differs from a 3x3 "
            "layer of C to C channels with stride 1, in this order: to128 (output channels), s2 (stride), k5 (kernel)."
        )
    batch, channels, height, width = (int(number) for number in found.groups()[:4])
    if height != width:
        raise UserError(
            f"Shape '{text}' is {height} high and {width} wide: inputs are square, BxCxHxW with H = W; for a layer of "
            f"{channels} to {height} channels write {batch}x{channels}x{width}x{width}to{height}."
        )
    out_channels, stride, kernel_size = found.groups()[4:]
    shape = LayerShape(batch, channels, int(out_channels or channels), height, int(stride or 1), int(kernel_size or 3))
    shape.check()
    return shape
