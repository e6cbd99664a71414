"""A segmentation model's pictures: the IoU of each class, and images with what two models make of them."""

from __future__ import annotations

import base64
import html
import io
import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from rfaconv.data.segmentation import IGNORE
from rfaconv.figures import RIGHT, WRONG, bare, conv_style, draw_svg, shorten
from rfaconv.tasks.examples import choose_by_gain
from rfaconv.tasks.segment.infer import colours

MOST_CLASSES = 40
"""With more classes the bars show those on which the two differ most."""
_PIXELS = 320
_GREY = (140, 140, 140)


def choose_examples(baseline: Sequence[float], variant: Sequence[float], count: int) -> list[int]:
    """At most `count` images: a third on which the variant gains most, a third on which it loses most, others evenly.

    Args:
        baseline: the share of right pixels of each image; nan where none counts.
        variant: likewise.
        count: how many.
    """
    return choose_by_gain(np.nan_to_num(np.asarray(variant) - np.asarray(baseline)).tolist(), count)


def class_bars(classes: Sequence[str], ious: Mapping[str, Sequence[float]]) -> str:
    """The IoU of each class by each model, as SVG; a class that is nowhere is left out.

    Args:
        classes: their names.
        ious: for each convolution's name, a figure a class, nan where the class is nowhere.
    """
    first, *_ = ious.values()
    *_, last = ious.values()
    shown = [
        number for number in range(len(classes)) if not any(math.isnan(values[number]) for values in ious.values())
    ]
    if len(shown) > MOST_CLASSES:
        shown = sorted(sorted(shown, key=lambda number: -abs(last[number] - first[number]))[:MOST_CLASSES])

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        height = 0.8 / len(ious)
        for place, (conv, values) in enumerate(ious.items()):
            rows = [row + (place - (len(ious) - 1) / 2) * height for row in range(len(shown))]
            widths = [100 * values[number] for number in shown]
            axes.barh(rows, widths, height=0.9 * height, color=conv_style(conv).color, label=shorten(conv))
            for row, width in zip(rows, widths, strict=True):
                axes.annotate(f"{width:.1f}", (width, row), (3, 0), textcoords="offset points", va="center", fontsize=8)
        axes.set_yticks(range(len(shown)), [shorten(classes[number]) for number in shown])
        axes.set_ylim(len(shown) - 0.4, -0.6)
        axes.set_xlim(0, 108)
        axes.set_xlabel("IoU (%)")
        bare(axes)
        figure.legend(loc="outside upper right", ncols=len(ious))

    return draw_svg(
        draw, name="class-iou", label="IoU of each class", width=7.2, height=1.2 + 0.36 * max(len(shown), 2)
    )


def example(
    image: Tensor,
    truth: Tensor,
    baseline: Tensor,
    variant: Tensor,
    palette: Sequence[Sequence[int]],
    caption: str,
    names: tuple[str, str],
) -> str:
    """One image's row as HTML: image, truth, both models, and where they differ.

    Args:
        image: uint8 [3, H, W].
        truth: class numbers [H, W]; 255 where a pixel counts for nothing.
        baseline: class numbers [H, W].
        variant: class numbers [H, W].
        palette: a colour a class.
        caption: written under it.
        names: of baseline and variant.
    """
    table = colours(palette)
    panels = {
        "image": image.permute(1, 2, 0),
        "truth": table[truth.long()],
        names[0]: table[baseline.long()],
        names[1]: table[variant.long()],
        "where they differ": differences(image, truth, baseline, variant),
    }
    cells = "".join(_panel(name, pixels) for name, pixels in panels.items())
    return (
        f'<div style="break-inside: avoid"><div style="display: flex; flex-wrap: wrap; gap: 8px">{cells}</div>'
        f'<div style="font-size: 13px; color: var(--muted, #6a737d)">{html.escape(caption)}</div></div>'
    )


def differences(image: Tensor, truth: Tensor, baseline: Tensor, variant: Tensor) -> Tensor:
    """uint8 [H, W, 3]: blue where only the variant is right, orange where only the baseline is, else the image, pale.

    Grey is where both are wrong in different ways.
    """
    grey = image.float().mean(0, keepdim=True).expand(3, -1, -1).permute(1, 2, 0)
    pixels = (255 - (255 - grey) * 0.35).to(torch.uint8)
    counts = (truth != IGNORE) & (baseline != variant)
    for where, colour in (
        (counts & (variant == truth), _rgb(RIGHT)),
        (counts & (baseline == truth), _rgb(WRONG)),
        (counts & (baseline != truth) & (variant != truth), _GREY),
    ):
        pixels[where] = torch.tensor(colour, dtype=torch.uint8)
    return pixels


def _panel(name: str, pixels: Tensor) -> str:
    picture = Image.fromarray(np.ascontiguousarray(pixels.numpy()))
    rendering = "pixelated" if max(picture.size) <= 160 else "auto"
    picture.thumbnail((_PIXELS, _PIXELS))
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    url = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
    return (
        f'<figure style="margin: 0; width: 150px; font-size: 13px"><img alt="{html.escape(name)}" src="{url}" '
        f'style="width: 150px; height: 150px; object-fit: contain; image-rendering: {rendering}; '
        f'background: var(--grid, #dfe3e8); border-radius: 4px">{html.escape(shorten(name))}</figure>'
    )


def _rgb(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)
