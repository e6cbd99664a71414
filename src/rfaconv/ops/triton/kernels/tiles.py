"""What the kernels share: which elements a program holds, and the patch, attention and features of each.

A program holds a tile of Q*P pixels and C channels of one group, as a block of three dimensions:
    planes         [Q, C, P]: lanes along the pixels of a plane, warps along the channels (NCHW)
    channels last  [Q, P, C]: lanes along the channels, warps along the pixels
so that a thread holds Q pixels of the same few channels and loads a filter's weight once for all of them. An index over
channels is [1, C, 1] or [1, 1, C], one over pixels [Q, 1, P] or [Q, P, 1]; the arithmetic is the same for both.

The coefficients are rows of one number a channel, made by `norm.prepare`:
    T*T  weights, that of tap s in feature t in row t*T + s, the batch norm folded
    T    offsets of the features
    T    attention weights times log2(e) / T, so that exp2 of them times the patch's sum is what softmax wants
    2    the largest and the least of these
    T    means of the taps, which are taken off the patch before the filters see it (with batch statistics only)
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def channel_index(C: tl.constexpr, LAST: tl.constexpr):
    """0 to C-1 as [1, C, 1] or [1, 1, C]."""
    index = tl.arange(0, C)
    return index[None, None, :] if LAST else index[None, :, None]


@triton.jit
def pixel_index(Q: tl.constexpr, P: tl.constexpr, LAST: tl.constexpr):
    """0 to Q*P-1 as [Q, 1, P] or [Q, P, 1]."""
    index = tl.arange(0, Q)[:, None] * P + tl.arange(0, P)[None, :]
    return index[:, :, None] if LAST else index[:, None, :]


@triton.jit
def load_patch(
    x, channel, pixel, holds, height, width, out_height, out_width, stride_b, stride_c, stride_h, stride_w,
    WINDOW: tl.constexpr,
):  # fmt: skip
    """The taps' values in float32, a tuple of T blocks; zeros in the padding and where `holds` is false.

    pixel counts the output's places through images, rows and columns; channel counts all of x's.
    """
    KH: tl.constexpr = WINDOW[0]
    KW: tl.constexpr = WINDOW[1]
    column = (pixel % out_width) * WINDOW[3] - WINDOW[5]
    line = pixel // out_width
    row = (line % out_height) * WINDOW[2] - WINDOW[4]
    image = line // out_height
    # int64 before the first product: a batch may have more than 2^31 values.
    place = image.to(tl.int64) * stride_b + row.to(tl.int64) * stride_h + column.to(tl.int64) * stride_w
    base = x + (place + channel.to(tl.int64) * stride_c)
    patch = ()
    for i in tl.static_range(KH):
        for j in tl.static_range(KW):
            y = row + i * WINDOW[6]
            z = column + j * WINDOW[7]
            inside = (y >= 0) & (y < height) & (z >= 0) & (z < width)
            step = i * WINDOW[6] * stride_h + j * WINDOW[7] * stride_w
            patch = patch + (tl.load(base + step, mask=inside & holds, other=0.0).to(tl.float32),)
    return patch


@triton.jit
def attend(patch, coefficients, channel, known, channels, T: tl.constexpr):
    """Sum of the patch, largest logit and 1 / sum of exp2(logit - largest), of the softmax over the taps.

    The logits are multiples of the sum: the largest is at the largest or the least of the weights.
    """
    total = patch[0]
    for s in tl.static_range(1, T):
        total += patch[s]
    weights = coefficients + T * (T + 1) * channels + channel
    highest = tl.load(weights + T * channels, mask=known, other=0.0)
    lowest = tl.load(weights + (T + 1) * channels, mask=known, other=0.0)
    largest = tl.maximum(total * highest, total * lowest)
    below = tl.zeros_like(total)
    for t in range(T):
        below += tl.exp2(total * tl.load(weights + t * channels, mask=known, other=0.0) - largest)
    return total, largest, 1.0 / below


@triton.jit
def share(total, largest, scale, coefficients, channel, known, channels, t, T: tl.constexpr):
    """The attention to tap t, from what `attend` gave."""
    weight = tl.load(coefficients + (T * (T + 1) + t) * channels + channel, mask=known, other=0.0)
    return tl.exp2(total * weight - largest) * scale


@triton.jit
def centred(patch, coefficients, channel, known, channels, T: tl.constexpr):
    """The patch less the means of the taps."""
    means = coefficients + (T * (T + 2) + 2) * channels + channel
    moved = ()
    for s in tl.static_range(T):
        moved = moved + (patch[s] - tl.load(means + s * channels, mask=known, other=0.0),)
    return moved


@triton.jit
def linear_feature(patch, coefficients, channel, known, channels, t, T: tl.constexpr):
    """Feature t before the ReLU."""
    value = tl.load(coefficients + (T * T + t) * channels + channel, mask=known, other=0.0) + tl.zeros_like(patch[0])
    for s in tl.static_range(T):
        value += patch[s] * tl.load(coefficients + (t * T + s) * channels + channel, mask=known, other=0.0)
    return value
