"""What all pictures of a report share: one look, one style a convolution, and Figures as inline SVG.

The SVG follows the page it is in: ink and grid take the page's colours, in light and dark mode. Text stays text, so
that it can be searched and read aloud. The same input gives the same bytes.
"""

from __future__ import annotations

import html
import io
import re
import warnings
import zlib
from collections.abc import Callable
from typing import NamedTuple

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Stand-ins that matplotlib understands; `_follow_the_page` replaces them by the page's own colours.
INK = "#1f2328"
MUTED = "#6a737d"
GRID = "#dfe3e8"
PAPER = "#fefefe"

RIGHT = "#0072b2"
WRONG = "#d55e00"

_LOOK = {
    "axes.axisbelow": True,
    "axes.edgecolor": MUTED,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.labelsize": 10,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 11,
    "figure.constrained_layout.use": True,
    "figure.facecolor": "none",
    "font.family": ["sans-serif"],
    # Layout is done with the first; the others are as wide or narrower, so that nothing overlaps in them.
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Helvetica", "Arial", "sans-serif"],
    "font.size": 10,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "savefig.facecolor": "none",
    "svg.fonttype": "none",
    "svg.hashsalt": "rfaconv",
    "text.color": INK,
    # A dollar sign in a class name is a dollar sign.
    "text.parse_math": False,
    "xtick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.color": MUTED,
    "ytick.labelcolor": INK,
}

# Okabe and Ito's palette, told apart with every common colour blindness; one colour an attention.
_ATTENTIONS = {
    "none": "#7b8490",
    "softmax": "#d55e00",
    "cam": "#cc79a7",
    "cbam": "#009e73",
    "ca": "#0072b2",
}
_SPARE = ("#e69f00", "#56b4e9", "#8c6d31")
_SPECIAL = {"conv": ("none", False), "rf": ("none", True), "rfa": ("softmax", True)}


class ConvStyle(NamedTuple):
    """How a convolution is drawn: the colour says its attention, marker and line what it looks at."""

    color: str
    marker: str
    line: str


def conv_style(conv: str) -> ConvStyle:
    """The style of the convolution of that short name, the same in all pictures; also of names not known here."""
    attention, receptive_field = _SPECIAL.get(conv, (conv.removeprefix("rf"), conv.startswith("rf")))
    color = _ATTENTIONS.get(attention) or _SPARE[zlib.crc32(attention.encode()) % len(_SPARE)]
    return ConvStyle(color, "s" if receptive_field else "o", "-" if receptive_field else "--")


def draw_svg(draw: Callable[[Figure], None], *, name: str, label: str, width: float, height: float) -> str:
    """Let `draw` fill a Figure of `width` x `height` inches and return it as inline SVG.

    Args:
        name: prefixes every id, so that pictures of different names do not clash in one page.
        label: what the picture shows, for who cannot see it.
    """
    # "default" first: a user's matplotlibrc must not change the report.
    with matplotlib.style.context(["default", _LOOK]), warnings.catch_warnings():
        # Class names may be in any script; the browser has the glyphs that the layout font lacks.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure = Figure(figsize=(width, height))
        draw(figure)
        return figure_to_svg(figure, name=name, label=label)


def figure_to_svg(figure: Figure, *, name: str, label: str) -> str:
    """A Figure as an <svg> element for an HTML page; use `draw_svg` where the figure is yours to make."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    svg = buffer.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    # Inside tags only: text between them may hold anything a class name holds.
    svg = re.sub(r"<[^>]*>", lambda tag: _with_prefix(_follow_the_page(tag[0]), name), svg)
    pixels = figure.get_size_inches() * 96
    style = f"width: 100%; max-width: {pixels[0]:.0f}px; min-width: {0.68 * pixels[0]:.0f}px; height: auto"
    opening = f'<svg role="img" aria-label="{html.escape(label)}" style="{style}"'
    return svg.replace("<svg", opening, 1).strip()


def shorten(text: str, most: int = 24) -> str:
    """`text` on one line, without control characters, of at most `most` characters."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= most else line[: most - 1].rstrip() + "…"


def bare(axes: Axes) -> None:
    """Take grid, ticks' marks and frame off `axes`."""
    axes.grid(False)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _with_prefix(tag: str, name: str) -> str:
    tag = re.sub(r'\bid="', f'id="{name}-', tag)
    return tag.replace("url(#", f"url(#{name}-").replace('href="#', f'href="#{name}-')


def _follow_the_page(tag: str) -> str:
    tag = tag.replace(INK, "currentColor").replace(MUTED, f"var(--muted, {MUTED})")
    return tag.replace(GRID, f"var(--grid, {GRID})").replace(PAPER, f"var(--paper, {PAPER})")
