"""The kernel of the backward pass, for a chunk of pixels and channels: the gradients of a patch."""

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
    upstreams = ()
    if T <= FEW_TAPS:
        for t in tl.static_range(T):
            value = weighed(patch, attention, table, t, T)
            upstream = tl.load(grad + place + t * z_t, mask=holds, other=0.0)
            values = values + (value,)
            upstreams = upstreams + (upstream,)
            together += value * upstream.to(tl.float32)
    else:
        for t in range(T):
            upstream = tl.load(grad + place + t * z_t, mask=holds, other=0.0)
            together += weighed(patch, attention, table, t, T) * upstream.to(tl.float32)
    # What one thread has to load another may be the one to overwrite.
    tl.debug_barrier()

    back = ()
    for _ in tl.static_range(T + 1):
        back = back + (tl.zeros_like(total),)
    if T <= FEW_TAPS:
        for t in tl.static_range(T):
            back, logit = one_tap_back(
                values[t], upstreams[t], attention, together, table, grad + place + t * z_t, z + place + t * z_t, back,
                t, holds, patches is not None, T,
            )  # fmt: skip
            store_attention(to + t * channels, logit * total, known, LAST)
    else:
        for t in range(T):
            upstream = tl.load(grad + place + t * z_t, mask=holds, other=0.0)
            tl.debug_barrier()
            value = weighed(patch, attention, table, t, T)
            back, logit = one_tap_back(
                value, upstream, attention, together, table, grad + place + t * z_t, z + place + t * z_t, back, t,
                holds, patches is not None, T,
            )  # fmt: skip
            store_attention(to + t * channels, logit * total, known, LAST)
    if patches is not None:
        # The weight holds log2(e) / T for exp2.
        through_total = back[T] * 0.6931471805599453
        for s in tl.static_range(T):
            tl.store(patches + place + s * z_t, back[s] + through_total, mask=holds)


@triton.jit
def weighed(patch, attention, table, t, T: tl.constexpr):
    """Tap t's feature times its share."""
    return tl.maximum(linear_feature(patch, table, t, T), 0.0) * share(attention, table, t, T)


@triton.jit
def one_tap_back(
    value, upstream, attention, together, table, grad, z, back, t, holds, PATCHES: tl.constexpr, T: tl.constexpr
):  # fmt: skip
    """Store tap t's z and feature's gradient; give `back` with what they add to it, and the logit's gradient.

    `back` is the gradient of each tap of the patch, and of the patch's sum. A value that is 0 has a feature of 0, or a
    share so small that its gradient is 0 too.
    """
    part = share(attention, table, t, T)
    upstream = upstream.to(tl.float32)
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
