"""What the kernels share: which elements a program holds, and the patch, attention and features of each.

A program holds a tile of Q*P pixels and C channels of one group, as a block of three dimensions:
    planes         [Q, C, P]: lanes along the pixels of a plane, warps along the channels (NCHW)
    channels last  [Q, P, C]: lanes along the channels, warps along the pixels
so that a thread holds Q pixels of the same few channels and loads a filter's weight once for all of them. An index over
channels is [1, C, 1] or [1, 1, C], one over pixels [Q, 1, P] or [Q, P, 1]; the arithmetic is the same for both.

The coefficients of a tile are a table [ROWS, TILE], which `table.table_of` makes: a row is one number of each of its
channels, so that all rows lie at distances known to the compiler, and nothing is masked:
    T*T  weights, that of tap s in feature t in row t*T + s, the batch norm folded
    T    offsets of the features
    T    attention weights times log2(e) / T, so that exp2 of them times the patch's sum is what softmax wants
    2    the largest and the least of these
    T    means of the taps, which are taken off the patch before the filters see it (with batch statistics only)
"""

from __future__ import annotations

import triton
import triton.language as tl

from rfaconv.ops.triton import problem

# As the kernels want what the host says of them.
TILE = tl.constexpr(problem.TILE)
JOINED = tl.constexpr(problem.JOINED)
FEW_TAPS = tl.constexpr(problem.FEW_TAPS)


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
def place_in_table(group, local, group_channels, T: tl.constexpr):
    """Where the first row has its number for channel `local` of a group; the next row's is TILE further."""
    tile = group * tl.cdiv(group_channels, TILE) + local // TILE
    return tile * ((T * (T + 3) + 2) * TILE) + local % TILE


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
            inside = below(row + i * WINDOW[6], height) & below(column + j * WINDOW[7], width)
            step = i * WINDOW[6] * stride_h + j * WINDOW[7] * stride_w
            patch = patch + (tl.load(base + step, mask=inside & holds, other=0.0).to(tl.float32),)
    return patch


@triton.jit
def below(place, size):
    """0 <= place < size, by one comparison: what is negative is large without its sign."""
    return place.to(tl.uint32, bitcast=True) < size


@triton.jit
def power_of_two(exponent):
    """2 ** exponent by the GPU's own approximation, of two units in the last place; what is denormal is 0.

    tl.exp2 spends four more instructions on results below 2^-126.
    """
    return tl.inline_asm_elementwise("ex2.approx.ftz.f32 $0, $1;", "=f,f", [exponent], tl.float32, True, 1)


@triton.jit
def reciprocal(value):
    """1 / value, rounded to one unit in the last place; a division takes ten instructions."""
    return tl.inline_asm_elementwise("rcp.approx.ftz.f32 $0, $1;", "=f,f", [value], tl.float32, True, 1)


@triton.jit
def made_once(values):
    """The values; to the compiler a riddle, which it must not solve twice.

    It would rather compute an operand in two layouts than exchange it between the threads, in kernels for sm_80.
    """
    if values.dtype == tl.float32:
        return tl.inline_asm_elementwise("mov.b32 $0, $1;", "=r,r", [values], values.dtype, False, 1)
    return tl.inline_asm_elementwise("mov.b32 $0, $1;", "=r,r", [values], values.dtype, False, 2)


@triton.jit
def attend(patch, table, T: tl.constexpr):
    """Sum of the patch, and of the softmax over the taps: largest logit, 1 / sum of powers, and few powers themselves.

    The logits are multiples of the sum: the largest is at the largest or the least of the weights.
    """
    total = patch[0]
    for s in tl.static_range(1, T):
        total += patch[s]
    highest = tl.load(table + T * (T + 2) * TILE)
    lowest = tl.load(table + (T * (T + 2) + 1) * TILE)
    largest = tl.maximum(total * highest, total * lowest)
    powers = ()
    sum = tl.zeros_like(total)
    if T <= FEW_TAPS:
        for t in tl.static_range(T):
            power = power_of_two(total * tl.load(table + (T * (T + 1) + t) * TILE) - largest)
            sum += power
            powers = powers + (power,)
    else:
        for t in range(T):
            sum += power_of_two(total * tl.load(table + (T * (T + 1) + t) * TILE) - largest)
    return total, largest, reciprocal(sum), powers


@triton.jit
def share(attention, table, t, T: tl.constexpr):
    """The attention to tap t, from what `attend` gave."""
    if T <= FEW_TAPS:
        power = attention[3][t]
    else:
        power = power_of_two(attention[0] * tl.load(table + (T * (T + 1) + t) * TILE) - attention[1])
    return power * attention[2]


@triton.jit
def centred(patch, table, T: tl.constexpr):
    """The patch less the means of the taps."""
    moved = ()
    for s in tl.static_range(T):
        moved = moved + (patch[s] - tl.load(table + (T * (T + 2) + 2 + s) * TILE),)
    return moved


@triton.jit
def linear_feature(patch, table, t, T: tl.constexpr):
    """Feature t before the ReLU."""
    value = tl.load(table + (T * T + t) * TILE) + tl.zeros_like(patch[0])
    for s in tl.static_range(T):
        value += patch[s] * tl.load(table + (t * T + s) * TILE)
    return value
