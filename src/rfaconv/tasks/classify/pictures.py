"""A classifier's pictures: which classes it confuses, and what it makes of single images."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from rfaconv.figures import INK, RIGHT, WRONG, bare, draw_svg, shorten

MOST_NUMBERED = 15
"""Up to so many classes each cell of the matrix shows its number."""
MOST_CLASSES = 50
"""With more classes than that the matrix is unreadable: the most confused pairs are shown instead."""
MOST_PAIRS = 30

_EXAMPLE_PIXELS = 224


def confusion_matrix(classes: Sequence[str], matrix: Any, name: str = "confusion") -> str:
    """How often each class was taken for each, as SVG: truth down, prediction across.

    Right answers and wrong ones differ in place (the diagonal) as well as in colour; depth of colour is the share of
    the true class, on a square-root scale so that rare confusions show. Above `MOST_CLASSES` classes the most confused
    pairs are shown as bars instead.

    Args:
        classes: their names, in the order of the matrix.
        matrix: counts [truth, prediction], an integer tensor or array.
        name: prefixes the ids of the SVG; give each matrix of one page another.

    Raises:
        ValueError: the matrix is not square with one row a class.
    """
    counts = np.asarray(matrix)
    if counts.shape != (len(classes), len(classes)):
        raise ValueError(f"The confusion matrix of {len(classes)} classes has the shape {counts.shape}.")
    if len(classes) > MOST_CLASSES:
        return _confused_pairs(classes, counts, name)
    labels = [shorten(text, 18) for text in classes]
    size = 10 if len(classes) <= 25 else 7.5
    # Inches a class, and beside the matrix: a letter is some 0.6 of its size wide.
    cell = max(0.37, 1.6 / len(classes)) if len(classes) <= MOST_NUMBERED else 0.024 * size
    longest = max(map(len, labels)) * 0.62 * size / 72
    margin = longest + 0.5
    upright = longest > 0.85 * cell

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        # Pixels exactly as they are, sharp at every zoom.
        axes.imshow(_cells(counts), interpolation="none")
        bare(axes)
        places = range(len(classes))
        axes.set_yticks(places, labels, fontsize=size)
        axes.set_xticks(places, labels, fontsize=size, rotation=90 if upright else 0)
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")
        if len(classes) <= MOST_NUMBERED:
            _numbers(axes, counts)

    matrix_side = cell * len(classes)
    return draw_svg(
        draw,
        name=name,
        label="Confusion matrix",
        width=matrix_side + margin,
        height=matrix_side + (margin if upright else 0.7),
    )


class Examples(NamedTuple):
    """Indices of images worth looking at, by what they show."""

    gained: list[int]
    """Wrong by the baseline, right by the variant."""
    lost: list[int]
    """Right by the baseline, wrong by the variant."""
    both_wrong: list[int]

    @property
    def indices(self) -> list[int]:
        """All of them: gained, lost, both wrong."""
        return self.gained + self.lost + self.both_wrong

    def remarks(self, baseline: str, variant: str) -> list[str]:
        """For each of `indices` what it shows, to be written under the image."""
        return (
            [f"only {variant} is right"] * len(self.gained)
            + [f"only {baseline} is right"] * len(self.lost)
            + ["both are wrong"] * len(self.both_wrong)
        )


def choose_examples(
    truth: Sequence[int], baseline_pred: Sequence[int], best_pred: Sequence[int], count: int
) -> Examples:
    """At most `count` images: a third gained, a third lost, a third that both get wrong.

    Where one kind has too few, the others fill up, in that order. Within a kind they are spread evenly over the data,
    so that sorted data do not give images of one class only; the same input gives the same choice.
    """
    true, base, best = (np.asarray(values) for values in (truth, baseline_pred, best_pred))
    kinds = [
        np.flatnonzero((base != true) & (best == true)),
        np.flatnonzero((base == true) & (best != true)),
        np.flatnonzero((base != true) & (best != true)),
    ]
    shares = [0, 0, 0]
    while sum(shares) < count and any(share < len(kind) for share, kind in zip(shares, kinds, strict=True)):
        for i, kind in enumerate(kinds):
            if shares[i] < len(kind) and sum(shares) < count:
                shares[i] += 1
    return Examples(*(_spread(kind, share) for kind, share in zip(kinds, shares, strict=True)))


def examples(
    images: Sequence[Any],
    truth: Sequence[int],
    predictions: Mapping[str, Sequence[int]],
    classes: Sequence[str],
    kinds: Sequence[str] = (),
) -> str:
    """Images with their true label and what each model made of them, as HTML that wraps to the page's width.

    Args:
        images: uint8 tensors or arrays [C, H, W] of any size, one channel (grey) or three (RGB).
        truth: a class index an image.
        predictions: for each convolution's name, a class index an image.
        classes: their names.
        kinds: if given, a short remark an image, e.g. "only rfa is right".
    """
    cards = [
        _card(
            image,
            classes[truth[i]],
            {conv: (classes[found[i]], found[i] == truth[i]) for conv, found in predictions.items()},
            kinds[i] if kinds else "",
        )
        for i, image in enumerate(images)
    ]
    return f'<div style="display: flex; flex-wrap: wrap; gap: 16px 14px">{"".join(cards)}</div>'


def _card(image: Any, true: str, found: Mapping[str, tuple[str, bool]], kind: str) -> str:
    lines = [f"<div><strong>{html.escape(shorten(true))}</strong></div>"]
    for conv, (name, right) in found.items():
        mark, color, word = (
            ("✓", f"var(--better, {RIGHT})", "right") if right else ("✗", f"var(--worse, {WRONG})", "wrong")
        )
        lines.append(
            f'<div><span style="color: {color}; font-weight: bold" role="img" aria-label="{word}">{mark}</span> '
            f"{html.escape(conv)}: {html.escape(shorten(name))}</div>"
        )
    if kind:
        lines.append(f'<div style="color: var(--muted, #6a737d)">{html.escape(kind)}</div>')
    return (
        '<div style="width: 132px; font-size: 13px; line-height: 1.35; overflow-wrap: anywhere; break-inside: avoid">'
        f'<img alt="" src="{_data_url(image)}" style="width: 132px; height: 132px; object-fit: contain; '
        f'image-rendering: {_rendering(image)}; background: var(--grid, #dfe3e8); border-radius: 4px">'
        f"{''.join(lines)}</div>"
    )


def _data_url(image: Any) -> str:
    pixels = np.asarray(image)
    pixels = pixels[0] if pixels.shape[0] == 1 else pixels[:3].transpose(1, 2, 0)
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    # A report is no album: what is shown at 132 pixels is stored at no more than a sharp screen can show.
    picture.thumbnail((_EXAMPLE_PIXELS, _EXAMPLE_PIXELS))
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _rendering(image: Any) -> str:
    """Tiny images are shown as the pixels they are; blurred they would look like something else."""
    return "pixelated" if max(np.asarray(image).shape[1:]) <= 64 else "auto"


def _cells(counts: NDArray[Any]) -> NDArray[np.float64]:
    """[classes, classes, RGBA]: transparent where nothing is, so that the page shows through in dark mode too."""
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    cells = np.empty((*counts.shape, 4))
    cells[..., :3] = to_rgb(WRONG)
    cells[np.eye(len(counts), dtype=bool), :3] = to_rgb(RIGHT)
    cells[..., 3] = np.sqrt(share)
    return cells


def _numbers(axes: Axes, counts: NDArray[Any]) -> None:
    depth = _cells(counts)[..., 3]
    for (row, column), count in np.ndenumerate(counts):
        if count:
            color = "#ffffff" if depth[row, column] > 0.6 else INK
            axes.text(column, row, str(count), ha="center", va="center", fontsize=8.5, color=color)


def _confused_pairs(classes: Sequence[str], counts: NDArray[Any], name: str) -> str:
    wrong = counts * (1 - np.eye(len(counts), dtype=counts.dtype))
    # Stable, so that ties are always shown in the same order.
    order = np.argsort(-wrong, axis=None, kind="stable")[:MOST_PAIRS]
    pairs = [divmod(int(place), len(counts)) for place in order if wrong.flat[place] > 0]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        if not pairs:
            axes.text(0.5, 0.5, "No image was taken for another class.", ha="center")
            axes.set_axis_off()
            return
        sizes = [int(wrong[pair]) for pair in pairs]
        axes.barh(range(len(pairs)), sizes, color=WRONG, height=0.7)
        labels = [f"{shorten(classes[true])} → {shorten(classes[found])}" for true, found in pairs]
        axes.set_yticks(range(len(pairs)), labels, fontsize=9)
        axes.set_ylim(len(pairs) - 0.4, -0.6)
        for place, (pair, size) in enumerate(zip(pairs, sizes, strict=True)):
            text = f"{size:,} ({100 * size / counts[pair[0]].sum():.0f} %)"
            axes.annotate(text, (size, place), (4, 0), textcoords="offset points", va="center", fontsize=8.5)
        axes.margins(x=0.16)
        bare(axes)
        axes.set_xticks([])
        figure.supxlabel("images of the first class taken for the second (share of the first class)", fontsize=10)

    label = f"The {len(pairs)} most confused pairs of {len(classes)} classes"
    return draw_svg(draw, name=name, label=label, width=7.2, height=0.9 + 0.24 * max(len(pairs), 3))


def _spread(places: NDArray[np.intp], count: int) -> list[int]:
    chosen = np.linspace(0, len(places) - 1, count).round().astype(int) if count else []
    return [int(places[i]) for i in chosen]
