"""PAPER's formulas in plain loops over float64 arrays: the independent computation the layers are held against.

Nothing here imports rfaconv; parameters are read from a state dict.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

Array = Any
EPS = 1e-5


def windows(
    x: Array, kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int], dilation: Any
) -> Array:
    """The patch of every output position: [B, C, h, w, kh, kw]."""
    batch, channels, height, width = x.shape
    (kh, kw), (sh, sw), (ph, pw), (dh, dw) = kernel, stride, padding, dilation
    h = (height + 2 * ph - dh * (kh - 1) - 1) // sh + 1
    w = (width + 2 * pw - dw * (kw - 1) - 1) // sw + 1
    out = np.zeros((batch, channels, h, w, kh, kw))
    for y in range(h):
        for z in range(w):
            for i in range(kh):
                for j in range(kw):
                    row, column = y * sh - ph + i * dh, z * sw - pw + j * dw
                    if 0 <= row < height and 0 <= column < width:
                        out[:, :, y, z, i, j] = x[:, :, row, column]
    return out


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def batch_norm(x: Array, p: dict[str, Array], name: str, training: bool) -> Array:
    """x: [B, K, ...], normalised a channel at a time."""
    out = np.empty_like(x)
    for k in range(x.shape[1]):
        mean, var = (
            (x[:, k].mean(), x[:, k].var()) if training else (p[f"{name}.running_mean"][k], p[f"{name}.running_var"][k])
        )
        out[:, k] = (x[:, k] - mean) / math.sqrt(var + EPS) * p[f"{name}.weight"][k] + p[f"{name}.bias"][k]
    return out


def convolve(x: Array, weight: Array, bias: Array | None, groups: int, *window: Any) -> Array:
    patches = windows(x, weight.shape[2:], *window)
    batch, channels, h, w, _, _ = patches.shape
    outputs, per_group = weight.shape[0], channels // groups
    out = np.zeros((batch, outputs, h, w))
    for o in range(outputs):
        first = (o // (outputs // groups)) * per_group
        for y in range(h):
            for z in range(w):
                seen = patches[:, first : first + per_group, y, z]
                out[:, o, y, z] = (seen * weight[o]).sum((1, 2, 3)) + (0 if bias is None else bias[o])
    return out


def receptive_field_map(x: Array, p: dict[str, Array], window: Any, training: bool) -> Array:
    """relu(BN(depthwise)) laid out in the plane: tap (i, j) of (y, z) at (y*kh + i, z*kw + j)."""
    patches = windows(x, *window)
    batch, channels, h, w, kh, kw = patches.shape
    raw = np.zeros((batch, channels * kh * kw, h, w))
    for c in range(channels):
        for t in range(kh * kw):
            raw[:, c * kh * kw + t] = (patches[:, c] * p["features.weight"][c * kh * kw + t, 0]).sum((3, 4))
    features = np.maximum(batch_norm(raw, p, "features.norm", training), 0)
    plane = np.zeros((batch, channels, h * kh, w * kw))
    for t in range(kh * kw):
        plane[:, :, t // kw :: kh, t % kw :: kw] = features[:, t :: kh * kw]
    return plane


def tap_softmax(plane: Array, x: Array, p: dict[str, Array], window: Any, training: bool) -> Array:
    patches = windows(x, *window)
    batch, channels, h, w, kh, kw = patches.shape
    out = np.empty_like(plane)
    for b in range(batch):
        for c in range(channels):
            for y in range(h):
                for z in range(w):
                    logits = [p["attention.weight"][c, t] * patches[b, c, y, z].mean() for t in range(kh * kw)]
                    total = sum(math.exp(value) for value in logits)
                    for t, value in enumerate(logits):
                        row, column = y * kh + t // kw, z * kw + t % kw
                        out[b, c, row, column] = plane[b, c, row, column] * math.exp(value) / total
    return out


def channel_weights(x: Array, p: dict[str, Array], name: str, pools: list[Callable[[Array], Array]]) -> Array:
    logits = 0
    for pool in pools:
        pooled = np.array([[pool(x[b, c]) for c in range(x.shape[1])] for b in range(x.shape[0])]).reshape(x.shape[:2])
        logits = logits + np.maximum(pooled @ p[f"{name}.reduce.weight"].T, 0) @ p[f"{name}.expand.weight"].T
    return sigmoid(logits)[:, :, None, None]


def spatial_weights(plane: Array, weight: Array) -> Array:
    pooled = np.stack([plane.max(1), plane.mean(1)], axis=1)
    pad = weight.shape[2] // 2
    return sigmoid(convolve(pooled, weight, None, 1, (1, 1), (pad, pad), (1, 1)))


def channel(plane: Array, x: Array, p: dict[str, Array], window: Any, training: bool) -> Array:
    return plane * channel_weights(x, p, "attention", [np.max, np.mean])


def channel_then_spatial(plane: Array, x: Array, p: dict[str, Array], window: Any, training: bool) -> Array:
    weighted = plane * channel_weights(x, p, "attention.channel", [np.max, np.mean])
    return weighted * spatial_weights(weighted, p["attention.spatial.conv.weight"])


def channel_and_spatial(plane: Array, x: Array, p: dict[str, Array], window: Any, training: bool) -> Array:
    """RFCBAMConv: the spatial weights come from the map before the channel weights."""
    weights = channel_weights(x, p, "attention.channel", [np.mean])
    return plane * weights * spatial_weights(plane, p["attention.spatial.conv.weight"])


def coordinate(plane: Array, x: Array, p: dict[str, Array], window: Any, training: bool) -> Array:
    height = plane.shape[2]
    line = np.concatenate([plane.mean(3), plane.mean(2)], axis=2)  # [B, C, height + width]

    def mix(values: Array, name: str) -> Array:
        return np.einsum("oc,bcl->bol", p[f"{name}.weight"][:, :, 0, 0], values) + p[f"{name}.bias"][:, None]

    hidden = batch_norm(mix(line, "attention.reduce"), p, "attention.norm", training)
    hidden = hidden * np.clip(hidden + 3, 0, 6) / 6
    rows = sigmoid(mix(hidden[:, :, :height], "attention.expand_rows"))
    columns = sigmoid(mix(hidden[:, :, height:], "attention.expand_columns"))
    return plane * rows[:, :, :, None] * columns[:, :, None, :]


SPATIAL = {"conv": None, "cam": channel, "cbam": channel_then_spatial, "ca": coordinate}
RECEPTIVE_FIELD = {"rf": None, "rfa": tap_softmax, "rfcbam": channel_and_spatial, "rfca": coordinate}


def layer(name: str, x: Array, p: dict[str, Array], window: Any, groups: int, training: bool) -> Array:
    """The output of the layer with that short name; `window` is (kernel, stride, padding, dilation)."""
    weight, bias = p["weight"], p.get("bias")
    if name in SPATIAL:
        attend = SPATIAL[name]
        return convolve(x if attend is None else attend(x, x, p, window, training), weight, bias, groups, *window[1:])
    plane, attend = receptive_field_map(x, p, window, training), RECEPTIVE_FIELD[name]
    if attend is not None:
        plane = attend(plane, x, p, window, training)
    return convolve(plane, weight, bias, groups, weight.shape[2:], (0, 0), (1, 1))
