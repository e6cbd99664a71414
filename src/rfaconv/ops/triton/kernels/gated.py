"""Kernels for attentions of two gates (rfaconv.ops.gated): surveys of the features, and the operand they weigh."""

from __future__ import annotations

import triton
import triton.language as tl

from rfaconv.ops.triton.kernels.tiles import (
    FEW_TAPS,
    TILE,
    centred,
    channel_index,
    linear_feature,
    load_patch,
    pixel_index,
    place_in_table,
)


@triton.jit
def larger(a, b):
    """The larger of two, and NaN if one of them is."""
    return tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def survey_places(
    x, coefficients, largest, mean, pixels, channels, height, width, out_height, out_width, x_b, x_c, x_h, x_w,
    WINDOW: tl.constexpr, CENTRED: tl.constexpr, LAST: tl.constexpr, ROWS: tl.constexpr,
    Q: tl.constexpr, P: tl.constexpr,
):  # fmt: skip
    """largest and mean [B, T, h, w]: of each feature over the channels. Program (pixel tile, ROWS of the T taps)."""
    T: tl.constexpr = WINDOW[0] * WINDOW[1]
    row = tl.program_id(1) * ROWS
    pixel = tl.program_id(0) * (Q * P) + pixel_index(Q, P, LAST)
    inside = pixel < pixels
    most = ()
    sums = ()
    for _ in tl.static_range(ROWS):  # features are not below 0, and those of channels that are not there are 0
        most = most + (tl.zeros([Q, P, TILE] if LAST else [Q, TILE, P], tl.float32),)
        sums = sums + (tl.zeros([Q, P, TILE] if LAST else [Q, TILE, P], tl.float32),)
    for begin in range(0, channels, TILE):
        channel = begin + channel_index(TILE, LAST)
        known = channel < channels
        patch = load_patch(
            x, channel, pixel, inside & known, height, width, out_height, out_width, x_b, x_c, x_h, x_w, WINDOW
        )
        table = coefficients + place_in_table(0, channel, channels, T)
        if CENTRED:
            patch = centred(patch, table, T)
        most_so_far = ()
        sums_so_far = ()
        for r in tl.static_range(ROWS):
            feature = larger(linear_feature(patch, table, row + r, T), 0.0)
            most_so_far = most_so_far + (larger(most[r], feature),)
            sums_so_far = sums_so_far + (sums[r] + feature,)
        most = most_so_far
        sums = sums_so_far
    AXIS: tl.constexpr = 2 if LAST else 1
    plane = out_height * out_width
    place = (pixel // plane).to(tl.int64) * (T * plane) + pixel % plane
    for r in tl.static_range(ROWS):
        to = place + (row + r) * plane
        holds = inside & (row + r + tl.zeros_like(pixel) < T)
        tl.store(largest + to, tl.reduce(most[r], AXIS, larger, keep_dims=True), mask=holds)
        tl.store(mean + to, tl.sum(sums[r], AXIS, keep_dims=True) / channels, mask=holds)


@triton.jit
def survey_lines(
    x, coefficients, means, channels, height, width, out_height, out_width, x_b, x_c, x_h, x_w,
    WINDOW: tl.constexpr, CENTRED: tl.constexpr, LAST: tl.constexpr, ROWS: tl.constexpr,
    P: tl.constexpr,
):  # fmt: skip
    """Means of the map of taps over its rows [B, C, kh, h] (ROWS), or over its columns [B, C, kw, w].

    Program (image and line of the output, or image and P lines; channel tile). A row is walked in steps of P pixels,
    P columns are walked down in steps of one.
    """
    KH: tl.constexpr = WINDOW[0]
    KW: tl.constexpr = WINDOW[1]
    T: tl.constexpr = KH * KW
    KEPT: tl.constexpr = KH if ROWS else KW
    channel = tl.program_id(1) * TILE + channel_index(TILE, LAST)
    known = channel < channels
    lines = out_height if ROWS else tl.cdiv(out_width, P)
    image = tl.program_id(0) // lines
    line = tl.program_id(0) % lines
    steps = tl.cdiv(out_width, P) if ROWS else out_height
    table = coefficients + place_in_table(0, channel, channels, T)
    sums = ()
    for _ in tl.static_range(KEPT):
        sums = sums + (tl.zeros([1, P, TILE] if LAST else [1, TILE, P], tl.float32),)
    for step in range(steps):
        column = (step if ROWS else line) * P + pixel_index(1, P, LAST)
        row = line if ROWS else step
        holds = known & (column < out_width)
        pixel = (image * out_height + row) * out_width + column
        patch = load_patch(x, channel, pixel, holds, height, width, out_height, out_width, x_b, x_c, x_h, x_w, WINDOW)
        if CENTRED:
            patch = centred(patch, table, T)
        sums_so_far = ()
        for kept in tl.static_range(KEPT):
            total = tl.zeros_like(sums[kept])
            if T <= FEW_TAPS:
                for other in tl.static_range(T // KEPT):
                    t = kept * KW + other if ROWS else other * KW + kept
                    total += larger(linear_feature(patch, table, t, T), 0.0)
            else:
                for other in range(T // KEPT):
                    t = kept * KW + other if ROWS else other * KW + kept
                    total += larger(linear_feature(patch, table, t, T), 0.0)
            sums_so_far = sums_so_far + (sums[kept] + tl.where(holds, total, 0.0),)
        sums = sums_so_far
    first = (image.to(tl.int64) * channels + channel) * KEPT
    for kept in tl.static_range(KEPT):
        if ROWS:
            total = tl.sum(sums[kept], 1 if LAST else 2, keep_dims=True)
            tl.store(means + ((first + kept) * out_height + line), total / (KW * out_width), mask=known)
        else:
            column = line * P + pixel_index(1, P, LAST)
            holds = known & (column < out_width)
            tl.store(means + ((first + kept) * out_width + column), sums[kept] / (KH * out_height), mask=holds)


@triton.jit
def generate_gated(
    x, coefficients, gate, other_gate, z, begin, end, channels, group_channels, height, width, out_height, out_width,
    x_b, x_c, x_h, x_w, z_g, z_t, z_c, z_n,
    WINDOW: tl.constexpr, CENTRED: tl.constexpr, PLACES: tl.constexpr, LAST: tl.constexpr,
    Q: tl.constexpr, P: tl.constexpr,
):  # fmt: skip
    """z [group, T, group_channels, n]: the features of the pixels from begin to end, times both gates.

    With PLACES the gates are [B, C] and [B, T, h, w], else [B, C, kh, h] and [B, C, kw, w]. Program (pixel tile,
    channel tile, group).
    """
    KH: tl.constexpr = WINDOW[0]
    KW: tl.constexpr = WINDOW[1]
    T: tl.constexpr = KH * KW
    group = tl.program_id(2)
    here = tl.program_id(0) * (Q * P) + pixel_index(Q, P, LAST)
    local = tl.program_id(1) * TILE + channel_index(TILE, LAST)
    known = local < group_channels
    channel = group * group_channels + local
    pixel = begin + here
    inside = here < end - begin
    holds = known & inside
    patch = load_patch(x, channel, pixel, holds, height, width, out_height, out_width, x_b, x_c, x_h, x_w, WINDOW)
    table = coefficients + place_in_table(group, local, group_channels, T)
    if CENTRED:
        patch = centred(patch, table, T)
    plane = out_height * out_width
    image = (pixel // plane).to(tl.int64)
    of_channel = image * channels + channel
    row = pixel % plane // out_width
    column = pixel % out_width
    to = z + (group.to(tl.int64) * z_g + local.to(tl.int64) * z_c + here.to(tl.int64) * z_n)
    if PLACES:
        first = gate + of_channel
        second = other_gate + (image * (T * plane) + pixel % plane)
    else:
        first = gate + (of_channel * (KH * out_height) + row)
        second = other_gate + (of_channel * (KW * out_width) + column)
    if T <= FEW_TAPS:
        for t in tl.static_range(T):
            value = gated(patch, table, first, second, t, holds, inside, plane, out_height, out_width, PLACES, WINDOW)
            tl.store(to + t * z_t, value, mask=holds)
    else:
        for t in range(T):
            value = gated(patch, table, first, second, t, holds, inside, plane, out_height, out_width, PLACES, WINDOW)
            tl.store(to + t * z_t, value, mask=holds)


@triton.jit
def gated(
    patch, table, first, second, t, holds, inside, plane, out_height, out_width, PLACES: tl.constexpr,
    WINDOW: tl.constexpr,
):  # fmt: skip
    """Feature t times both gates, which lie at `first` and `second` for the first tap."""
    T: tl.constexpr = WINDOW[0] * WINDOW[1]
    value = larger(linear_feature(patch, table, t, T), 0.0)
    if PLACES:
        value *= tl.load(first, mask=holds, other=0.0)
        value *= tl.load(second + t * plane, mask=inside, other=0.0)
    else:
        value *= tl.load(first + t // WINDOW[1] * out_height, mask=holds, other=0.0)
        value *= tl.load(second + t % WINDOW[1] * out_width, mask=holds, other=0.0)
    return value
