"""Running a model on calibration batches: eval mode, no gradients, batches in the usual forms."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from rfaconv.errors import UserError

Forward: TypeAlias = Callable[[nn.Module, Any], Any]
"""How a batch goes into a model: from (model, batch) to the model's output."""


def take_batches(data: Any, count: int) -> list[Any]:
    """The first `count` batches of a tensor (one batch) or of an iterable of batches, such as a DataLoader.

    Raises:
        UserError: no batch at all, or neither of these.
    """
    if data is None:
        return []
    if isinstance(data, Tensor):
        return [data]
    if not isinstance(data, Iterable) or isinstance(data, str | bytes | Mapping):
        raise UserError(
            "calibrate takes a batch (a tensor) or an iterable of batches, such as a DataLoader; "
            f"got {type(data).__name__}. A single batch that is no tensor goes in a list."
        )
    batches = list(islice(data, count))
    if not batches:
        raise UserError("calibrate holds no batch: give at least one, or none at all (calibrate=None).")
    return batches


def default_forward(model: nn.Module, batch: Any) -> Any:
    """model(batch) for a tensor, model(batch[0]) for (images, labels), model(**batch) for a mapping.

    Tensors go to the device of the model's first parameter.
    """
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    if isinstance(batch, Mapping):
        return model(**{name: _to(value, device) for name, value in batch.items()})
    if isinstance(batch, Sequence) and batch and isinstance(batch[0], Tensor):
        batch = batch[0]
    return model(_to(batch, device))


def _to(value: Any, device: torch.device) -> Any:
    return value.to(device) if isinstance(value, Tensor) else value


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode without gradients inside the block; every module's own mode again after it.

    Sets the flags itself: `train` of some models does other things than that.
    """
    modes = [(module, module.training) for module in model.modules()]
    for module, _ in modes:
        module.training = False
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def unchanged(model: nn.Module) -> Iterator[None]:
    """After the block every module has the attributes it had: some models keep grids from one run for the next."""
    held = [(module, dict(vars(module))) for module in model.modules()]
    contents = [(value, value.copy()) for _, values in held for value in values.values() if type(value) in _CONTAINERS]
    try:
        yield
    finally:
        for module, values in held:
            vars(module).clear()
            vars(module).update(values)
        for value, before in contents:
            value.clear()
            value.extend(before) if isinstance(value, list) else value.update(before)


_CONTAINERS = (dict, list, set, OrderedDict)


def one_image(batch: Any) -> Any:
    """The first image of a batch in one of the usual forms, as a batch; other things as they are."""
    if isinstance(batch, Tensor):
        return batch[:1]
    if isinstance(batch, Mapping):
        return {name: one_image(value) for name, value in batch.items()}
    if isinstance(batch, Sequence) and batch and isinstance(batch[0], Tensor):
        return [batch[0][:1]]
    return batch
