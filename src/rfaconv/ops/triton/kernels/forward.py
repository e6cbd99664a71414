"""Kernels of the forward pass: generated operand and product in one, or the operand alone for a chunk of pixels."""

from __future__ import annotations

import triton
import triton.language as tl

from rfaconv.ops.triton.kernels.tiles import (
    attend,
    centred,
    channel_index,
    linear_feature,
    load_patch,
    pixel_index,
    share,
)


@triton.jit
def convolve(
    x, coefficients, weight, bias, scale, shift, out,
    pixels, channels, group_channels, group_outputs, height, width, out_height, out_width,
    x_b, x_c, x_h, x_w, out_b, out_c, out_h, out_w,
    WINDOW: tl.constexpr, CENTRED: tl.constexpr, ACT: tl.constexpr, LAST: tl.constexpr, PRECISION: tl.constexpr,
    Q: tl.constexpr, P: tl.constexpr, C: tl.constexpr, O: tl.constexpr,
):  # fmt: skip
    """out = act((weight @ z + bias) * scale + shift) for Q*P pixels and O outputs of a group.

    Program (pixel tile, output tile, group). weight is [outputs, T, group_channels] in x's dtype, in which z goes into
    the product; sums are float32. bias, scale and shift are [outputs] in float32 or None. ACT: 0 none, 1 relu, 2 silu.
    """
    T: tl.constexpr = WINDOW[0] * WINDOW[1]
    group = tl.program_id(2)
    output = tl.program_id(1) * O + tl.arange(0, O)
    weights_here = output < group_outputs
    output += group * group_outputs
    first = tl.program_id(0) * (Q * P)
    pixel = first + pixel_index(Q, P, LAST)
    inside = pixel < pixels
    sums = tl.zeros([Q * P, O] if LAST else [O, Q * P], tl.float32)
    for begin in range(0, group_channels, C):
        local = begin + channel_index(C, LAST)
        known = local < group_channels
        channel = group * group_channels + local
        patch = load_patch(
            x, channel, pixel, inside & known, height, width, out_height, out_width, x_b, x_c, x_h, x_w, WINDOW
        )
        total, largest, below = attend(patch, coefficients, channel, known, channels, T)
        if CENTRED:
            patch = centred(patch, coefficients, channel, known, channels, T)
        flat = begin + tl.arange(0, C)
        for t in range(T):
            feature = linear_feature(patch, coefficients, channel, known, channels, t, T)
            feature = tl.maximum(feature, 0.0, propagate_nan=tl.PropagateNan.ALL)
            z = feature * share(total, largest, below, coefficients, channel, known, channels, t, T)
            z = z.to(x.dtype.element_ty)
            if LAST:
                place = (output * T + t)[None, :] * group_channels + flat[:, None]
                k = tl.load(weight + place, mask=weights_here[None, :] & (flat < group_channels)[:, None], other=0.0)
                sums = tl.dot(tl.reshape(z, (Q * P, C)), k, sums, input_precision=PRECISION)
            else:
                place = (output * T + t)[:, None] * group_channels + flat[None, :]
                k = tl.load(weight + place, mask=weights_here[:, None] & (flat < group_channels)[None, :], other=0.0)
                z = tl.reshape(tl.permute(z, (1, 0, 2)), (C, Q * P))
                sums = tl.dot(k, z, sums, input_precision=PRECISION)
    position = first + tl.arange(0, Q * P)
    if LAST:
        store_outputs(
            sums, bias, scale, shift, out, position[:, None], output[None, :], weights_here[None, :], pixels,
            out_height, out_width, out_b, out_c, out_h, out_w, ACT,
        )  # fmt: skip
    else:
        store_outputs(
            sums, bias, scale, shift, out, position[None, :], output[:, None], weights_here[:, None], pixels,
            out_height, out_width, out_b, out_c, out_h, out_w, ACT,
        )  # fmt: skip


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
    Q: tl.constexpr, P: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    """z [group, T, some_channels, n] of the pixels from begin to end and, of each group, some channels.

    Program (pixel tile, channel tile, group). Without ATTEND: the features alone, without attention and ReLU.
    """
    T: tl.constexpr = WINDOW[0] * WINDOW[1]
    group = tl.program_id(2)
    here = tl.program_id(0) * (Q * P) + pixel_index(Q, P, LAST)
    local = tl.program_id(1) * C + channel_index(C, LAST)
    known = local < some_channels
    channel = group * group_channels + first_channel + local
    holds = known & (here < end - begin)
    patch = load_patch(
        x, channel, begin + here, holds, height, width, out_height, out_width, x_b, x_c, x_h, x_w, WINDOW
    )
    if ATTEND:
        total, largest, below = attend(patch, coefficients, channel, known, channels, T)
    if CENTRED:
        patch = centred(patch, coefficients, channel, known, channels, T)
    to = z + (group.to(tl.int64) * z_g + local.to(tl.int64) * z_c + here.to(tl.int64) * z_n)
    for t in range(T):
        value = linear_feature(patch, coefficients, channel, known, channels, t, T)
        if ATTEND:
            value = tl.maximum(value, 0.0, propagate_nan=tl.PropagateNan.ALL)
            value *= share(total, largest, below, coefficients, channel, known, channels, t, T)
        tl.store(to + t * z_t, value, mask=holds)
