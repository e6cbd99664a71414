"""The comparison's own plots: what the accuracy costs, how sure the differences are, how training went."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from rfaconv.comparison.labels import place_labels
from rfaconv.comparison.results import Comparison, ModelCost, Plot
from rfaconv.comparison.statistics import Row
from rfaconv.figures import INK, MUTED, PAPER, conv_style, draw_svg, shorten

# Inches. Two panels stand side by side on a wide page, one under the other on a narrow one.
_PANEL = (5.0, 3.9)


def plots(comparison: Comparison) -> list[Plot]:
    """All of the comparison's own plots that its data allow, ready for the page."""
    label = comparison.metric.label
    heading = label if label[1:2].isupper() else label[:1].upper() + label[1:]  # mAP stays mAP
    side = "up" if comparison.metric.higher_is_better else "down"
    made = [
        Plot(
            f"{heading} against cost",
            f"Left and {side} is good. A point is the mean over the seeds, its vertical bar reaches from the lowest to "
            "the highest seed, its horizontal bar over the quartiles of the measured time; the dashed line is "
            f"{comparison.baseline}. "
            "Squares look at receptive-field features, circles at spatial ones; a colour is an attention.",
            _panels(against_macs(comparison), against_time(comparison)),
        ),
        Plot(
            f"Differences to {comparison.baseline}",
            "A dot is one seed, the mark their mean, the bar its 95 % interval (not adjusted for the number of "
            "variants). A filled mark is a verdict of better or worse, a hollow one is within noise or one seed.",
            _panels(differences(comparison)),
        ),
        Plot(
            "Training",
            "Lines are means over the seeds, bands reach from the lowest to the highest seed. A seed that diverged is "
            "a thin line of its own up to a cross at its last finite value.",
            _panels(
                KINDS["metric"](comparison),
                KINDS["loss"](comparison),
            ),
        ),
    ]
    return [plot for plot in made if plot.html]


def against_macs(comparison: Comparison) -> str:
    """The metric against multiply-adds, as SVG; "" if no cost is known."""
    most = max((cost.macs for cost in comparison.costs.values()), default=0)
    unit, name = (1e9, "G") if most >= 1e9 else (1e6, "M")
    label = f"multiply-adds an image ({name})"
    return _against(comparison, "macs", label, lambda cost: (cost.macs / unit,) * 3, "")


def against_time(comparison: Comparison) -> str:
    """The metric against the inference time relative to the baseline's, as SVG; "" if no cost is known."""

    def ratio(cost: ModelCost) -> tuple[float, float, float]:
        return cost.inference.median, cost.inference.low, cost.inference.high

    label = f"inference time relative to {comparison.baseline}"
    return _against(comparison, "time", label, ratio, "x")


def differences(comparison: Comparison) -> str:
    """The paired differences to the baseline, in points, with intervals and every seed, as SVG."""
    variants = [row for row in comparison.rows if row.difference is not None]
    if not variants:
        return ""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.axvline(0, color=INK, linewidth=1.2)
        for place, row in enumerate(variants):
            _difference(axes, place, row)
        axes.set_ylim(len(variants) - 0.4, -0.6)
        axes.set_yticks(range(len(variants)), [shorten(row.conv) for row in variants])
        axes.tick_params(axis="y", length=0)
        axes.grid(False, axis="y")
        axes.spines["left"].set_visible(False)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:+.4g}" if value else "0"))
        better, side = ("better →", 1.0) if comparison.metric.higher_is_better else ("← better", 0.0)
        axes.set_xlabel(f"{comparison.metric.label} minus that of {shorten(comparison.baseline)} (points)")
        axes.set_title(better, loc="right" if side else "left", fontsize=10, color=MUTED)

    label = f"Differences of {comparison.metric.label} to {comparison.baseline}, by convolution"
    height = 1.2 + 0.42 * len(variants)
    return draw_svg(draw, name="differences", label=label, width=5.6, height=height)


def training_curve(comparison: Comparison, key: str, label: str, scale: float = 1) -> str:
    """The curve `key` of every convolution against the epoch, times `scale`, as SVG; "" if no run has it."""
    curves = {conv: _curves(comparison, conv, key) for conv in comparison.convs}
    longest = max(curve.shape[-1] for whole, broken in curves.values() for curve in (whole, *broken))
    if not longest:
        return ""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for conv, (whole, broken) in curves.items():
            if whole.size:
                _curve(axes, conv, scale * whole, emphasised=conv == comparison.baseline)
            for curve in broken:
                _broken_curve(axes, conv, scale * curve, named=not whole.size)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.set_xlim(0.5, longest + 0.5)
        axes.set_xlabel("epoch")
        axes.set_ylabel(label)
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4, handlelength=2.4)

    name = f"curve-{key}".replace("_", "-")
    return draw_svg(draw, name=name, label=f"{label} against epoch", width=_PANEL[0], height=4.3)


def _against(
    comparison: Comparison,
    name: str,
    label: str,
    cost_of: Callable[[ModelCost], tuple[float, float, float]],
    unit: str,
) -> str:
    shown = [row for row in comparison.rows if row.conv in comparison.costs and row.interval is not None]
    if not shown:
        return ""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for row in comparison.rows:
            if row.verdict == "baseline" and row.interval is not None:
                axes.axhline(100 * row.interval.mean, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
        places = []
        for row in shown:
            x, left, right = cost_of(comparison.costs[row.conv])
            scores = 100 * np.array(list(comparison.scores(row.conv).values()))
            y = float(scores.mean())
            style = conv_style(row.conv)
            axes.errorbar(
                x,
                y,
                xerr=[[max(0, x - left)], [max(0, right - x)]],
                yerr=[[y - scores.min()], [scores.max() - y]],
                fmt="none",
                ecolor=style.color,
                elinewidth=1.4,
                alpha=0.6,
            )
            axes.plot(x, y, style.marker, color=style.color, markersize=9, markeredgecolor=PAPER)
            places.append((x, y, shorten(row.conv, 16)))
        _cost_axis(axes, [x for x, _, _ in places], unit)
        axes.set_xlabel(label)
        axes.set_ylabel(f"{comparison.metric.label} (%)")
        axes.margins(0.14, 0.12)
        place_labels(figure, axes, places)

    text = f"{comparison.metric.label} against {label}, by convolution"
    return draw_svg(draw, name=f"against-{name}", label=text, width=_PANEL[0], height=_PANEL[1])


def _cost_axis(axes: Axes, values: Sequence[float], unit: str) -> None:
    """Make x logarithmic where the costs differ by factors; its numbers are plain ones, with `unit` behind them."""
    if min(values) > 0 and max(values) > 4 * min(values):
        axes.set_xscale("log")
        # 1, 2, 5, 10, ... are enough for the few decades that costs span; matplotlib's own labels are powers of ten.
        decades = 10.0 ** np.arange(np.floor(np.log10(min(values))) - 1, np.ceil(np.log10(max(values))) + 1)
        axes.xaxis.set_major_locator(FixedLocator(np.outer(decades, [1, 2, 5]).ravel().tolist()))
        axes.xaxis.set_minor_locator(NullLocator())
    else:
        axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}{unit}"))


def _difference(axes: Axes, place: int, row: Row) -> None:
    assert row.difference is not None
    style = conv_style(row.conv)
    seeds = 100 * np.array(row.difference.per_seed)
    if row.difference.low is not None and row.difference.high is not None:
        ends = [100 * row.difference.low, 100 * row.difference.high]
        axes.plot(ends, [place, place], color=style.color, linewidth=2.4, solid_capstyle="round")
    # Below the bar, so that the seeds stay visible when they agree.
    axes.plot(seeds, np.full(len(seeds), place + 0.2), "o", color=style.color, markersize=4, alpha=0.75)
    filled = row.verdict in ("better", "worse")
    face = style.color if filled else PAPER
    axes.plot(
        100 * row.difference.mean,
        place,
        style.marker,
        markersize=9,
        markerfacecolor=face,
        markeredgecolor=style.color,
        markeredgewidth=1.8,
    )


def _curves(comparison: Comparison, conv: str, key: str) -> tuple[np.ndarray, list[np.ndarray]]:
    """[seeds, epochs] of the seeds that finished, as far as all got, and the finite start of each that diverged."""
    runs = [run for run in comparison.runs if run.conv == conv and run.curves.get(key)]
    finished = [run.curves[key] for run in runs if run.diverged is None]
    epochs = min((len(curve) for curve in finished), default=0)
    broken = []
    for run in runs:
        at = run.diverged
        if at is not None:
            curve = np.array(run.curves[key][:at], dtype=float)
            broken.append(curve[: np.argmin(np.isfinite(curve))] if not np.isfinite(curve).all() else curve)
    return np.array([list(curve[:epochs]) for curve in finished], dtype=float), broken


def _curve(axes: Axes, conv: str, curves: np.ndarray, emphasised: bool) -> None:
    style = conv_style(conv)
    epochs = np.arange(1, curves.shape[1] + 1)
    # A curve of one epoch has no line to show.
    marker = style.marker if len(epochs) == 1 else None
    axes.fill_between(epochs, curves.min(0), curves.max(0), color=style.color, alpha=0.1, linewidth=0)
    axes.plot(
        epochs,
        curves.mean(0),
        linestyle=style.line,
        color=style.color,
        linewidth=2.6 if emphasised else 1.6,
        marker=marker,
        label=shorten(conv, 16),
    )


def _broken_curve(axes: Axes, conv: str, curve: np.ndarray, named: bool) -> None:
    """A run that diverged; `named` in the legend where no other run of its convolution is."""
    style = conv_style(conv)
    label = f"{shorten(conv, 16)} (diverged)" if named else None
    epochs = np.arange(1, len(curve) + 1)
    axes.plot(epochs, curve, linestyle=style.line, color=style.color, linewidth=0.9, label=label)
    axes.plot(epochs[-1:], curve[-1:], "x", color=style.color, markersize=8)


def _panels(*svgs: str) -> str:
    return "".join(f'<div class="panel">{svg}</div>' for svg in svgs if svg)


KINDS: dict[str, Callable[[Comparison], str]] = {
    "macs": against_macs,
    "time": against_time,
    "differences": differences,
    "metric": lambda comparison: training_curve(
        comparison, f"val_{comparison.metric.key}", f"{comparison.metric.label}, validation (%)", 100
    ),
    "loss": lambda comparison: training_curve(comparison, "train_loss", "training loss"),
}
"""What `Comparison.plot` draws, by name: an SVG, "" where the data for it are missing."""
