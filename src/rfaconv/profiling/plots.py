"""Measured costs as a picture: a row a layer, a panel a kind of cost, the ratio to Conv2d shape by shape."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from rfaconv.errors import UserError, require
from rfaconv.profiling.layers import LayerCost, LayerMean, geometric_means
from rfaconv.profiling.numbers import three_digits
from rfaconv.profiling.shapes import LayerShape
from rfaconv.profiling.timing import Ratio

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_FORMATS = ("png", "svg")
_KINDS = {"inference": "inference", "training": "training", "block_memory": "block memory"}
_NOTE = (
    "Multiples of nn.Conv2d's at the same shape, on a log scale. Points are medians, bars reach over the quartiles, "
    "the numbers above a panel are geometric means over the shapes.\n"
    "Hollow: the same layer as the paper's formula step by step; none: it is computed the same way. "
    "Block memory: peak of training layer, BatchNorm2d and ReLU."
)
_FACTS = ("cpu", "gpu", "threads", "torch", "rfaconv", "rounds")


class _Series(NamedTuple):
    """The ratios of one layer and kind, each with the place of its shape in the panel, from the top."""

    label: str
    places: Sequence[int]
    ratios: Sequence[Ratio]
    hollow: bool


def plot_format(path: Path) -> str:
    """ "png" or "svg", by the file's name, if it can be drawn here.

    Raises:
        UserError: the name ends otherwise.
        MissingExtraError: matplotlib is not installed.
    """
    ending = path.suffix.lower().removeprefix(".")
    if ending not in _FORMATS:
        raise UserError(f"A plot is a .png or .svg file, got '{path.name}'.")
    require("matplotlib.figure", "classify")
    return ending


def layers_plot(costs: Sequence[LayerCost], facts: Mapping[str, str], file_format: str) -> bytes:
    """The file of a picture of what `layer_costs` found; needs matplotlib.

    Args:
        costs: as `layer_costs` gives them, of one layer or more.
        facts: as for the tables; a line of them stands at the foot of the picture.
        file_format: "png" or "svg"; the same costs give the same bytes.
    """
    style: Any = require("matplotlib.style", "classify")
    # "default" first: a user's matplotlibrc must not change the picture.
    with style.context(["default", _look()]):
        figure = layers_figure(costs, facts)
        file = io.BytesIO()
        # What would say when and with what it was drawn is left out.
        unsaid = {"Date": None} if file_format == "svg" else {"Software": None}
        figure.savefig(file, format=file_format, dpi=150, metadata={"Title": "Layers against Conv2d", **unsaid})
    return file.getvalue()


def layers_figure(costs: Sequence[LayerCost], facts: Mapping[str, str]) -> Figure:
    """The picture itself, in matplotlib's current style."""
    shapes = list(dict.fromkeys(cost.shape for cost in costs))
    means = geometric_means(costs)
    row = 0.62 + 0.21 * max(len(shapes), 2)
    figure: Figure = require("matplotlib.figure", "classify").Figure(figsize=(12, 1.1 + row * len(means)))
    panels = figure.subplots(len(means), len(_KINDS), sharex="col", sharey=True, squeeze=False)
    for index, (conv, mean) in enumerate(means.items()):
        of_layer = [cost for cost in costs if cost.conv == conv]
        _name(panels[index][0], conv)
        for axes, kind in zip(panels[index], _KINDS, strict=True):
            _panel(axes, conv, kind, _series(of_layer, mean, kind, shapes))
    for column, kind in enumerate(_KINDS):
        _ratio_axis(panels[-1][column], _extent(costs, kind))
        panels[-1][column].set_xlabel("times Conv2d's")
    panels[0][0].set_yticks(range(len(shapes)), [str(shape) for shape in shapes])
    panels[0][0].set_ylim(len(shapes) - 0.4, -0.6)
    known = "; ".join(f"{name} {facts[name]}" for name in _FACTS if name in facts)
    figure.supxlabel(f"{_NOTE}\n{known}", x=0.01, ha="left", fontsize=8, color=_house().MUTED)
    return figure


def _series(costs: Sequence[LayerCost], means: LayerMean, kind: str, shapes: Sequence[LayerShape]) -> list[_Series]:
    """The layer's own ratios, and the plain formula's if there are any."""
    found = []
    for name, label in ((kind, ""), (f"plain_{kind}", "plain ")):
        values = {shapes.index(cost.shape): getattr(cost, name) for cost in costs}
        ratios = {place: _as_ratio(value) for place, value in values.items() if value is not None}
        if ratios:
            label = f"{label}{three_digits(getattr(means, name))}x"
            found.append(_Series(label, list(ratios), list(ratios.values()), name != kind))
    return found


def _as_ratio(value: Ratio | float) -> Ratio:
    return value if isinstance(value, Ratio) else Ratio(value, value, value)


def _panel(axes: Axes, conv: str, kind: str, series: Sequence[_Series]) -> None:
    house = _house()
    color, marker, _ = house.conv_style(conv)
    axes.axvline(1, color=house.INK, linewidth=1)
    for index, line in enumerate(series):
        # Side by side, so that neither hides the other's quartiles.
        shift = 0.2 * (2 * index - len(series) + 1)
        heights = [place + shift for place in line.places]
        medians = [ratio.median for ratio in line.ratios]
        bars = [(max(0.0, ratio.median - ratio.low), max(0.0, ratio.high - ratio.median)) for ratio in line.ratios]
        if any(map(any, bars)):
            left, right = zip(*bars, strict=True)
            axes.errorbar(medians, heights, xerr=[left, right], fmt="none", ecolor=color, elinewidth=1.3, capsize=2.5)
        face = house.PAPER if line.hollow else color
        look = {"markersize": 5.5, "markerfacecolor": face, "markeredgewidth": 1.2}
        axes.plot(medians, heights, marker, color=color, label=line.label, **look)
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", labelbottom=True, labelsize=9)
    axes.set_title(_KINDS[kind], loc="left")
    # Beside the title, where no point can be.
    place: dict[str, Any] = {"loc": "lower right", "bbox_to_anchor": (1, 1), "borderaxespad": 0.3, "borderpad": 0.2}
    axes.legend(**place, ncols=2, fontsize=9, handletextpad=0, columnspacing=0.8)


def _name(axes: Axes, conv: str) -> None:
    """Write the layer's name at the head of its row, above the shapes, where a long one has room."""
    name = _house().shorten(conv, 18)
    place: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points", "ha": "right"}
    axes.annotate(name, (0, 1), (-8, 6), **place, fontsize=11, fontweight="bold")


def _extent(costs: Sequence[LayerCost], kind: str) -> tuple[float, float]:
    """The lowest and highest ratio of a kind over all layers, the plain formula's and 1 among them."""
    values = [getattr(cost, name) for cost in costs for name in (kind, f"plain_{kind}")]
    ratios = [_as_ratio(value) for value in values if value is not None]
    return min([1.0, *(ratio.low for ratio in ratios)]), max([1.0, *(ratio.high for ratio in ratios)])


def _ratio_axis(axes: Axes, extent: tuple[float, float]) -> None:
    """A log axis with a few plain numbers, at least from 0.9x to 2.2x: a few percent are not to look like much."""
    ticker: Any = require("matplotlib.ticker", "classify")
    low, high = min(extent[0] / 1.12, 0.9), max(extent[1] * 1.12, 2.2)
    steps = (1, 2, 5) if high > 6 * low else (1, 1.5, 2, 3, 4, 5, 6, 7, 8)
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    axes.xaxis.set_major_locator(ticker.FixedLocator([step * 10.0**power for power in range(-3, 5) for step in steps]))
    axes.xaxis.set_minor_locator(ticker.NullLocator())
    axes.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}x"))


def _look() -> dict[str, Any]:
    """Matplotlib's settings: those of the reports, for a file that stands alone on white."""
    house = _house()
    return {
        "axes.axisbelow": True,
        "axes.edgecolor": house.MUTED,
        "axes.facecolor": house.PAPER,
        "axes.grid": True,
        "axes.labelcolor": house.INK,
        "axes.labelsize": 9,
        "axes.spines.left": False,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "axes.titlesize": 10.5,
        "figure.constrained_layout.h_pad": 0.06,
        "figure.constrained_layout.use": True,
        "figure.constrained_layout.w_pad": 0.08,
        "figure.facecolor": house.PAPER,
        "grid.color": house.GRID,
        "legend.frameon": False,
        "svg.fonttype": "none",
        "svg.hashsalt": "rfaconv",
        "text.color": house.INK,
        "text.parse_math": False,
        "xtick.color": house.MUTED,
        "xtick.labelcolor": house.INK,
        "ytick.labelcolor": house.INK,
    }


def _house() -> Any:
    """Colours and markers of the reports: a layer looks the same everywhere. Brings matplotlib, so not at the top."""
    return require("rfaconv.figures", "classify")
