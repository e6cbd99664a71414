"""Checkpoints of a training, and the models it ends with: written atomically, read without unpickling code."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import CheckpointIO
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from rfaconv.errors import UserError, require
from rfaconv.files import replacing
from rfaconv.models import create_model


class AtomicCheckpointIO(CheckpointIO):
    """Lightning's checkpoints: a kill leaves the old one or the new one; loading is weights_only."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        with replacing(Path(path)) as file:
            torch.save(checkpoint, file)

    def load_checkpoint(
        self, path: Any, map_location: Callable[..., Any] | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        try:
            return torch.load(path, map_location=map_location or "cpu", weights_only=True)
        except Exception as error:
            raise UserError(f"The checkpoint '{path}' cannot be read ({error}); delete it to start anew.") from error

    def remove_checkpoint(self, path: Any) -> None:
        Path(path).unlink(missing_ok=True)


@dataclass(frozen=True)
class ModelRecord:
    """What it takes to rebuild a trained classifier and to feed it."""

    model: str
    conv: str
    classes: tuple[str, ...]
    channels: int
    image_size: int
    """Side of the images in pixels."""
    eval_transform: str
    task: str = "classify"

    def build(self) -> nn.Module:
        """The model, freshly initialised."""
        return create_model(self.model, self.conv, num_classes=len(self.classes), in_chans=self.channels)

    @classmethod
    def read(cls, found: dict[str, Any]) -> ModelRecord:
        """From what JSON made of it."""
        return cls(**{**found, "classes": tuple(found["classes"])})


def save_model(path: Path, model: nn.Module, record: Any) -> None:
    """Write the weights with their record as a safetensors file."""
    weights = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    with replacing(path) as file:
        file.write(save(weights, {"rfaconv": json.dumps(asdict(record))}))


def load_model(path: Path) -> tuple[nn.Module, Any]:
    """The model of a file that `save_model` wrote, in eval mode, and its record; record.task tells of which kind it is.

    Raises:
        UserError: no such file, or not one of ours.
    """
    if path.is_dir():
        path = path / "model.safetensors"
    if not path.is_file():
        raise UserError(f"There is no model '{path}'; `rfaconv train` writes one as OUT/model.safetensors.")
    try:
        with safe_open(path, "pt") as file:
            found = json.loads((file.metadata() or {})["rfaconv"])
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        record = _record_class(found.get("task", "classify")).read(found)
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"'{path}' is no model that rfaconv saved ({error!r}).") from error
    model = record.build()
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise UserError(f"The weights in '{path}' do not fit {record.model} with {record.conv}: {error}") from error
    return model.eval(), record


def _record_class(task: str) -> Any:
    if task == "segment":
        return require("rfaconv.tasks.segment.record", "segment").SegmenterRecord
    if task != "classify":
        raise ValueError(f"of an unknown task '{task}'")
    return ModelRecord
