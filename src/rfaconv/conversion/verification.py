"""How far two runs of a model lie apart: outputs of any nesting, tensor by tensor."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rfaconv.conversion.run import Forward, evaluating
from rfaconv.errors import UserError


@dataclass(frozen=True)
class Deviation:
    """The largest deviation of an output tensor, and which one it was.

    `relative` is the largest absolute difference divided by the largest absolute value of that tensor before.
    """

    relative: float
    where: str


def compare(before: Any, after: Any) -> Deviation:
    """The largest deviation over all tensors of two outputs of the same nesting.

    Integers and booleans must be equal, else the deviation is infinite; so it is where shapes or nesting differ.

    Raises:
        UserError: there is no tensor in the output, or the first one is not finite.
    """
    first, second = dict(tensors(before)), dict(tensors(after))
    if not first:
        raise UserError(f"The model's output holds no tensor to compare, it is a {type(before).__name__}.")
    if first.keys() != second.keys():
        return Deviation(math.inf, "the output's structure")
    return max((_deviation(name, first[name], second[name]) for name in first), key=lambda found: found.relative)


def verified(
    model: nn.Module, data: Sequence[Any], outputs: Sequence[Any], forward: Forward, tolerance: float
) -> Deviation:
    """The largest deviation of the model's outputs in eval mode from those it gave before.

    Raises:
        UserError: it is above the tolerance.
    """
    found = Deviation(0.0, "no output")
    with evaluating(model):
        for batch, before in zip(data, outputs, strict=True):
            found = max(found, compare(before, forward(model, batch)), key=lambda deviation: deviation.relative)
    if found.relative > tolerance:
        raise UserError(
            f"The changed model deviates by {found.relative:.1e} of the largest value in {found.where}, more than the "
            f"tolerance {tolerance:.0e}; the model is as it was."
        )
    return found


def tensors(output: Any, name: str = "output") -> Iterator[tuple[str, Tensor]]:
    """Every tensor in tensors, mappings, lists, tuples and dataclasses, with a name such as output['aux'][0]."""
    if isinstance(output, Tensor):
        yield name, output
    elif isinstance(output, Mapping):
        for key, value in output.items():
            yield from tensors(value, f"{name}[{key!r}]")
    elif isinstance(output, list | tuple):
        for index, value in enumerate(output):
            yield from tensors(value, f"{name}[{index}]")
    elif dataclasses.is_dataclass(output):
        for field in dataclasses.fields(output):
            yield from tensors(getattr(output, field.name), f"{name}.{field.name}")


def _deviation(name: str, before: Tensor, after: Tensor) -> Deviation:
    if before.shape != after.shape:
        return Deviation(math.inf, f"{name}, whose shape {list(before.shape)} became {list(after.shape)}")
    if not before.numel():
        return Deviation(0.0, name)
    if not (before.is_floating_point() or before.is_complex()):
        return Deviation(0.0 if torch.equal(before, after) else math.inf, name)
    if not before.isfinite().all():
        raise UserError(f"Before the conversion the model's {name} is not finite on the calibration data already.")
    largest = before.abs().max().item()
    difference = (after.to(before) - before).abs().max().item()
    if math.isnan(difference):
        return Deviation(math.inf, name)
    if not largest:
        return Deviation(math.inf if difference else 0.0, name)
    return Deviation(difference / largest, name)


def default_tolerance(model: nn.Module) -> float:
    """1e-4; in lower precision than float32 eight of its steps: 8e-3 in float16, 6e-2 in bfloat16."""
    steps = [torch.finfo(parameter.dtype).eps for parameter in model.parameters() if parameter.dtype.is_floating_point]
    return max(1e-4, 8 * max((step for step in steps if step > 1e-6), default=0.0))
