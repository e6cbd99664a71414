"""Kernels of the backward pass, for chunks of pixels and channels: gradients of a patch, and their way back to x."""

from __future__ import annotations

import triton
import triton.language as tl

from rfaconv.ops.triton.kernels.tiles import (
    FEW_TAPS,
    TILE,
    attend,
    centred,
    channel_index,
    linear_feature,
    load_patch,
    pixel_index,
    place_in_table,
    share,
)


@triton.jit
def differentiate(
    x, coefficients, grad, z, patches, grad_attention, begin, end, channels, group_channels, some_channels,
    first_channel, height, width, out_height, out_width, x_b, x_c, x_h, x_w, z_g, z_t, z_c, z_n,
    WINDOW: tl.constexpr, CENTRED: tl.constexpr, LAST: tl.constexpr,
    Q: tl.constexpr, P: tl.constexpr,
):  # fmt: skip
    """From z's gradient: z again, the features' gradient in grad's place, and the patches' gradient (unless None).

    grad, z and patches are [group, T, some_channels, n], of the same strides. Program (pixel tile, channel tile,
    group). grad_attention [pixel tiles, T, channels] gets the tile's sums in float32.

    With e the share, y the feature, A = grad: q = e*y*A, dlogit = q - e * (sum of q over the taps), dy = A*e where
    y > 0; the patch's gradient is W'^T dy + (sum over t of attention_weight * dlogit) / T.
    """
    T: tl.constexpr = WINDOW[0] * WINDOW[1]
    group = tl.program_id(2)
    here = tl.program_id(0) * (Q * P) + pixel_index(Q, P, LAST)
    local = tl.program_id(1) * TILE + channel_index(TILE, LAST)
    known = local < some_channels
    channel = group * group_channels + first_channel + local
    holds = known & (here < end - begin)
    patch = load_patch(
        x, channel, begin + here, holds, height, width, out_height, out_width, x_b, x_c, x_h, x_w, WINDOW
    )
    table = coefficients + place_in_table(group, first_channel + local, group_channels, T)
    attention = attend(patch, table, T)
    total = attention[0]
    if CENTRED:
        patch = centred(patch, table, T)
    place = group.to(tl.int64) * z_g + local.to(tl.int64) * z_c + here.to(tl.int64) * z_n
    to = grad_attention + tl.program_id(0).to(tl.int64) * (T * channels) + channel

    together = tl.zeros_like(total)
    values = ()
    if T <= FEW_TAPS:
        for t in tl.static_range(T):
            value, upstream = weighed(patch, attention, table, grad + place + t * z_t, t, holds, T)
            values = values + (value,)
            together += value * upstream
    else:
        for t in range(T):
            value, upstream = weighed(patch, attention, table, grad + place + t * z_t, t, holds, T)
            together += value * upstream

    back = ()
    for _ in tl.static_range(T + 1):
        back = back + (tl.zeros_like(total),)
    if T <= FEW_TAPS:
        for t in tl.static_range(T):
            back, logit = one_tap_back(
                values[t], attention, together, table, grad + place + t * z_t, z + place + t * z_t, back, t, holds,
                patches is not None, T,
            )  # fmt: skip
            store_attention(to + t * channels, logit * total, known, LAST)
    else:
        for t in range(T):
            value, upstream = weighed(patch, attention, table, grad + place + t * z_t, t, holds, T)
            back, logit = one_tap_back(
                value, attention, together, table, grad + place + t * z_t, z + place + t * z_t, back, t, holds,
                patches is not None, T,
            )  # fmt: skip
            store_attention(to + t * channels, logit * total, known, LAST)
    if patches is not None:
        # The weight holds log2(e) / T for exp2.
        through_total = back[T] * 0.6931471805599453
        for s in tl.static_range(T):
            tl.store(patches + place + s * z_t, back[s] + through_total, mask=holds)


@triton.jit
def weighed(patch, attention, table, grad, t, holds, T: tl.constexpr):
    """Tap t's feature times its share, and what `grad` has for it."""
    feature = tl.maximum(linear_feature(patch, table, t, T), 0.0)
    return feature * share(attention, table, t, T), tl.load(grad, mask=holds, other=0.0).to(tl.float32)


@triton.jit
def one_tap_back(
    value, attention, together, table, grad, z, back, t, holds, PATCHES: tl.constexpr, T: tl.constexpr
):  # fmt: skip
    """Store tap t's z and feature's gradient; `back` with what it adds to the patch and its sum, and the logit's gradient.

    A product that is 0 has a feature of 0, or a share so small that its gradient is 0 too.
    """
    part = share(attention, table, t, T)
    upstream = tl.load(grad, mask=holds, other=0.0).to(tl.float32)
    # Zero outside of the map, where the patch is not that of any pixel.
    grad_feature = tl.where(value > 0.0, upstream * part, 0.0)
    grad_logit = value * upstream - part * together
    tl.store(z, value, mask=holds)
    tl.store(grad, grad_feature, mask=holds)
    moved = ()
    if PATCHES:
        for s in tl.static_range(T):
            moved = moved + (back[s] + tl.load(table + (t * T + s) * TILE) * grad_feature,)
        moved = moved + (back[T] + tl.load(table + (T * (T + 1) + t) * TILE) * grad_logit,)
    else:
        moved = back
    return moved, grad_logit


@triton.jit
def store_attention(to, values, known, LAST: tl.constexpr):
    """Write the sums over this program's pixels."""
    tl.store(to, tl.sum(tl.sum(values, 0, keep_dims=True), 1 if LAST else 2, keep_dims=True), mask=known)


@triton.jit
def gather(
    patches, out, first_image, images, group_channels, some_channels, first_channel,
    height, width, out_height, out_width, z_g, z_t, z_c, z_n, out_b, out_c, out_h, out_w,
    WINDOW: tl.constexpr, ADD: tl.constexpr, P: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    """Each of x's values is the sum of what lies at its place in the windows that hold it; with ADD added to `out`.

    patches [group, T, some_channels, n] of `images` whole images from first_image on. Program (tile of x's pixels,
    channel tile, group). Whoever needs a value fetches it: nothing is written twice, and the order is always the same.
    """
    group = tl.program_id(2)
    here = (tl.program_id(0) * P + tl.arange(0, P))[:, None]
    local = (tl.program_id(1) * C + tl.arange(0, C))[None, :]
    line = here // width
    column = here % width
    row = line % height
    image = line // height
    holds = (image < images) & (local < some_channels)
    base = patches + (group.to(tl.int64) * z_g + local.to(tl.int64) * z_c)
    sums = tl.zeros([P, C], tl.float32)
    for i in tl.static_range(WINDOW[0]):
        for j in tl.static_range(WINDOW[1]):
            y = row + WINDOW[4] - i * WINDOW[6]
            z = column + WINDOW[5] - j * WINDOW[7]
            window_row = y // WINDOW[2]
            window_column = z // WINDOW[3]
            inside = (y >= 0) & (z >= 0) & (window_row < out_height) & (window_column < out_width)
            inside = inside & (window_row * WINDOW[2] == y) & (window_column * WINDOW[3] == z)
            place = (image * out_height + window_row) * out_width + window_column
            found = tl.load(
                base + (place.to(tl.int64) * z_n + (i * WINDOW[1] + j) * z_t), mask=inside & holds, other=0.0
            )
            sums += found.to(tl.float32)
    channel = group * group_channels + first_channel + local
    to = (first_image + image).to(tl.int64) * out_b + row.to(tl.int64) * out_h + column.to(tl.int64) * out_w
    to = out + (to + channel.to(tl.int64) * out_c)
    if ADD:
        sums += tl.load(to, mask=holds, other=0.0).to(tl.float32)
    tl.store(to, sums, mask=holds)
