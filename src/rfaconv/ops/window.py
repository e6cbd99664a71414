"""The sliding window of a convolution: which taps each output position sees."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

from torch import Tensor

IntPair: TypeAlias = int | tuple[int, int]


def pair(value: IntPair, name: str) -> tuple[int, int]:
    """`value` twice if it is one int; a ValueError naming the argument if it is no int or pair of ints."""
    found = (value, value) if isinstance(value, int) else tuple(value)
    if len(found) != 2 or not all(isinstance(part, int) for part in found):
        raise ValueError(f"{name} must be an int or a pair of ints, got {value!r}")
    return found[0], found[1]


class Window(NamedTuple):
    """Kernel size, stride, padding and dilation, each as (vertical, horizontal)."""

    kernel_size: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)

    @classmethod
    def of(cls, kernel_size: IntPair, stride: IntPair, padding: IntPair, dilation: IntPair) -> Window:
        """A checked window from ints or pairs; a ValueError names the argument that is wrong."""
        window = cls(
            pair(kernel_size, "kernel_size"),
            pair(stride, "stride"),
            pair(padding, "padding"),
            pair(dilation, "dilation"),
        )
        for name, least in (("kernel_size", 1), ("stride", 1), ("padding", 0), ("dilation", 1)):
            if min(getattr(window, name)) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(window, name)}")
        return window

    @property
    def taps(self) -> int:
        """T: how many taps the kernel has."""
        return self.kernel_size[0] * self.kernel_size[1]


def output_size(x: Tensor, window: Window) -> tuple[int, int]:
    """Height and width of what `window` makes of x [B, C, H, W]."""
    return output_height_width(x.shape[2], x.shape[3], window)


def output_height_width(height: int, width: int, window: Window) -> tuple[int, int]:
    """The same from a height and a width."""
    kernel_size, stride, padding, dilation = window
    return (
        (height + 2 * padding[0] - dilation[0] * (kernel_size[0] - 1) - 1) // stride[0] + 1,
        (width + 2 * padding[1] - dilation[1] * (kernel_size[1] - 1) - 1) // stride[1] + 1,
    )
