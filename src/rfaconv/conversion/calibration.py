"""What reaches the convolutions that are to be replaced: its lower bound, and the statistics of the taps."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from itertools import product
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from rfaconv.conversion.places import Place
from rfaconv.conversion.ranges import RangeMode
from rfaconv.conversion.rules import Moments
from rfaconv.conversion.run import Forward, evaluating, unchanged
from rfaconv.conversion.surgery import explicit_padding
from rfaconv.ops.window import Window, output_size

T = TypeVar("T")

MARGIN = 0.5
"""An input without a proved bound: the shift covers what was seen and half of its distance from the mean again."""
DEVIATIONS = 6.0
"""... and at least so many standard deviations below the mean."""
FEW = 100
"""A channel that took few values is judged as if it had taken so many more, drawn from all channels alike."""


@dataclass
class TapStatistics:
    """Mean and variance of each tap over all values it took, padding counted, and the least value of each channel.

    Attributes:
        count: values a tap. mean, var: [C, T]. low: [C]; of the input, without padding.
    """

    count: int
    mean: Tensor
    var: Tensor
    low: Tensor

    def merged(self, other: TapStatistics) -> TapStatistics:
        """Of both together."""
        count = self.count + other.count
        ours, theirs = self.count / count, other.count / count
        mean = ours * self.mean + theirs * other.mean
        var = ours * self.var + theirs * other.var + ours * theirs * (self.mean - other.mean).square()
        return TapStatistics(count, mean, var, torch.minimum(self.low, other.low))

    def levelled(self, count: int) -> TapStatistics:
        """Of `count` values a tap that are distributed as all channels' together; no channel's least value changes."""
        mean = self.mean.mean().expand_as(self.mean)
        var = (self.var.mean() + self.mean.var(correction=0)).expand_as(self.var)
        return TapStatistics(count, mean, var, self.low)


@dataclass
class Seen:
    """What is known of the input of one convolution.

    Attributes:
        bound: no input is below it, whatever the images (`ranges`); -inf if that is not known.
        statistics: from calibration batches; None if none reached the convolution.
        moments: mean and variance of each channel as the batch norm before says; None if none does.
    """

    bound: float = math.inf
    statistics: TapStatistics | None = None
    moments: Moments | None = None
    reached: bool = False

    def low(self) -> Tensor | None:
        """What the input is taken never to be below, [] or [C]; None if nothing is known."""
        if self.reached and self.bound > -math.inf:
            return torch.tensor(self.bound, dtype=torch.float64)
        if self.statistics is None:
            return None
        known = self.statistics.merged(self.statistics.levelled(FEW))
        mean, deviation = known.mean.mean(1), known.var.amax(1).sqrt()
        return torch.minimum(mean - (1 + MARGIN) * (mean - known.low), mean - DEVIATIONS * deviation)

    def normal(self, channels: int, taps: int) -> Moments:
        """Mean and variance of each tap, [C, T]; 0 and 1 where nothing is known."""
        if self.statistics is not None:
            return self.statistics.mean, self.statistics.var
        mean, var = self.moments or (torch.zeros(channels), torch.ones(channels))
        return mean.double()[:, None].expand(-1, taps), var.double()[:, None].expand(-1, taps)


def watch(
    model: nn.Module, places: Sequence[Place], batches: Sequence[Any], forward: Forward
) -> tuple[dict[str, Seen], list[Any]]:
    """Run `model` on the batches in eval mode: what reached each place, and the outputs."""
    found = {place.name: Seen() for place in places}
    outputs: list[Any] = []
    with ExitStack() as stack:
        mode = RangeMode()
        for place in places:
            hook = _observer(place.conv, found[place.name], mode, statistics=True)
            stack.callback(place.conv.register_forward_pre_hook(hook, with_kwargs=True).remove)
        stack.enter_context(evaluating(model))
        for batch in batches:
            with mode:
                outputs.append(forward(model, batch))
    return found, outputs


def foresee(model: nn.Module, places: Sequence[Place]) -> dict[str, Seen]:
    """The bounds and moments without data, from a run on a stand-in image.

    Nothing is found where no usual image size goes through the model; that is no error.
    """

    def look(image: Tensor) -> dict[str, Seen]:
        found = {place.name: Seen() for place in places}
        with ExitStack() as stack:
            mode = RangeMode()
            for place in places:
                hook = _observer(place.conv, found[place.name], mode, statistics=False)
                stack.callback(place.conv.register_forward_pre_hook(hook, with_kwargs=True).remove)
            stack.enter_context(mode)
            model(image)
        return found

    return on_stand_in(model, look) or {place.name: Seen() for place in places}


def on_stand_in(model: nn.Module, use: Callable[[Tensor], T]) -> T | None:
    """What `use` makes of a stand-in image, in eval mode; None if no usual size goes through the model.

    Inside `use` tensors have shapes and no memory (torch's FakeTensorMode), so that running the model costs little. A
    model that cannot be run so, because it reads numbers out of tensors as detectors do, is run on zeros.
    """
    if any(isinstance(parameter, nn.parameter.UninitializedParameter) for parameter in model.parameters()):
        return None
    first = next(model.parameters(), torch.empty(0))
    for fake, size in product((True, False), _usual_sizes(model)):
        try:
            without_memory = FakeTensorMode(allow_non_fake_inputs=True) if fake else nullcontext()
            with evaluating(model), unchanged(model), without_memory:
                return use(torch.zeros(1, *size, device=first.device, dtype=first.dtype))
        except Exception:  # whatever a model does with an input of the wrong size or with no values in it
            continue
    return None


def _usual_sizes(model: nn.Module) -> list[tuple[int, int, int]]:
    """timm's own of this model first."""
    for name in ("pretrained_cfg", "default_cfg"):
        config = getattr(model, name, None)
        if isinstance(config, dict) and "input_size" in config:
            return [tuple(config["input_size"])]
    stem = next((module for module in model.modules() if isinstance(module, nn.Conv2d)), None)
    channels = 3 if stem is None else stem.in_channels
    return [(channels, size, size) for size in (224, 256, 64, 32)]


def _observer(conv: Any, seen: Seen, mode: RangeMode, statistics: bool) -> Callable[[nn.Module, Any, Any], None]:
    def hook(module: nn.Module, args: Any, kwargs: Any) -> None:
        x = args[0] if args else kwargs["input"]
        known = mode.of(x)
        seen.moments = known.moments if not seen.reached else None  # called twice: no single answer
        seen.bound, seen.reached = min(seen.bound, known.low), True
        if statistics and x.numel():
            with torch._C.DisableTorchFunction():
                new = tap_statistics(x if x.dim() == 4 else x[None], conv)
            seen.statistics = new if seen.statistics is None else seen.statistics.merged(new)

    return hook


def tap_statistics(x: Tensor, conv: Any) -> TapStatistics:
    """Of an input [B, C, H, W] of `conv`, a Conv2d or a layer of the family."""
    padder, padding = explicit_padding(conv)
    low = x.amin((0, 2, 3)).double().cpu()
    x = F.pad(x, (padding[1], padding[1], padding[0], padding[0])) if padder is None else padder(x)
    window = Window.of(conv.kernel_size, conv.stride, 0, conv.dilation)
    h, w = output_size(x, window)
    (kh, kw), (sh, sw), _, (dh, dw) = window
    x = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    means, variances = [], []
    for i in range(kh):
        for j in range(kw):
            tap = x[:, :, i * dh : i * dh + (h - 1) * sh + 1 : sh, j * dw : j * dw + (w - 1) * sw + 1 : sw]
            var, mean = torch.var_mean(tap, (0, 2, 3), correction=0)
            means.append(mean.double().cpu())
            variances.append(var.double().cpu())
    return TapStatistics(x.shape[0] * h * w, torch.stack(means, 1), torch.stack(variances, 1), low)
