"""Names beside the points of a scatter plot, placed so that none covers another name or a point."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from rfaconv.figures import MUTED, PAPER

# Where a label's near edge may lie: directions in order of preference (degrees), each at growing distances (points).
_DIRECTIONS = (0, 180, 35, 325, 145, 215, 90, 270)
_DISTANCES = (9, 16, 26, 38, 52, 68)
_FONT_SIZE = 9.5


def place_labels(figure: Figure, axes: Axes, places: Sequence[tuple[float, float, str]]) -> None:
    """Write each text near its point (x, y) of `axes`, with a thin line to it where it must stand further off.

    Call it last: it lays the figure out and uses the positions that come of it.
    """
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    frame = axes.get_window_extent()
    pixel = figure.dpi / 72
    points = [axes.transData.transform((x, y)) for x, y, _ in places]
    radius = 6 * pixel
    taken = [Bbox.from_extents(x - radius, y - radius, x + radius, y + radius) for x, y in points]
    for (x, y, text), (at_x, at_y) in zip(places, points, strict=True):
        label = axes.annotate(text, (x, y), (0, 0), textcoords="offset points", fontsize=_FONT_SIZE)
        size = label.get_window_extent(canvas.get_renderer())
        offset, box, far = _free_place(at_x, at_y, size.width + 2 * pixel, size.height, pixel, frame, taken)
        taken.append(box)
        label.remove()
        axes.annotate(
            text,
            (x, y),
            (offset[0] / pixel, offset[1] / pixel),
            textcoords="offset points",
            fontsize=_FONT_SIZE,
            ha="center",
            va="center",
            # Grid and reference lines pass behind a name, not through it.
            bbox={"facecolor": PAPER, "edgecolor": "none", "pad": 0.6},
            arrowprops={"arrowstyle": "-", "color": MUTED, "linewidth": 0.7, "shrinkB": 5} if far else None,
        )


def _free_place(
    x: float, y: float, width: float, height: float, pixel: float, frame: Bbox, taken: Sequence[Bbox]
) -> tuple[tuple[float, float], Bbox, bool]:
    """The first free place for a label: its centre's offset from the point, its box, whether it is far off.

    If all are taken, the one that covers least.
    """
    best: tuple[float, tuple[float, float], Bbox, bool] | None = None
    for distance in _DISTANCES:
        for degrees in _DIRECTIONS:
            across, up = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
            offset = (
                across * distance * pixel + _sign(across) * width / 2,
                up * distance * pixel + _sign(up) * height / 2,
            )
            box = Bbox.from_bounds(x + offset[0] - width / 2, y + offset[1] - height / 2, width, height)
            covered = sum(_overlap(box, other) for other in taken) + _outside(box, frame)
            if best is None or covered < best[0]:
                best = covered, offset, box, distance > _DISTANCES[1]
            if covered == 0:
                return offset, box, distance > _DISTANCES[1]
    assert best is not None
    return best[1:]


def _sign(value: float) -> float:
    return 0.0 if abs(value) < 1e-9 else math.copysign(1.0, value)


def _overlap(box: Bbox, other: Bbox) -> float:
    found = Bbox.intersection(box, other)
    return 0.0 if found is None else found.width * found.height


def _outside(box: Bbox, frame: Bbox) -> float:
    return box.width * box.height - _overlap(box, frame)
