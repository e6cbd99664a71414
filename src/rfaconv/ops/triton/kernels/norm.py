"""Kernels for the little algebra of each channel: its filters, the moments of its patches, and the batch norm."""

from __future__ import annotations

import triton
import triton.language as tl

from rfaconv.ops.triton.kernels.tiles import TILE, place_in_table


@triton.jit
def feature_statistics(
    filters, mean, var, moments, count, feature, channel, norm_weight, eps, T: tl.constexpr, PADDED: tl.constexpr
):
    """One feature in float64: its filter [PADDED], the means of the taps, filter @ covariance, mean, var, 1/std, scale.

    From moments [C, T + T*T] of `count` patches; where they are None, from the given mean and var (and the second and
    third results are zeros).
    """
    s = tl.arange(0, PADDED)
    inner = s < T
    filter = tl.load(filters + feature * T + s, mask=inner, other=0.0).to(tl.float64)
    if moments is not None:
        first = moments + channel.to(tl.int64) * (T + T * T)
        means = tl.load(first + s, mask=inner, other=0.0) / count
        square = s[:, None] * T + s[None, :]
        products = tl.load(first + T + square, mask=inner[:, None] & inner[None, :], other=0.0) / count
        covariance = products - means[:, None] * means[None, :]
        through = tl.sum(filter[:, None] * covariance, 0)
        centre = tl.sum(filter * means, 0)
        spread = tl.maximum(tl.sum(filter * through, 0), 0.0, propagate_nan=tl.PropagateNan.ALL)
    else:
        means = tl.zeros([PADDED], tl.float64)
        through = tl.zeros([PADDED], tl.float64)
        centre = tl.load(mean + feature).to(tl.float64)
        spread = tl.load(var + feature).to(tl.float64)
    inverse = 1.0 / tl.sqrt(spread + eps)
    scale = inverse
    if norm_weight is not None:
        scale = inverse * tl.load(norm_weight + feature).to(tl.float64)
    return filter, means, through, centre, spread, inverse, scale


@triton.jit
def prepare(
    filters, attention, norm_weight, norm_bias, mean, var, moments, count, eps, coefficients, batch_mean, batch_var,
    group_channels, T: tl.constexpr, PADDED: tl.constexpr,
):  # fmt: skip
    """The coefficients of one feature (tiles.py says which), and its batch statistics where there are moments.

    Program (feature t, channel).
    """
    t = tl.program_id(0)
    channel = tl.program_id(1)
    feature = channel * T + t
    s = tl.arange(0, PADDED)
    inner = s < T
    filter, means, _, centre, spread, _, scale = feature_statistics(
        filters, mean, var, moments, count, feature, channel, norm_weight, eps, T, PADDED
    )
    table = coefficients + place_in_table(channel // group_channels, channel % group_channels, group_channels, T)
    offset = -centre * scale
    if norm_bias is not None:
        offset += tl.load(norm_bias + feature).to(tl.float64)
    if moments is not None:
        taken_off = means.to(tl.float32)
        offset += scale * tl.sum(filter * taken_off.to(tl.float64), 0)
        tl.store(
            table + (T * (T + 2) + 2 + s) * TILE,
            taken_off,
            mask=inner & (t + tl.zeros_like(s) == 0),
        )
        tl.store(batch_mean + feature, centre.to(tl.float32))
        tl.store(batch_var + feature, spread.to(tl.float32))
    tl.store(table + (t * T + s) * TILE, (filter * scale).to(tl.float32), mask=inner)
    tl.store(table + (T * T + t) * TILE, offset.to(tl.float32))
    weights = tl.load(attention + channel * T + s, mask=inner, other=0.0) * (1.4426950408889634 / T)
    own = tl.sum(tl.where(s == t, weights, 0.0), 0)
    tl.store(table + (T * (T + 1) + t) * TILE, own)
    highest = tl.max(tl.where(inner, weights, -float("inf")), 0)
    lowest = tl.min(tl.where(inner, weights, float("inf")), 0)
    tl.store(table + T * (T + 2) * TILE, highest, mask=t == 0)
    tl.store(table + (T * (T + 2) + 1) * TILE, lowest, mask=t == 0)


@triton.jit
def differentiate_norm(
    filters, norm_weight, mean, var, moments, count, eps, sums, outer,
    grad_filters, grad_weight, grad_bias, scales, through_var,
    T: tl.constexpr, PADDED: tl.constexpr,
):  # fmt: skip
    """From S and D the gradients of one feature's filter, norm weight and norm bias. Program (feature t, channel).

    With moments also scales and through_var [C, T] in float64, for `correction`.
    """
    t = tl.program_id(0)
    channel = tl.program_id(1)
    feature = channel * T + t
    s = tl.arange(0, PADDED)
    inner = s < T
    filter, means, through, centre, _, inverse, scale = feature_statistics(
        filters, mean, var, moments, count, feature, channel, norm_weight, eps, T, PADDED
    )
    total = tl.load(sums + feature)
    products = tl.load(outer + feature * T + s, mask=inner, other=0.0)
    if moments is not None:
        # So far the patch was less the means as float32 has them.
        products -= total * (means - means.to(tl.float32).to(tl.float64))
        grad = inverse * tl.sum(filter * products, 0)
        products -= grad * inverse * through
        tl.store(scales + feature, scale)
        tl.store(through_var + feature, grad * inverse)
    else:
        grad = inverse * (tl.sum(filter * products, 0) - centre * total)
    tl.store(grad_filters + feature * T + s, (scale * products).to(tl.float32), mask=inner)
    tl.store(grad_weight + feature, grad.to(tl.float32))
    tl.store(grad_bias + feature, total.to(tl.float32))


@triton.jit
def correction(filters, moments, count, sums, scales, through_var, coefficients, T: tl.constexpr, PADDED: tl.constexpr):
    """What goes back to x through the batch statistics, alpha - Q patch, as linear features. Program (tap r, channel).

    Q = W'^T diag(through_var / N) W, alpha = -W'^T S / N + Q m. Rows of the tables: -Q, then alpha.
    """
    r = tl.program_id(0)
    channel = tl.program_id(1)
    t = tl.arange(0, PADDED)
    inner = t < T
    feature = channel * T + t
    filters_here = filters + feature[:, None] * T
    square = inner[:, None] & inner[None, :]
    weights = tl.load(filters_here + t[None, :], mask=square, other=0.0).to(tl.float64)
    column = tl.load(filters + feature * T + r, mask=inner, other=0.0).to(tl.float64)
    column *= tl.load(scales + feature, mask=inner, other=0.0) / count
    q = tl.sum((column * tl.load(through_var + feature, mask=inner, other=0.0))[:, None] * weights, 0)
    means = tl.load(moments + channel.to(tl.int64) * (T + T * T) + t, mask=inner, other=0.0) / count
    alpha = tl.sum(q * means, 0) - tl.sum(column * tl.load(sums + feature, mask=inner, other=0.0), 0)
    table = coefficients + place_in_table(0, channel, tl.num_programs(1), T)
    tl.store(table + (r * T + t) * TILE, (-q).to(tl.float32), mask=inner)
    tl.store(table + (T * T + r) * TILE, alpha.to(tl.float32))
