"""What looks on while a model is trained: the report of its progress, and the file of its curves."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lightning.pytorch import Callback, LightningModule, Trainer

from rfaconv.files import write_text


class Progress(NamedTuple):
    """Where a training is: `done` of `total` epochs (with a fraction), and the last epoch's figures."""

    done: float
    total: int
    figures: dict[str, float]


class ProgressCallback(Callback):
    """Calls `report` during the training, about a hundred times an epoch at most, on the first process only."""

    def __init__(self, report: Callable[[Progress], None]) -> None:
        self.report = report

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._tell(trainer, pl_module, trainer.current_epoch)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        batches = int(trainer.num_training_batches)
        if batch_idx % max(1, batches // 100) == 0:
            self._tell(trainer, pl_module, trainer.current_epoch + (batch_idx + 1) / batches)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._tell(trainer, pl_module, trainer.current_epoch + 1)

    def _tell(self, trainer: Trainer, module: LightningModule, done: float) -> None:
        if trainer.is_global_zero:
            figures = {name: values[-1] for name, values in _curves(module).items() if values}
            self.report(Progress(done, trainer.max_epochs or 0, figures))


class CurvesFile(Callback):
    """The curves as a CSV file, written anew after every epoch, so that a resumed run has one whole file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:
            write_text(self.path, curves_csv(_curves(pl_module)))


def curves_csv(curves: Mapping[str, Sequence[float]]) -> str:
    """A row an epoch, counted from 1."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["epoch", *curves])
    for epoch, row in enumerate(zip(*curves.values(), strict=True), start=1):
        table.writerow([epoch, *row])
    return text.getvalue()


def _curves(module: LightningModule) -> dict[str, list[float]]:
    """A task's Lightning module keeps one value an epoch for each curve, and saves them in its checkpoint."""
    curves: dict[str, list[float]] = module.curves
    return curves
