"""Ultralytics' trainer, building our models. Its worker processes import this module, and with it all layers."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.utils import RANK

from rfaconv.models.yolo.model import AttentionDetectionModel


class AttentionDetectionTrainer(DetectionTrainer):
    """DetectionTrainer whose models may have our layers.

    It trains with the threads torch has. Ultralytics takes one core less than there are: of two, half.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        threads = torch.get_num_threads()
        super().__init__(*args, **kwargs)
        torch.set_num_threads(threads)

    def get_model(self, cfg: Any = None, weights: nn.Module | None = None, verbose: bool = True) -> nn.Module:
        """A model of that configuration for the data's classes, with `weights` where they fit."""
        model = AttentionDetectionModel(
            cfg, nc=self.data["nc"], ch=self.data["channels"], verbose=verbose and RANK == -1
        )
        named = getattr(self, "set_model_names_for_load", None)
        if named is not None:
            model = named(model)
        if weights is not None:
            model.load(weights)
        return model
