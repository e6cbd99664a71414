"""The picture of layers' costs: what stands in it, and the files it becomes."""

from __future__ import annotations

import sys
from itertools import combinations
from pathlib import Path
from xml.etree import ElementTree

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from rfaconv import UserError
from rfaconv.errors import MissingExtraError
from rfaconv.figures import PAPER
from rfaconv.profiling import SHAPES, LayerCost, LayerShape, Ratio, parse_shape
from rfaconv.profiling.plots import layers_figure, layers_plot, plot_format

FACTS = {"cpu": "a cpu", "torch": "2.6.0", "os": "an os"}


def cost(conv: str, shape: LayerShape, times: float, plain: float | None = None) -> LayerCost:
    slow = None if plain is None else Ratio(plain, plain - 1, plain + 1)
    own = (Ratio(times, times - 0.5, times + 1), Ratio(2, 2, 2), 1.5, 0.75)
    return LayerCost(conv, shape, 1.5, 4.5, 20, 25, *own, slow, None, plain, plain)


LAYERS = [
    cost("rfa", SHAPES[0], 2, plain=8),
    cost("ca", SHAPES[0], 1.1),
    cost("rfa", SHAPES[4], 8, plain=2),
    cost("ca", SHAPES[4], 1.1),
]


def test_a_row_a_layer_and_a_panel_a_kind() -> None:
    panels = layers_figure(LAYERS, FACTS).axes
    assert [panel.get_title(loc="left") for panel in panels] == ["inference", "training", "block memory"] * 2
    assert [text.get_text() for panel in panels for text in panel.texts] == ["rfa", "ca"]
    assert {panel.get_xscale() for panel in panels} == {"log"}
    assert [label.get_text() for label in panels[0].get_yticklabels()] == ["8x64x56x56", "8x64x56x56 to 128 s2"]
    assert len(layers_figure(LAYERS[:1], FACTS).axes) == 3


def test_a_panel_shows_medians_quartiles_the_plain_formula_and_the_means() -> None:
    panel = layers_figure(LAYERS, FACTS).axes[0]
    drawn = {str(line.get_label()): line for line in panel.lines if line.get_marker() == "s"}
    assert list(drawn) == ["4.00x", "plain 4.00x"]  # the means of 2 and 8
    own, plain = drawn.values()
    assert list(own.get_xdata()) == [2, 8]
    assert list(plain.get_xdata()) == [8, 2]
    assert plain.get_markerfacecolor() == PAPER != own.get_markerfacecolor()
    assert all(line.get_xdata()[0] == 1 for line in panel.lines if len(set(line.get_xdata())) == 1)
    bars = [[(x, y) for x, y in segment] for bars in panel.collections for segment in bars.get_segments()]
    ends = [(left[0], right[0]) for left, right in bars]
    assert ends == [(1.5, 3), (7.5, 9), (7, 9), (1, 3)]
    # Each bar lies at its marker, the first shape at the top.
    assert [bar[0][1] for bar in bars] == [*own.get_ydata(), *plain.get_ydata()]
    assert panel.get_ylim()[0] > panel.get_ylim()[1]
    legend = panel.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["4.00x", "plain 4.00x"]


def test_what_was_not_measured_is_not_drawn() -> None:
    training, memory = layers_figure(LAYERS, FACTS).axes[1:3]
    assert [text.get_text() for text in training.get_legend().get_texts()] == ["2.00x"]
    assert not training.collections  # no spread, no bars
    # What is below Conv2d's is in sight, and so is Conv2d's.
    assert memory.get_xlim()[0] < 0.75 < 1 < memory.get_xlim()[1]


def test_files_in_both_formats() -> None:
    assert layers_plot(LAYERS, FACTS, "png").startswith(b"\x89PNG")
    svg = layers_plot(LAYERS, FACTS, "svg")
    assert svg == layers_plot(LAYERS, FACTS, "svg")
    shown = " ".join(ElementTree.fromstring(svg).itertext())
    for words in ("rfa", "block memory", "8x64x56x56 to 128 s2", "plain 4.00x", "cpu a cpu; torch 2.6.0"):
        assert words in shown
    assert "an os" not in shown


def test_nothing_covers_anything_with_many_layers_of_long_names() -> None:
    shape = parse_shape("16x1024x224x224 to 2048 s2 k7")
    layers = [cost(f"a_name_without_end_{number}", shape, 112, 113) for number in range(8)]
    figure = layers_figure(layers, FACTS)
    figure.set_layout_engine("constrained")
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    assert len(figure.axes) == 24
    for panel in figure.axes:
        words = [panel.title, panel._left_title, *panel.get_legend().get_texts(), *panel.texts]
        boxes = [text.get_window_extent() for text in words if text.get_text()]
        assert not any(box.overlaps(other) for box, other in combinations(boxes, 2))
        assert all(box.x0 >= 0 for box in boxes)


def test_the_format_is_that_of_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (plot_format(Path("a.b/layers.PNG")), plot_format(Path("layers.svg"))) == ("png", "svg")
    for name in ("layers.pdf", "layers", ".svg"):
        with pytest.raises(UserError, match=r"A plot is a \.png or \.svg file"):
            plot_format(Path(name))
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"'matplotlib'.*pip install 'rfaconv\[classify\]'"):
        plot_format(Path("layers.svg"))
