"""The sizes of one call, the tiles that programs hold, and the chunks in which large calls are computed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

from torch import Tensor

from rfaconv.ops.window import Window, output_height_width

MOST_TAPS = 64
"""Of a kernel: a program keeps all taps of its pixels in registers, and T x T float64 matrices for a channel."""

TILE = 16
"""Channels of a program, and of a table of coefficients."""

JOINED = 4
"""Taps that `convolve` multiplies at once."""

FEW_TAPS = 9
"""So many are kept in registers and unrolled; of more taps, attention and sums are computed when they are needed."""

MOST_FUSED_OUTPUTS = 128
"""Of a group, that one program makes: with more, another would have to generate the same operand."""

MOST_FUSED_TAPS = 25
"""With more, the kernel that does both takes minutes to compile, and the operand alone seconds."""

OPERAND_BYTES = 24 * 2**20
"""Of the operand that is made for a library's product: it should still lie in the second cache (H100: 50 MB) then."""

GRADIENT_BYTES = 16 * 2**20
"""The same backward, where there are three such buffers."""


class Problem(NamedTuple):
    """The sizes of a call: x [batch, channels, height, width], out [batch, outputs, out_height, out_width]."""

    batch: int
    channels: int
    height: int
    width: int
    outputs: int
    out_height: int
    out_width: int
    groups: int
    window: tuple[int, ...]
    """Kernel size, stride, padding and dilation: eight numbers, each pair vertical first."""
    last: bool
    """Whether channels are neighbours in x's memory, rather than columns."""

    @classmethod
    def of(cls, x: Tensor, window: Window, outputs: int = 1, groups: int = 1) -> Problem:
        """The sizes of a call on x.

        Raises:
            ValueError: an argument is not one that the kernels take; the message names it.
        """
        if x.dim() != 4:
            raise ValueError(f"input must have 4 dimensions, has {x.dim()}")
        if any(len(part) != 2 for part in window):
            raise ValueError(f"kernel_size, stride, padding and dilation must be pairs, got {window}")
        kernel_size, stride, padding, dilation = window = Window.of(*map(tuple, window))  # type: ignore[arg-type]
        if window.taps > MOST_TAPS:
            raise ValueError(f"the Triton kernels take at most {MOST_TAPS} taps, got {window.taps}")
        if groups < 1 or x.shape[1] % groups or outputs % groups:
            raise ValueError(f"groups={groups} must divide {x.shape[1]} channels and {outputs} outputs")
        size = output_height_width(x.shape[2], x.shape[3], window)
        if min(size) < 1:
            raise ValueError("the kernel is larger than the padded input")
        batch, channels, height, width = x.shape
        last = x.stride(1) == 1 and channels > 1
        flat = (*kernel_size, *stride, *padding, *dilation)
        return cls(batch, channels, height, width, outputs, *size, groups, flat, last)

    @property
    def taps(self) -> int:
        return self.window[0] * self.window[1]

    @property
    def plane(self) -> int:
        """Output pixels of an image."""
        return self.out_height * self.out_width

    @property
    def pixels(self) -> int:
        """Output pixels of all images."""
        return self.batch * self.plane

    @property
    def group_channels(self) -> int:
        return self.channels // self.groups

    @property
    def group_outputs(self) -> int:
        return self.outputs // self.groups

    @property
    def planes(self) -> tuple[int, int, int, int]:
        """Height and width of input and output, as the kernels take them."""
        return self.height, self.width, self.out_height, self.out_width

    def operand(self, like: Tensor, pixels: int, some_channels: int) -> Tensor:
        """An empty [groups, T, some_channels, pixels] of like's dtype, laid out as x is."""
        if self.last:
            return like.new_empty(self.groups, pixels, self.taps, some_channels).permute(0, 2, 3, 1)
        return like.new_empty(self.groups, self.taps, some_channels, pixels)


class Finish(NamedTuple):
    """What happens to the sums [O, ...] before they are written: act((sums + bias) * scale + shift).

    bias, scale and shift are [O] in float32 or None, act is a place in `rfaconv.ops.epilogue.ACTS`.
    """

    bias: Tensor | None
    scale: Tensor | None
    shift: Tensor | None
    act: int


class Tile(NamedTuple):
    """What a program holds: Q * P pixels of `TILE` channels, or of one; by how many warps."""

    q: int
    p: int
    warps: int


def element_tile(problem: Problem) -> Tile:
    """For kernels that hold the patches of TILE channels and of some pixels: four values a thread, fewer of many taps.

    Not tuned, as no GPU was at hand: chosen so that nothing spills and the compiler's instructions are few
    (docs/kernels.md has the figures).
    """
    if problem.taps > 25:
        return Tile(1, 16, 8)
    if problem.taps > FEW_TAPS:
        return Tile(2, 16, 8)
    return Tile(4, 16, 8) if problem.last else Tile(2, 32, 8)


def gradient_tile(problem: Problem) -> Tile:
    """For `differentiate`, whose registers leave room for eight warps a processor: two programs rather than one."""
    if problem.taps > FEW_TAPS:
        return Tile(1, 16, 8)
    return Tile(4, 8, 4) if problem.last else Tile(2, 16, 4)


def fused_tile(problem: Problem) -> tuple[Tile, int]:
    """For the kernel that generates and multiplies at once, and how many outputs a program makes. Not tuned either.

    Of programs with few outputs a processor holds two or three, of which one computes while another waits for its
    product; with many outputs, small programs would fetch the weight too often.
    """
    outputs = min(MOST_FUSED_OUTPUTS, max(16, 1 << (problem.group_outputs - 1).bit_length()))
    if problem.taps > FEW_TAPS:
        return Tile(1, 32, 8), outputs
    return Tile(4, 8, 4) if outputs <= 64 else Tile(4, 16, 8), outputs


class Chunk(NamedTuple):
    """Images [first_image, first_image + images) and, of each group, some channels from first_channel on."""

    first_image: int
    images: int
    first_channel: int
    some_channels: int


def chunks(problem: Problem, itemsize: int, most_bytes: int) -> Iterator[Chunk]:
    """Whole images whose operand has at most `most_bytes`; where one image has more, some channels of one."""
    an_image = problem.plane * problem.channels * problem.taps * itemsize
    images = min(problem.batch, max(1, most_bytes // an_image))
    pieces = math.ceil(an_image / most_bytes) if images == 1 else 1
    # In whole tiles, but all where that is not even one.
    some = min(problem.group_channels, TILE * max(1, math.ceil(problem.group_channels / pieces) // TILE))
    for image in range(0, problem.batch, images):
        for channel in range(0, problem.group_channels, some):
            yield Chunk(image, min(images, problem.batch - image), channel, min(some, problem.group_channels - channel))


def gradient_bytes(x: Tensor) -> int:
    """Of each buffer of the backward pass: a small part of x, so that a step needs little more memory than Conv2d's."""
    return max(2**20, min(GRADIENT_BYTES, x.numel() * x.element_size() // 6))
