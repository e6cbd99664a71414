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


def table_of(
    groups: int, taps: int, weights: Tensor, offsets: Tensor, center: Tensor | None = None,
    tap_weight: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """The table [tiles of all groups, rows, TILE] of linear features, weighed by a softmax where there is a tap_weight.

    Args:
        weights: [C, T, T], of each feature's taps; offsets: [C, T], with the patches taken from their center.
        center: [C, T] or None. The kernels take its rounded values off, which the offsets make good.
        tap_weight: [C, T] or None.
    """
    channels = offsets.shape[0]
    attention = offsets.new_zeros(channels, taps + 2)
    if tap_weight is not None:
        scaled = (tap_weight * (math.log2(math.e) / taps)).to(offsets.dtype)
        attention = torch.cat([scaled, scaled.amax(1, keepdim=True), scaled.amin(1, keepdim=True)], 1)
    means = offsets.new_zeros(channels, taps)
    if center is not None:
        means = center.float()
        moved = weights.float().double() @ (means.double() - center).unsqueeze(2)
        offsets = offsets + moved.squeeze(2)
    of_channel = [weights.reshape(channels, -1), offsets, attention, means]
    table = torch.cat([part.float() for part in of_channel], 1).view(groups, -1, rows(taps))
    padded = F.pad(table, (0, 0, 0, -table.shape[1] % TILE))
    return padded.view(-1, TILE, rows(taps)).transpose(1, 2).contiguous()
