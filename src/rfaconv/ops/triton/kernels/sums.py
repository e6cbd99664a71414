"""Sums over pixels of products with the patches: the moments of x, and what the batch statistics need backward."""

from __future__ import annotations

import triton
import triton.language as tl

from rfaconv.ops.triton.kernels.tiles import TILE, load_patch, place_in_table


@triton.jit
def add_products(
    x, factors, coefficients, out, begin, end, channels, group_channels, some_channels, first_channel, a_split,
    height, width, out_height, out_width, x_b, x_c, x_h, x_w, z_g, z_t, z_c, z_n,
    WINDOW: tl.constexpr, ROWS: tl.constexpr, P: tl.constexpr, C: tl.constexpr, DTYPE: tl.constexpr,
):  # fmt: skip
    """out [splits, channels, T + T*T] of float64: sums over pixels of f[t], and of f[t] * (patch[s] - mean[s]).

    f is `factors` [group, T, some_channels, n], or the patch itself if that is None; the means are rows of the tables, or none
    where that is None. Program (split of `a_split` pixels, ROWS of the T factors, channel tile of all groups). A lane adds up in
    DTYPE what it sees, and one program owns a split of the pixels: no atomics.
    """
    T: tl.constexpr = WINDOW[0] * WINDOW[1]
    tiles = tl.cdiv(some_channels, C)
    group = tl.program_id(2) // tiles
    local = ((tl.program_id(2) % tiles) * C + tl.arange(0, C))[None, :]
    known = local < some_channels
    channel = group * group_channels + first_channel + local
    row = tl.program_id(1) * ROWS
    if coefficients is not None:
        table = coefficients + place_in_table(group, first_channel + local, group_channels, T)
    sums = ()
    for _ in tl.static_range(ROWS * (T + 1)):
        sums = sums + (tl.zeros([P, C], DTYPE),)
    start = tl.program_id(0) * a_split
    for step in range(0, a_split, P):
        here = (start + step + tl.arange(0, P))[:, None]
        holds = (here < end - begin) & (step + tl.arange(0, P)[:, None] < a_split) & known
        patch = load_patch(
            x, channel, begin + here, holds, height, width, out_height, out_width, x_b, x_c, x_h, x_w, WINDOW
        )
        added = ()
        for r in tl.static_range(ROWS):
            if factors is None:
                factor = one_tap(patch, row + r, T)
            else:
                place = group.to(tl.int64) * z_g + local.to(tl.int64) * z_c + here.to(tl.int64) * z_n
                tap = row + r + tl.zeros_like(local)
                factor = tl.load(factors + (place + tap * z_t), mask=holds & (tap < T), other=0.0)
            factor = factor.to(DTYPE)
            added = added + (sums[r * (T + 1)] + factor,)
            for s in tl.static_range(T):
                value = patch[s]
                if coefficients is not None:
                    value -= tl.load(table + (T * (T + 2) + 2 + s) * TILE, mask=known, other=0.0)
                added = added + (sums[r * (T + 1) + 1 + s] + factor * value.to(DTYPE),)
        sums = added
    split = tl.program_id(0).to(tl.int64)
    for r in tl.static_range(ROWS):
        tap = row + r + tl.zeros_like(local)
        to = out + (split * channels + channel) * (T + T * T)
        here = known & (tap < T)
        total = tl.sum(sums[r * (T + 1)].to(tl.float64), 0, keep_dims=True)
        tl.store(to + tap, total, mask=here)
        for s in tl.static_range(T):
            total = tl.sum(sums[r * (T + 1) + 1 + s].to(tl.float64), 0, keep_dims=True)
            tl.store(to + T + tap * T + s, total, mask=here)


@triton.jit
def one_tap(patch, t, T: tl.constexpr):
    """patch[t] for a t that is known when the kernel runs."""
    found = patch[0]
    for s in tl.static_range(1, T):
        found = tl.where(t == s, patch[s], found)
    return found
