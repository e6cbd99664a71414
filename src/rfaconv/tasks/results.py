"""What every task gives back: plain data that a comparison reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """The figure a task is judged by. `key` names it in RunResult.metrics, as a fraction of one."""

    key: str
    label: str
    higher_is_better: bool = True
    counts_images: bool = True
    """Whether it is the share of images that are right (or wrong); a mean IoU, say, is not."""


@dataclass(frozen=True)
class RunResult:
    """One finished training: a convolution and a seed."""

    conv: str
    seed: int
    metrics: Mapping[str, float]
    """Final figures on the validation data, e.g. {"top1": 0.884, "top5": 0.997, "loss": 0.33}."""
    curves: Mapping[str, Sequence[float]]
    """One value an epoch, e.g. {"train_loss": [...], "val_loss": [...], "val_top1": [...]}."""
    seconds: float
    """Wall time of the training, in seconds (of all its parts, if it was interrupted)."""
    diverged: int | None = None
    """The epoch (from 1) in which the loss or the weights stopped being finite; None where that did not happen."""


@dataclass(frozen=True)
class Plot:
    """One plot of a report, as an SVG or an <img> with its data in it."""

    title: str
    caption: str
    html: str

    def _repr_html_(self) -> str:
        return self.html
