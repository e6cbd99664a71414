"""Sums over pixels of products with the patches: the moments of x, and what the batch statistics need backward.

Lanes stand side by side in the output's columns, through all images, and walk down: what depends on the column alone is
found once, and only what is left of it costs something at each pixel.
"""

from __future__ import annotations

import triton
import triton.language as tl

from rfaconv.ops.triton.kernels.tiles import FEW_TAPS, TILE, below, place_in_table


@triton.jit
def add_products(
    x, factors, coefficients, out, first_image, images, units, segment, channels, group_channels, some_channels,
    first_channel, height, width, out_height, out_width, x_b, x_c, x_h, x_w, z_g, z_t, z_c, z_n,
    WINDOW: tl.constexpr, ROWS: tl.constexpr, P: tl.constexpr, C: tl.constexpr, DTYPE: tl.constexpr,
    TOTAL: tl.constexpr,
):  # fmt: skip
    """out [splits, channels, T + T*T] of float64: sums over pixels of f[t], and of f[t] * (patch[s] - mean[s]).

    f is `factors` [group, T, some_channels, n], or the patch itself if that is None; the means are rows of the tables,
    or none where that is None. Program (split, ROWS of the T factors, channel tile of all groups): a split is some
    units, each P columns and `segment` rows. A lane adds up a unit in DTYPE, its units in TOTAL. One program owns a
    split of the pixels: no atomics.
    """
    KW: tl.constexpr = WINDOW[1]
    T: tl.constexpr = WINDOW[0] * KW
    # Products of the patch with itself are wanted once.
    HALF: tl.constexpr = factors is None and T <= FEW_TAPS
    tiles = tl.cdiv(some_channels, C)
    group = tl.program_id(2) // tiles
    local = ((tl.program_id(2) % tiles) * C + tl.arange(0, C))[None, :]
    known = local < some_channels
    channel = group * group_channels + first_channel + local
    first = tl.program_id(1) * ROWS
    segments = tl.cdiv(out_height, segment)
    if coefficients is not None:
        table = coefficients + place_in_table(group, first_channel + local, group_channels, T) + T * (T + 2) * TILE
    sums = ()
    for _ in tl.static_range(T + T * (T + 1) // 2 if HALF else ROWS * (T + 1)):
        sums = sums + (tl.zeros([P, C], TOTAL),)
    for unit in range(units):
        number = tl.program_id(0) * units + unit
        at = ((number // segments) * P + tl.arange(0, P))[:, None]
        image = at // out_width
        column = at % out_width
        there = known & (at < images * out_width)
        row = (number % segments) * segment
        here = image * (out_height * out_width) + row * out_width + column
        factor_here = group.to(tl.int64) * z_g + local.to(tl.int64) * z_c + here.to(tl.int64) * z_n
        left = column * WINDOW[3] - WINDOW[5]
        base = x + ((first_image + image).to(tl.int64) * x_b + channel.to(tl.int64) * x_c + left.to(tl.int64) * x_w)
        added = sums
        if DTYPE != TOTAL:
            added = ()
            for _ in tl.static_range(len(sums)):
                added = added + (tl.zeros([P, C], DTYPE),)
        for step in range(tl.minimum(segment, out_height - row)):
            patch = ()
            for i in tl.static_range(WINDOW[0]):
                y = (row + step) * WINDOW[2] - WINDOW[4] + i * WINDOW[6]
                of_row = base + y.to(tl.int64) * x_h
                for j in tl.static_range(KW):
                    inside = there & below(left + j * WINDOW[7], width) & below(y + tl.zeros_like(left), height)
                    patch = patch + (tl.load(of_row + j * WINDOW[7] * x_w, mask=inside, other=0.0),)
            moved = ()
            for s in tl.static_range(T):
                value = patch[s].to(tl.float32)
                if coefficients is not None:
                    value -= tl.load(table + (2 + s) * TILE)
                moved = moved + (value.to(DTYPE),)
            if HALF:
                added = add_half(added, moved, T)
            else:
                so_far = ()
                for r in tl.static_range(ROWS):
                    if factors is None:
                        factor = one_tap(moved, first + r, T)
                    else:
                        tap = first + r
                        place = factor_here + (tap * z_t + (step * out_width).to(tl.int64) * z_n)
                        factor = tl.load(factors + place, mask=there & (tap + tl.zeros_like(local) < T), other=0.0).to(
                            DTYPE
                        )
                    so_far = so_far + (added[r * (T + 1)] + factor,)
                    for s in tl.static_range(T):
                        so_far = so_far + (added[r * (T + 1) + 1 + s] + factor * moved[s],)
                added = so_far
        if DTYPE != TOTAL:
            so_far = ()
            for n in tl.static_range(len(sums)):
                so_far = so_far + (sums[n] + added[n].to(TOTAL),)
            sums = so_far
        else:
            sums = added
    split = tl.program_id(0).to(tl.int64)
    to = out + (split * channels + channel) * (T + T * T)
    if HALF:
        store_half(to, sums, known, T)
    else:
        for r in tl.static_range(ROWS):
            tap = first + r
            holds = known & (tap + tl.zeros_like(local) < T)
            tl.store(to + tap, over_lanes(sums[r * (T + 1)]), mask=holds)
            for s in tl.static_range(T):
                tl.store(to + T + tap * T + s, over_lanes(sums[r * (T + 1) + 1 + s]), mask=holds)


@triton.jit
def over_lanes(values):
    """Their sum over the pixels, in float64."""
    return tl.sum(values.to(tl.float64), 0, keep_dims=True)


@triton.jit
def add_half(sums, patch, T: tl.constexpr):
    """The sums plus the patch, and plus patch[r] * patch[s] for s >= r."""
    added = ()
    for r in tl.static_range(T):
        added = added + (sums[r] + patch[r],)
    for r in tl.static_range(T):
        for s in tl.static_range(r, T):
            added = added + (sums[T + r * T - r * (r - 1) // 2 + s - r] + patch[r] * patch[s],)
    return added


@triton.jit
def store_half(to, sums, known, T: tl.constexpr):
    """Write what `add_half` made, each product to both its places."""
    for r in tl.static_range(T):
        tl.store(to + r, over_lanes(sums[r]), mask=known)
        for s in tl.static_range(r, T):
            total = over_lanes(sums[T + r * T - r * (r - 1) // 2 + s - r])
            tl.store(to + T + r * T + s, total, mask=known)
            if s != r:
                tl.store(to + T + s * T + r, total, mask=known)


@triton.jit
def one_tap(patch, t, T: tl.constexpr):
    """patch[t] for a t that is known when the kernel runs."""
    found = patch[0]
    for s in tl.static_range(1, T):
        found = tl.where(t == s, patch[s], found)
    return found


@triton.jit
def gather(
    patches, out, first_image, images, segment, group_channels, some_channels, first_channel,
    height, width, out_height, out_width, z_g, z_t, z_c, z_n, out_b, out_c, out_h, out_w,
    WINDOW: tl.constexpr, ADD: tl.constexpr, P: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    """Each of x's values is the sum of what lies at its place in the windows that hold it; with ADD added to `out`.

    patches [group, T, some_channels, n] of `images` whole images from first_image on. Program (P columns and `segment`
    rows of x, channel tile, group). Whoever needs a value fetches it: nothing is written twice, and the order is always
    the same.
    """
    group = tl.program_id(2)
    segments = tl.cdiv(height, segment)
    at = ((tl.program_id(0) // segments) * P + tl.arange(0, P))[:, None]
    local = (tl.program_id(1) * C + tl.arange(0, C))[None, :]
    image = at // width
    column = at % width
    holds = (image < images) & (local < some_channels)
    channel = group * group_channels + first_channel + local
    first_row = (tl.program_id(0) % segments) * segment
    to = (first_image + image).to(tl.int64) * out_b + channel.to(tl.int64) * out_c + column.to(tl.int64) * out_w
    base = patches + (group.to(tl.int64) * z_g + local.to(tl.int64) * z_c)
    for step in range(tl.minimum(segment, height - first_row)):
        row = first_row + step
        sums = tl.zeros([P, C], tl.float32)
        for i in tl.static_range(WINDOW[0]):
            y = row + WINDOW[4] - i * WINDOW[6]
            window_row = y // WINDOW[2]
            of_row = tl.zeros_like(column) + window_row
            row_holds = (of_row * WINDOW[2] == y) & below(of_row, out_height)
            for j in tl.static_range(WINDOW[1]):
                z = column + WINDOW[5] - j * WINDOW[7]
                window_column = z // WINDOW[3]
                inside = (window_column * WINDOW[3] == z) & below(window_column, out_width)
                # The column's part first: it is the same for all rows.
                place = (image * (out_height * out_width) + window_column).to(tl.int64) * z_n
                place += (window_row * out_width).to(tl.int64) * z_n + (i * WINDOW[1] + j) * z_t
                found = tl.load(base + place, mask=holds & inside & row_holds, other=0.0)
                sums += found.to(tl.float32)
        here = out + (to + row.to(tl.int64) * out_h)
        if ADD:
            sums += tl.load(here, mask=holds, other=0.0).to(tl.float32)
        tl.store(here, sums, mask=holds)
