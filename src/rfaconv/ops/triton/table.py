"""Tables of coefficients, one for each tile of channels of a group: kernels/tiles.py says what their rows are."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from rfaconv.ops.triton.problem import TILE


def rows(taps: int) -> int:
    """Of a table."""
    return taps * (taps + 3) + 2


def empty_table(like: Tensor, channels: int, groups: int, taps: int) -> Tensor:
    """[tiles of all groups, rows, TILE] of zeros, on like's device: channels that are not there have zeros."""
    tiles = groups * math.ceil(channels // groups / TILE)
    return torch.zeros(tiles, rows(taps), TILE, device=like.device)


def filled_table(groups: int, taps: int, weights: Tensor, offsets: Tensor, means: Tensor | None = None) -> Tensor:
    """A table without attention, of weights [C, T, T] (of each feature's taps), offsets [C, T], means [C, T]."""
    channels = offsets.shape[0]
    attention = offsets.new_zeros(channels, taps + 2)
    means = offsets.new_zeros(channels, taps) if means is None else means
    of_channel = torch.cat([weights.reshape(channels, -1), offsets, attention, means], 1).view(groups, -1, rows(taps))
    padded = F.pad(of_channel.float(), (0, 0, 0, -of_channel.shape[1] % TILE))
    return padded.view(-1, TILE, rows(taps)).transpose(1, 2).contiguous()
