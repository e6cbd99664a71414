"""What models cost beside one another: size, time and memory, measured in alternation."""

from __future__ import annotations

import copy
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from rfaconv.errors import UserError, unknown_name
from rfaconv.profiling.busy import MOST_CONTENTION, MOST_SPREAD, Conditions, watching
from rfaconv.profiling.count import count
from rfaconv.profiling.memory import measurable, peak_memory
from rfaconv.profiling.timing import Ratio, alternate, ratio

MIB = 2**20


@dataclass(frozen=True)
class ModelCost:
    """What one model costs; the ratios are to the baseline's model, whose own are 1."""

    params: int
    macs: int
    """Multiply-adds for one image."""
    inference_ms: float
    """Median time of a forward pass of the batch in eval mode."""
    inference: Ratio
    training_ms: float
    """Median time of a training step with the batch: forward, backward and optimizer."""
    training: Ratio
    memory_mb: float
    """Peak memory of a training step, in MiB, above what model, optimizer and batch hold."""
    memory: Ratio
    conditions: Conditions = field(default_factory=Conditions)
    """What else the machine did meanwhile."""

    @property
    def spread(self) -> float:
        """The factor between the quartiles of the paired ratios, of inference or training, whichever is larger."""
        return max(ratio.high / ratio.low for ratio in (self.inference, self.training))

    @property
    def busy(self) -> str:
        """Why the times are not to be trusted, in a few words; "" if nothing speaks against them."""
        missing = self.conditions.missing_cores
        if missing is not None and missing > MOST_CONTENTION:
            return f"other processes kept {self.conditions.other_cores:.1f} cores busy"
        if self.spread > MOST_SPREAD:
            return f"the pairs' quartiles differ by {self.spread:.2f}x"
        return ""


def model_costs(
    models: Mapping[str, nn.Module],
    input_size: Sequence[int],
    *,
    batch: int,
    baseline: str | None = None,
    rounds: int = 15,
    train_rounds: int = 7,
    device: torch.device | str = "cpu",
    progress: Callable[[str], None] | None = None,
) -> dict[str, ModelCost]:
    """Measure the models against the baseline, all of them in alternation in this process.

    A training step is a forward pass in train mode, the mean of the squared outputs as the loss, the backward pass, a
    step of SGD with momentum and the release of the gradients. The input is random noise.

    The models stay as they are, and so do the random numbers that follow: all is done with copies on `device`, which
    must hold them all at once, each with its momentum.

    Args:
        models: by name; their outputs may be tensors, or sequences and mappings of such.
        input_size: of one input without the batch, e.g. (3, 224, 224).
        batch: images in a batch.
        baseline: the name of the model the ratios are to; the first if not given.
        rounds: timed forward passes of each model.
        train_rounds: timed training steps of each model.
        device: "cpu" or a CUDA device.
        progress: called with a few words at each step.

    Raises:
        UserError: no models, an unknown baseline, a batch or rounds below 1, a device whose memory cannot be measured,
            or a model without trainable parameters or without an output that depends on them.
    """
    baseline = _checked(models, baseline, batch, rounds, train_rounds)
    device = measurable(device)
    say = progress or (lambda text: None)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        copies = {name: copy.deepcopy(model).to(device) for name, model in models.items()}
        say("parameters and MACs")
        counts = {name: count(model, input_size) for name, model in copies.items()}
        inputs = {name: _noise(model, batch, input_size, device) for name, model in copies.items()}
        with watching() as watch:
            inference = alternate(
                {name: _forward(model, inputs[name]) for name, model in copies.items()},
                rounds=rounds,
                device=device,
                after_round=lambda done: say(f"inference, round {done} of {rounds}"),
            )
            steps = {name: _training_step(name, model, inputs[name]) for name, model in copies.items()}
            training = alternate(
                steps,
                rounds=train_rounds,
                device=device,
                after_round=lambda done: say(f"training, round {done} of {train_rounds}"),
            )
        memory: dict[str, int] = {}
        for name, step in steps.items():
            say(f"training memory of {name}")
            memory[name] = peak_memory(step, device)
    return {
        name: ModelCost(
            *counts[name],
            1000 * statistics.median(inference[name]),
            ratio(inference[name], inference[baseline]),
            1000 * statistics.median(training[name]),
            ratio(training[name], training[baseline]),
            memory[name] / MIB,
            # Memory is the same on every call: its quartiles are the median.
            ratio([memory[name]], [memory[baseline]]),
            watch.conditions,
        )
        for name in models
    }


def _checked(models: Mapping[str, nn.Module], baseline: str | None, batch: int, rounds: int, train_rounds: int) -> str:
    """The baseline's name, all arguments of `model_costs` being right."""
    if not models:
        raise UserError("There are no models to measure.")
    for what, number in (("batch", batch), ("rounds", rounds), ("train_rounds", train_rounds)):
        if number < 1:
            raise UserError(f"{what} must be at least 1, got {number}.")
    if baseline is None:
        return next(iter(models))
    return baseline if baseline in models else unknown_name("baseline", baseline, models)


def _noise(model: nn.Module, batch: int, input_size: Sequence[int], device: torch.device) -> Tensor:
    first = next(model.parameters(), torch.empty(0))
    return torch.randn(batch, *input_size, device=device, dtype=first.dtype)


def _forward(model: nn.Module, x: Tensor) -> Callable[[], object]:
    model.eval()

    def forward() -> None:
        with torch.inference_mode():
            model(x)

    return forward


def _training_step(name: str, model: nn.Module, x: Tensor) -> Callable[[], object]:
    model.train()
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not parameters:
        raise UserError(f"Model '{name}' has no parameter that requires a gradient: there is nothing to train.")
    # So small a rate that the weights, and with them the numbers the steps compute with, stay what they are.
    optimizer = torch.optim.SGD(parameters, lr=1e-8, momentum=0.9)

    def step() -> None:
        losses = [output.square().mean() for output in _tensors(model(x))]
        if not losses:
            raise UserError(f"Model '{name}' gives no output in train mode that a gradient can come from.")
        torch.stack(losses).sum().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def _tensors(outputs: Any) -> Iterator[Tensor]:
    """The tensors in `outputs` that a gradient can come from."""
    if isinstance(outputs, Tensor):
        if outputs.requires_grad:
            yield outputs
    elif isinstance(outputs, Mapping):
        for value in outputs.values():
            yield from _tensors(value)
    elif isinstance(outputs, Sequence) and not isinstance(outputs, str):
        for value in outputs:
            yield from _tensors(value)
