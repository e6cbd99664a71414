"""Ultralytics' trainer with a comparison's manners: randomness tied to the place in the run, a kill costs an epoch.

Ultralytics resumes from half-precision averages, so that a resumed training is another one. Here the whole state is
kept, in a file that is replaced at once.
"""

from __future__ import annotations

import math
import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from ultralytics.utils.torch_utils import strip_optimizer

from rfaconv.data.detection import DetectionData
from rfaconv.data.sampling import derive_seed
from rfaconv.errors import UserError
from rfaconv.files import replacing, write_text
from rfaconv.models.yolo.trainer import AttentionDetectionTrainer
from rfaconv.tasks.callbacks import Progress, curves_csv
from rfaconv.tasks.detect.dataset import CheckedDataset
from rfaconv.tasks.module import weights_are_finite

CURVES = ("lr", "train_loss", "val_loss", "val_map50", "val_map")


class RecipeTrainer(AttentionDetectionTrainer):
    """One training in a folder of its own, which goes on where it was.

    Writes state.pt (until the end: everything it takes to go on), metrics.csv and, at last, model.pt: the average of
    the weights in Ultralytics' form, which its tools read.

    Args:
        settings: Ultralytics', with project and name for the folder.
        config: the model's.
        images: to train and validate on.
        report: told of the progress.
        weights: a trained model of that configuration to go on from.

    Attributes:
        curves: one value an epoch; val_map50 and val_map by Ultralytics' own reckoning.
        seconds: wall time of the training, over all its parts.
        diverged: the epoch (from 1) in which the loss or the weights stopped being finite, which ends the training.
    """

    def __init__(
        self,
        settings: dict[str, Any],
        config: dict[str, Any],
        images: DetectionData,
        report: Callable[[Progress], None] | None = None,
        weights: nn.Module | None = None,
    ) -> None:
        super().__init__(overrides=settings)
        self.report, self.images = report, images
        self.curves: dict[str, list[float]] = {name: [] for name in CURVES}
        self.seconds = 0.0
        self.diverged: int | None = None
        self._started, self._batch = time.perf_counter(), 0
        self.add_callback("on_train_epoch_start", RecipeTrainer._begin_epoch)
        self.add_callback("on_train_batch_end", RecipeTrainer._count_batch)
        # Channels last: a fifth faster on two cores of a CPU, and what tensor cores want.
        self.model = self.get_model(cfg=config, weights=weights).to(memory_format=torch.channels_last)

    @property
    def state_path(self) -> Path:
        return Path(self.save_dir) / "state.pt"

    @property
    def model_path(self) -> Path:
        return Path(self.save_dir) / "model.pt"

    def finished(self) -> bool:
        """Whether all epochs were done by an earlier start, whose curves it then has."""
        state = self._read_state()
        whole = self.model_path.is_file() and bool(state) and state["epoch"] + 1 >= self.epochs
        if not state or not (state["diverged"] or whole):
            return False
        self.curves, self.seconds, self.diverged = state["curves"], state["seconds"], state["diverged"]
        return True

    def build_dataset(self, img_path: str, mode: str = "train", batch: int | None = None) -> CheckedDataset:
        """The images with the boxes that were read and checked."""
        train = mode == "train"
        model: Any = self.model
        return CheckedDataset(
            self.images.train if train else self.images.val, self.data, self.args, batch_size=batch or self.batch_size,
            augment=train, rect=False, stride=max(int(model.stride.max()), 32),
        )  # fmt: skip

    def resume_training(self, ckpt: Any) -> None:
        """Go on from state.pt, where there is one."""
        state = self._read_state()
        if state:
            self.model.load_state_dict(state["model"])
            self.ema.ema.load_state_dict(state["ema"])
            self.ema.updates = state["updates"]
            self.optimizer.load_state_dict(state["optimizer"])
            self.scaler.load_state_dict(state["scaler"])
            self.best_fitness, self.start_epoch = state["best_fitness"], state["epoch"] + 1
            self.curves, self.seconds = state["curves"], state["seconds"]
            if self.start_epoch > self.epochs - self.args.close_mosaic:
                self._close_dataloader_mosaic()  # older Ultralytics does so in one epoch only
        self._started = time.perf_counter()

    def save_model(self) -> bool:
        """Keep the state of the epoch that is done; after the last one, write model.pt first."""
        self._record()
        if not math.isfinite(self.curves["train_loss"][-1]) or not weights_are_finite(self.model):
            self.diverged, self.stop = self.epoch + 1, True
        elif self.epoch + 1 >= self.epochs:
            super().save_model()
            made = Path(self.save_dir) / ".model.pt"
            strip_optimizer(self.last, str(made))
            os.replace(made, self.model_path)
        now = time.perf_counter()
        self.seconds, self._started = self.seconds + now - self._started, now
        state = {
            "epoch": self.epoch,
            "model": self.model.state_dict(),
            "ema": self.ema.ema.state_dict(),
            "updates": self.ema.updates,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "best_fitness": None if self.best_fitness is None else float(self.best_fitness),
            "curves": self.curves,
            "seconds": self.seconds,
            "diverged": self.diverged,
        }
        with replacing(self.state_path) as file:
            torch.save(state, file)
        write_text(Path(self.save_dir) / "metrics.csv", curves_csv(self.curves))
        return True

    def final_eval(self) -> None:
        """Nothing: the last epoch counts, and it is evaluated by COCO's definition."""

    def _handle_nan_recovery(self, epoch: int) -> bool:
        """A training that diverges is a result: `save_model` ends it."""
        return False

    def _read_state(self) -> dict[str, Any]:
        if not self.state_path.is_file():
            return {}
        try:
            return torch.load(self.state_path, map_location=self.device, weights_only=True)
        except Exception as error:
            raise UserError(f"'{self.state_path}' cannot be read ({error}); delete it to start anew.") from error

    def _begin_epoch(self) -> None:
        """Order, augmentation and mosaics depend on the seed and the epoch alone."""
        seed = derive_seed("detect", self.args.seed, self.epoch)
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch.manual_seed(seed)
        self.train_loader.generator.manual_seed(seed)
        self.train_loader.reset()  # nothing fetched ahead, no draw that only a first epoch makes
        dataset = self.train_loader.dataset
        for index in getattr(dataset, "buffer", []):
            dataset.ims[index] = None
        dataset.buffer = []  # mosaics are made of this epoch's images
        self._batch = 0
        self._tell()

    def _count_batch(self) -> None:
        self._batch += 1
        batches = len(self.train_loader)
        if self._batch % max(1, batches // 100) == 0:
            self._tell()

    def _tell(self) -> None:
        if self.report is not None:
            figures = {name: values[-1] for name, values in self.curves.items() if values}
            self.report(Progress(self.epoch + self._batch / len(self.train_loader), self.epochs, figures))

    def _record(self) -> None:
        """The epoch's figures; Ultralytics' names differ between its versions, its metrics' do not."""
        losses = self.tloss.values() if isinstance(self.tloss, dict) else torch.atleast_1d(self.tloss)
        metrics = self.metrics
        figures = {
            "lr": self.optimizer.param_groups[0]["lr"],
            "train_loss": sum(float(loss) for loss in losses),
            "val_loss": sum(float(value) for name, value in metrics.items() if name.startswith("val/")),
            "val_map50": float(metrics["metrics/mAP50(B)"]),
            "val_map": float(metrics["metrics/mAP50-95(B)"]),
        }
        for name, value in figures.items():
            self.curves[name].append(value)
