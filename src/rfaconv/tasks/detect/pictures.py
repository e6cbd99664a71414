"""A detector's pictures: precision against recall, AP by size and class, and images with what two models find."""

from __future__ import annotations

import base64
import html
import io
import math
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image, ImageOps

from rfaconv.figures import INK, RIGHT, WRONG, bare, conv_style, draw_svg, shorten
from rfaconv.tasks.detect.scores import RECALLS, Boxes, Detections, overlaps_of
from rfaconv.tasks.examples import choose_by_gain

SHOWN_FROM = 0.25
"""Confidence from which a detection is drawn."""
RIGHT_FROM = 0.5
"""Overlap from which it is drawn as right."""
_PIXELS = 320
_Drawn: TypeAlias = tuple[NDArray[np.float64], int, float, bool | None]
"""Corners, class, confidence (nan: it is the truth), and whether it is right."""
_SIZES = {"map": "all", "map_small": "small", "map_medium": "medium", "map_large": "large"}


def precision_recall(curves: Mapping[str, Sequence[float]]) -> str:
    """Precision against recall at the overlap 0.50, the mean over classes, a line a convolution, as SVG.

    Args:
        curves: for each convolution's name 101 precisions, at the recalls 0 to 1.
    """

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for conv, values in curves.items():
            style = conv_style(conv)
            axes.plot(100 * RECALLS, 100 * np.asarray(values), style.line, color=style.color, label=shorten(conv))
        axes.set_xlim(0, 100)
        axes.set_ylim(0, 102)
        axes.set_xlabel("recall (%)")
        axes.set_ylabel("precision (%)")
        figure.legend(loc="outside right upper")

    return draw_svg(draw, name="precision-recall", label="Precision against recall", width=7.2, height=4)


def size_bars(metrics: Mapping[str, Mapping[str, float]]) -> str:
    """mAP by the size of the objects, a bar a convolution, as SVG; a size of which there is none is left out.

    Args:
        metrics: for each convolution's name its figures, as fractions of one.
    """
    shown = [name for name in _SIZES if any(name in values for values in metrics.values())]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        width = 0.8 / len(metrics)
        for place, (conv, values) in enumerate(metrics.items()):
            at = [index + (place - (len(metrics) - 1) / 2) * width for index in range(len(shown))]
            heights = [100 * values.get(name, math.nan) for name in shown]
            axes.bar(at, heights, width=0.9 * width, color=conv_style(conv).color, label=shorten(conv))
            for x, height in zip(at, heights, strict=True):
                if not math.isnan(height):
                    axes.annotate(
                        f"{height:.1f}", (x, height), (0, 2), textcoords="offset points", ha="center", fontsize=8
                    )
        axes.set_xticks(range(len(shown)), [_SIZES[name] for name in shown])
        axes.set_ylabel("mAP (%)")
        bare(axes)
        figure.legend(loc="outside right upper")

    return draw_svg(draw, name="size-map", label="mAP by size", width=7.2, height=3.4)


def judged(truth: Boxes, found: Detections) -> list[tuple[NDArray[np.float64], int, float, bool]]:
    """What is drawn of the detections: corners, class, confidence and whether it is right.

    Right is a detection of a true class that overlaps a true box of that class, which no more confident one has taken,
    by half or more.
    """
    chosen = np.flatnonzero(found.confidences >= SHOWN_FROM)
    chosen = chosen[np.argsort(-found.confidences[chosen], kind="stable")]
    overlap = overlaps_of(found.corners[chosen], truth.corners)
    free = np.ones(len(truth.classes), bool)
    rows = []
    for row, index in enumerate(chosen):
        fits = np.where(free & (truth.classes == found.classes[index]), overlap[row], 0.0)
        best = int(fits.argmax()) if len(fits) else -1
        right = best >= 0 and fits[best] >= RIGHT_FROM
        if right:
            free[best] = False
        rows.append((found.corners[index], int(found.classes[index]), float(found.confidences[index]), bool(right)))
    return rows


def choose_examples(
    truth: Sequence[Boxes], baseline: Sequence[Detections], variant: Sequence[Detections], count: int
) -> list[int]:
    """At most `count` images: a third where the variant gains most, a third where it loses most, others evenly."""
    gains = [
        _balance(boxes, second) - _balance(boxes, first)
        for boxes, first, second in zip(truth, baseline, variant, strict=True)
    ]
    return choose_by_gain(gains, count)


def _balance(truth: Boxes, found: Detections) -> int:
    """Right detections less wrong ones."""
    return sum(1 if right else -1 for *_, right in judged(truth, found))


def example(
    image: Image.Image, truth: Boxes, found: Mapping[str, Detections], classes: Sequence[str], caption: str
) -> str:
    """One image's row as HTML: the truth, and each model's boxes, blue where right, orange and dashed where wrong."""
    image = ImageOps.exif_transpose(image).convert("RGB")  # as a viewer shows it; the boxes are in its pixels
    labelled = zip(truth.corners, truth.classes, strict=True)
    true: list[_Drawn] = [(corners, int(label), math.nan, None) for corners, label in labelled]
    panels: dict[str, Sequence[_Drawn]] = {"truth": true}
    panels |= {conv: judged(truth, detections) for conv, detections in found.items()}
    picture = _encoded(image)
    cells = "".join(_panel(name, picture, image.size, boxes, classes) for name, boxes in panels.items())
    return (
        f'<div style="break-inside: avoid"><div style="display: flex; flex-wrap: wrap; gap: 8px">{cells}</div>'
        f'<div style="font-size: 13px; color: var(--muted, #6a737d)">{html.escape(caption)}</div></div>'
    )


def _panel(name: str, picture: str, size: tuple[int, int], boxes: Sequence[_Drawn], classes: Sequence[str]) -> str:
    width, height = size
    unit = max(size) / 100
    drawn = "".join(_box(*box, classes=classes, unit=unit) for box in boxes)
    return (
        f'<figure style="margin: 0; width: 220px; font-size: 13px"><svg role="img" aria-label="{html.escape(name)}" '
        f'viewBox="0 0 {width} {height}" style="width: 220px; height: 220px; background: var(--grid, #dfe3e8); '
        f'border-radius: 4px"><image href="{picture}" width="{width}" height="{height}" '
        f'style="image-rendering: {"pixelated" if max(size) <= 160 else "auto"}"/>{drawn}</svg>'
        f"{html.escape(shorten(name))}</figure>"
    )


def _box(
    corners: NDArray[np.float64],
    label: int,
    confidence: float,
    right: bool | None,
    *,
    classes: Sequence[str],
    unit: float,
) -> str:
    left, top, far, low = (float(value) for value in corners)
    colour = INK if right is None else RIGHT if right else WRONG
    dashes = "" if right is None or right else f' stroke-dasharray="{2 * unit:.2f} {1.2 * unit:.2f}"'
    said = classes[label] if math.isnan(confidence) else f"{classes[label]} {confidence:.2f}"
    text = html.escape(shorten(said, 22))
    size = 4 * unit
    y = top - unit if top > size + unit else top + size
    shape = f'x="{left:.2f}" y="{top:.2f}" width="{far - left:.2f}" height="{low - top:.2f}"'
    return (
        f'<rect {shape} fill="none" stroke="#fff" stroke-width="{1.6 * unit:.2f}" stroke-opacity="0.6"/>'
        f'<rect {shape} fill="none" stroke="{colour}" stroke-width="{0.8 * unit:.2f}"{dashes}/>'
        f'<text x="{left + unit:.2f}" y="{y:.2f}" font-size="{size:.2f}" fill="{colour}" stroke="#fff" '
        f'stroke-width="{0.8 * unit:.2f}" paint-order="stroke" font-family="sans-serif">{text}</text>'
    )


def _encoded(image: Image.Image) -> str:
    small = image.copy()
    small.thumbnail((_PIXELS, _PIXELS))
    buffer = io.BytesIO()
    if max(image.size) <= 160:
        small.save(buffer, format="PNG", optimize=True)
        return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
    small.save(buffer, format="JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
