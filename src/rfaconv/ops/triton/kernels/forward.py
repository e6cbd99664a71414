"""Kernels of the forward pass: generated operand and product in one, or the operand alone for a chunk of pixels."""

from __future__ import annotations

import triton
import triton.language as tl

from rfaconv.ops.triton.kernels.tiles import (
    FEW_TAPS,
    JOINED,
    TILE,
    attend,
    centred,
    channel_index,
    linear_feature,
    load_patch,
    made_once,
    pixel_index,
    place_in_table,
    share,
)


@triton.jit
def convolve(
    x, coefficients, weight, bias, scale, shift, out,
    pixels, channels, group_channels, group_outputs, height, width, out_height, out_width,
    x_b, x_c, x_h, x_w, out_b, out_c, out_h, out_w,
    WINDOW: tl.constexpr, CENTRED: tl.constexpr, ACT: tl.constexpr, LAST: tl.constexpr, PRECISION: tl.constexpr,
    Q: tl.constexpr, P: tl.constexpr, O: tl.constexpr,
):  # fmt: skip
    """out = act((weight @ z + bias) * scale + shift) for Q*P pixels and O outputs of a group.

    Program (pixel tile, output tile, group). weight is [outputs, tiles of channels, T * TILE] in x's dtype, in which z
    goes into the product, and of `JOINED`'s order; sums are float32. bias, scale and shift are [outputs] in float32 or
    None. ACT: 0 none, 1 relu, 2 silu.
    """
    T: tl.constexpr = WINDOW[0] * WINDOW[1]
    group = tl.program_id(2)
    output = tl.program_id(1) * O + tl.arange(0, O)
    weights_here = output < group_outputs
    tiles = tl.cdiv(group_channels, TILE)
    # Of outputs that are not there any weights will do: their sums are not stored.
    of_output = weight + (group * group_outputs + tl.minimum(output, group_outputs - 1)) * (tiles * (T * TILE))
    output += group * group_outputs
    first = tl.program_id(0) * (Q * P)
    pixel = first + pixel_index(Q, P, LAST)
    inside = pixel < pixels
    sums = tl.zeros([O, Q * P], tl.float32)
    for tile in tl.range(tiles, num_stages=1):
        local = tile * TILE + channel_index(TILE, LAST)
        channel = group * group_channels + local
        holds = inside & (local < group_channels)
        patch = load_patch(x, channel, pixel, holds, height, width, out_height, out_width, x_b, x_c, x_h, x_w, WINDOW)
        table = coefficients + place_in_table(group, local, group_channels, T)
        attention = attend(patch, table, T)
        if CENTRED:
            patch = centred(patch, table, T)
        of_tile = of_output + tile * (T * TILE)
        if T <= FEW_TAPS:
            for n in tl.static_range(T // JOINED):
                sums = multiply_joined(
                    patch, attention, table, of_tile, sums, n, x.dtype.element_ty, T, LAST, PRECISION
                )
        else:
            for n in range(T // JOINED):
                sums = multiply_joined(
                    patch, attention, table, of_tile, sums, n, x.dtype.element_ty, T, LAST, PRECISION
                )
        for t in tl.static_range(T // JOINED * JOINED, T):
            z = made_once(operand(patch, attention, table, t, True, T).to(x.dtype.element_ty))
            sums = multiply(z, of_tile + t * TILE, sums, TILE, LAST, PRECISION)
    store_outputs(
        sums, bias, scale, shift, out, first + tl.arange(0, Q * P)[None, :], output[:, None], weights_here[:, None],
        pixels, out_height, out_width, out_b, out_c, out_h, out_w, ACT,
    )  # fmt: skip


@triton.jit
def multiply_joined(
    patch, attention, table, weight, sums, n, dtype: tl.constexpr, T: tl.constexpr, LAST: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """sums plus the products of the n-th JOINED taps, by one product of TILE * JOINED terms."""
    z = ()
    for t in tl.static_range(JOINED):
        z = z + (made_once(operand(patch, attention, table, n * JOINED + t, True, T).to(dtype)),)
    low = tl.join(tl.join(z[0], z[1]), tl.join(z[2], z[3]))
    return multiply(low, weight + n * (JOINED * TILE), sums, JOINED * TILE, LAST, PRECISION)


@triton.jit
def multiply(z, weight, sums, K: tl.constexpr, LAST: tl.constexpr, PRECISION: tl.constexpr):
    """sums plus the product with z, a block of pixels and TILE channels, and of taps if it has further dimensions."""
    if LAST:
        z = tl.permute(z, (2, 4, 3, 0, 1)) if K > TILE else tl.permute(z, (2, 0, 1))
    else:
        z = tl.permute(z, (1, 4, 3, 0, 2)) if K > TILE else tl.permute(z, (1, 0, 2))
    kernel = tl.load(weight[:, None] + tl.arange(0, K)[None, :])
    return tl.dot(kernel, tl.reshape(z, (K, sums.shape[1])), sums, input_precision=PRECISION)


@triton.jit
def store_outputs(
    sums, bias, scale, shift, out, pixel, output, known, pixels, out_height, out_width, out_b, out_c, out_h, out_w,
    ACT: tl.constexpr,
):  # fmt: skip
    """Write the sums of `pixel` and `output` (index blocks that broadcast to theirs) through the epilogue."""
    if bias is not None:
        sums += tl.load(bias + output, mask=known, other=0.0)
    if scale is not None:
        sums *= tl.load(scale + output, mask=known, other=0.0)
    if shift is not None:
        sums += tl.load(shift + output, mask=known, other=0.0)
    if ACT == 1:
        sums = tl.maximum(sums, 0.0, propagate_nan=tl.PropagateNan.ALL)
    if ACT == 2:
        sums = sums / (1.0 + tl.exp2(sums * -1.4426950408889634))
    line = pixel // out_width
    place = (line // out_height).to(tl.int64) * out_b + (line % out_height).to(tl.int64) * out_h
    place += (pixel % out_width).to(tl.int64) * out_w
    tl.store(out + (place + output.to(tl.int64) * out_c), sums, mask=(pixel < pixels) & known)


@triton.jit
def finish(
    sums, bias, scale, shift, out, begin, end, outputs, out_height, out_width,
    sums_o, sums_n, out_b, out_c, out_h, out_w,
    ACT: tl.constexpr, O: tl.constexpr, P: tl.constexpr,
):  # fmt: skip
    """The epilogue of `convolve` for the pixels from begin to end, whose sums a library has made: [outputs, n]."""
    here = tl.program_id(0) * P + tl.arange(0, P)[None, :]
    output = tl.program_id(1) * O + tl.arange(0, O)[:, None]
    known = (output < outputs) & (here < end - begin)
    values = tl.load(sums + output.to(tl.int64) * sums_o + here.to(tl.int64) * sums_n, mask=known, other=0.0)
    store_outputs(
        values.to(tl.float32), bias, scale, shift, out, begin + here, output, known, end,
        out_height, out_width, out_b, out_c, out_h, out_w, ACT,
    )  # fmt: skip


@triton.jit
def generate(
    x, coefficients, z, begin, end, channels, group_channels, some_channels, first_channel,
    height, width, out_height, out_width, x_b, x_c, x_h, x_w, z_g, z_t, z_c, z_n,
    WINDOW: tl.constexpr, CENTRED: tl.constexpr, ATTEND: tl.constexpr, LAST: tl.constexpr,
    Q: tl.constexpr, P: tl.constexpr,
):  # fmt: skip
    """z [group, T, some_channels, n] of the pixels from begin to end and, of each group, some channels.

    Program (pixel tile, channel tile, group). Without ATTEND: the features alone, without attention and ReLU.
    """
    T: tl.constexpr = WINDOW[0] * WINDOW[1]
    group = tl.program_id(2)
    here = tl.program_id(0) * (Q * P) + pixel_index(Q, P, LAST)
    local = tl.program_id(1) * TILE + channel_index(TILE, LAST)
    channel = group * group_channels + first_channel + local
    holds = (local < some_channels) & (here < end - begin)
    patch = load_patch(
        x, channel, begin + here, holds, height, width, out_height, out_width, x_b, x_c, x_h, x_w, WINDOW
    )
    table = coefficients + place_in_table(group, first_channel + local, group_channels, T)
    attention = attend(patch, table, T) if ATTEND else ()
    if CENTRED:
        patch = centred(patch, table, T)
    to = z + (group.to(tl.int64) * z_g + local.to(tl.int64) * z_c + here.to(tl.int64) * z_n)
    if T <= FEW_TAPS:
        for t in tl.static_range(T):
            tl.store(to + t * z_t, operand(patch, attention, table, t, ATTEND, T), mask=holds)
    else:
        for t in range(T):
            tl.store(to + t * z_t, operand(patch, attention, table, t, ATTEND, T), mask=holds)


@triton.jit
def operand(patch, attention, table, t, ATTEND: tl.constexpr, T: tl.constexpr):
    """Of tap t the feature times its attention; without ATTEND the feature before its ReLU."""
    value = linear_feature(patch, table, t, T)
    if ATTEND:
        value = tl.maximum(value, 0.0, propagate_nan=tl.PropagateNan.ALL) * share(attention, table, t, T)
    return value
