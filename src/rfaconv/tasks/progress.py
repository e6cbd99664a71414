"""How a training tells where it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from lightning.pytorch import Callback, LightningModule, Trainer


class Progress(NamedTuple):
    """Where a training is: `done` of `total` epochs (with a fraction), and the last epoch's figures."""

    done: float
    total: int
    figures: dict[str, float]


class ProgressCallback(Callback):
    """Calls `report` during the training, about a hundred times an epoch at most, on the first process only."""

    def __init__(self, report: Callable[[Progress], None]) -> None:
        self.report = report

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        batches = int(trainer.num_training_batches)
        if batch_idx % max(1, batches // 100) == 0:
            self._tell(trainer, module, trainer.current_epoch + (batch_idx + 1) / batches)

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        self._tell(trainer, module, trainer.current_epoch + 1)

    def _tell(self, trainer: Trainer, module: LightningModule, done: float) -> None:
        if trainer.is_global_zero:
            curves: dict[str, list[float]] = module.curves  # type: ignore[assignment]
            figures = {name: values[-1] for name, values in curves.items() if values}
            self.report(Progress(done, trainer.max_epochs or 0, figures))
