"""Kernels of the backward pass, for chunks of pixels and channels: gradients of a patch, and their way back to x."""

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
def differentiate(
    x, coefficients, grad, z, patches, grad_attention, begin, end, channels, group_channels, some_channels,
    first_channel, height, width, out_height, out_width, x_b, x_c, x_h, x_w, z_g, z_t, z_c, z_n,
    WINDOW: tl.constexpr, CENTRED: tl.constexpr, LAST: tl.constexpr,
    Q: tl.constexpr, P: tl.constexpr, C: tl.constexpr,
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
    local = tl.program_id(1) * C + channel_index(C, LAST)
    known = local < some_channels
    channel = group * group_channels + first_channel + local
    holds = known & (here < end - begin)
    patch = load_patch(
        x, channel, begin + here, holds, height, width, out_height, out_width, x_b, x_c, x_h, x_w, WINDOW
    )
    total, largest, below = attend(patch, coefficients, channel, known, channels, T)
    if CENTRED:
        patch = centred(patch, coefficients, channel, known, channels, T)
    place = group.to(tl.int64) * z_g + local.to(tl.int64) * z_c + here.to(tl.int64) * z_n

    together = tl.zeros_like(total)
    for t in range(T):
        feature = tl.maximum(linear_feature(patch, coefficients, channel, known, channels, t, T), 0.0)
        upstream = tl.load(grad + place + t * z_t, mask=holds, other=0.0).to(tl.float32)
        together += feature * upstream * share(total, largest, below, coefficients, channel, known, channels, t, T)

    back = ()
    for _ in tl.static_range(T):
        back = back + (tl.zeros_like(total),)
    through_total = tl.zeros_like(total)
    for t in range(T):
        feature = linear_feature(patch, coefficients, channel, known, channels, t, T)
        part = share(total, largest, below, coefficients, channel, known, channels, t, T)
        upstream = tl.load(grad + place + t * z_t, mask=holds, other=0.0).to(tl.float32)
        value = tl.maximum(feature, 0.0) * part
        # Zero outside of the map, where the patch is not that of any pixel.
        grad_feature = tl.where(feature > 0.0, upstream * part, 0.0)
        grad_logit = value * upstream - part * together
        tl.store(z + place + t * z_t, value, mask=holds)
        tl.store(grad + place + t * z_t, grad_feature, mask=holds)
        store_attention(grad_attention, grad_logit * total, t, channel, known, channels, T, LAST)
        if patches is not None:
            weight = tl.load(coefficients + (T * (T + 1) + t) * channels + channel, mask=known, other=0.0)
            through_total += weight * grad_logit
            moved = ()
            for s in tl.static_range(T):
                filters = tl.load(coefficients + (t * T + s) * channels + channel, mask=known, other=0.0)
                moved = moved + (back[s] + filters * grad_feature,)
            back = moved
    if patches is not None:
        # The weight holds log2(e) / T for exp2.
        through_total *= 0.6931471805599453
        for s in tl.static_range(T):
            tl.store(patches + place + s * z_t, back[s] + through_total, mask=holds)


@triton.jit
def store_attention(to, values, t, channel, known, channels, T: tl.constexpr, LAST: tl.constexpr):
    """Write the sums over this program's pixels of grad_logit * (sum of the patch)."""
    row = to + (tl.program_id(0).to(tl.int64) * T + t) * channels
    if LAST:
        sums = tl.sum(tl.sum(values, 1, keep_dims=True), 0, keep_dims=True)
    else:
        sums = tl.sum(tl.sum(values, 2, keep_dims=True), 0, keep_dims=True)
    tl.store(row + channel, sums, mask=known)


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
