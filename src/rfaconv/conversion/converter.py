"""`convert`: attention convolutions into a model that is there already, without changing what it computes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn

from rfaconv.conversion.calibration import DEVIATIONS, MARGIN, Seen, foresee, watch
from rfaconv.conversion.places import Place, Skipped, Where, check_model, choose
from rfaconv.conversion.run import Forward, default_forward, evaluating, one_image, take_batches
from rfaconv.conversion.start import looks_at_features, scales_weight, start_as
from rfaconv.conversion.summary import Replaced, Summary, sizes_in_words
from rfaconv.conversion.surgery import hang, new_layer, take_down, take_over
from rfaconv.conversion.verification import default_tolerance, verified
from rfaconv.errors import UserError
from rfaconv.layers.base import ConvLayer
from rfaconv.layers.registry import conv_factory
from rfaconv.profiling.count import count


@dataclass
class _Exchange:
    """A place and what is to hang there."""

    place: Place
    new: nn.Module
    layer: ConvLayer
    how: str
    lost_hooks: list[str]


def convert(
    model: nn.Module,
    conv: str = "rfa",
    *,
    where: Where = None,
    calibrate: Any = None,
    verify: float | bool = True,
    forward: Forward | None = None,
    batches: int = 8,
) -> Summary:
    """Replace convolutions of `model`, in place, by layers that start as the very function they replace.

    In eval mode the model computes what it computed before, up to rounding; training goes on from there. Stride,
    padding, dilation, groups, dtype, device, requires_grad, train or eval state and hooks are kept, and a convolution
    used twice stays one module. The convolution's `weight` stays the same Parameter in the receptive-field layers; make
    an optimizer after converting, for the parameters that are new. A frozen convolution becomes a frozen layer.

    `rfa`, `rfcbam`, `rfca` and `rf` have a ReLU inside, so they are exact where the input has a lower bound. It is
    proved where an activation with one comes before (`rfaconv.conversion.ranges`); elsewhere the calibration batches
    say how low the input goes, the start covers that and half as much again, and the summary says so; without batches
    such a convolution stays as it is. The other layers are exact for any input.

    Args:
        model: from timm, torchvision, segmentation_models.pytorch, Ultralytics or your own; of any task.
        conv: short name of the layer: rfa, rfcbam, rfca, rf, cam, cbam, ca, or one you registered.
        where: "resnet" (the paper's places: the first 3x3 of every BasicBlock, the 3x3 of every Bottleneck), "all3x3",
            "downsample" (the paper's YOLO places: convolutions with a stride, but for the first), a name or glob
            ("backbone.*.conv1") or several with commas or in a list, or a function of (name, convolution). None: every
            convolution with a kernel larger than 1 that is no depthwise one.
        calibrate: a batch, or an iterable of batches such as a DataLoader. They give the bounds where none is proved,
            the statistics with which training mode starts close too, and what to verify on.
        verify: run the batches through both models and compare. True: to 1e-4 of the largest value of each output
            tensor (lower precisions: eight of their steps); a number: to that; False: not at all.
        forward: how a batch goes into the model, from (model, batch) to its output. None: model(batch) for a tensor,
            model(batch[0]) for (images, labels), model(**batch) for a mapping.
        batches: how many of `calibrate` to run at most.

    Returns:
        What was replaced, what was not and why, parameters and multiply-adds before and after, and the deviation.

    Raises:
        UserError: nothing fits `where`, the model is compiled or wrapped, or the outputs deviate by more than the
            tolerance. The model is then as it was.
    """
    conv_factory(conv)
    check_model(model)
    choice = choose(model, where)
    data, forward = take_batches(calibrate, batches), forward or default_forward
    seen, outputs = watch(model, choice.places, data, forward) if data else (foresee(model, choice.places), [])
    places, skipped = _reached(choice.places, seen, has_data=bool(data))
    exchanges, more = _prepare(places, seen, conv, _owners(model))
    skipped += more
    if not exchanges:
        reasons = [*skipped, *choice.skipped]
        first = f"'{reasons[0].name}': {reasons[0].reason}" if reasons else "the model has none"
        raise UserError(f"No convolution of this {type(model).__name__} can become '{conv}' here, e.g. {first}.")
    order = {name: index for index, name in enumerate(dict(model.named_modules()))}
    summary = Summary(conv, skipped=sorted([*choice.skipped, *skipped], key=lambda skip: order.get(skip.name, 0)))
    before, macs = _params(model), _macs(model, data, forward)
    for exchange in exchanges:
        hang(exchange.place, exchange.new)
    try:
        if outputs and verify is not False:
            summary.tolerance = default_tolerance(model) if verify is True else float(verify)
            with _all_called(exchanges):
                summary.deviation = verified(model, data, outputs, forward, summary.tolerance)
        after = _macs(model, data, forward)
    except BaseException:
        take_down(exchange.place for exchange in exchanges)
        raise
    summary.batches, summary.params = len(data), (before, _params(model))
    summary.macs = None if macs is None or after is None else (macs, after)
    summary.replaced = [_as_row(exchange) for exchange in exchanges]
    summary.notes = _notes(exchanges, seen)
    return summary


def _reached(places: Sequence[Place], seen: dict[str, Seen], has_data: bool) -> tuple[list[Place], list[Skipped]]:
    """The places that a run of the model came to, and the others; all of them where it could not be run at all.

    A convolution that is never called may be dead, or its weight is used without it.
    """
    if not any(found.reached for found in seen.values()):
        return list(places), []
    what = "the calibration batches never reach it" if has_data else "a run without data never reaches it"
    left_out = [Skipped(place.name, what) for place in places if not seen[place.name].reached]
    return [place for place in places if seen[place.name].reached], left_out


@contextmanager
def _all_called(exchanges: Sequence[_Exchange]) -> Iterator[None]:
    """Raise a UserError if a new module is not called inside the block, though the old one was."""
    called: set[str] = set()
    with ExitStack() as stack:
        for exchange in exchanges:
            note = partial(_note_call, called, exchange.place.name)
            stack.callback(exchange.new.register_forward_hook(note).remove)
        yield
    missed = [exchange.place.name for exchange in exchanges if exchange.place.name not in called]
    if missed:
        raise UserError(
            f"The model uses '{missed[0]}' in another way than through its attribute (in a list, say): leave it out "
            "with where=; the model is as it was."
        )


def _note_call(called: set[str], name: str, *_: Any) -> None:
    called.add(name)


def _prepare(
    places: Sequence[Place], seen: dict[str, Seen], conv: str, owners: dict[int, set[int]]
) -> tuple[list[_Exchange], list[Skipped]]:
    """Make the new layers, with their start; the places where that cannot be done, with the reason."""
    exchanges, skipped = [], []
    scaled: dict[int, nn.Parameter] = {}
    ours = {id(place.conv) for place in places}
    for place in places:
        old, found = place.conv, seen[place.name]
        new, layer = new_layer(old, conv)
        how, low, moments = "exact for any input", None, None
        if looks_at_features(layer):
            low, moments = found.low(), found.normal(old.in_channels, layer.window.taps)
            if low is None:
                reason = "its input has no lower bound that can be proved: give calibrate= a few batches"
                skipped.append(Skipped(place.name, reason))
                continue
            how = _bound_in_words(found, low)
        elif scales_weight(layer) and not owners[id(old.weight)] <= ours:
            skipped.append(Skipped(place.name, "its weight is shared with a module that stays"))
            continue
        start_as(layer, old, low, moments)
        if layer.weight is not old.weight:  # tied weights stay tied
            layer.weight = scaled.setdefault(id(old.weight), layer.weight)
        layer.to(old.weight.device)
        exchanges.append(_Exchange(place, new, layer, how, take_over(new, layer, old)))
    return exchanges, skipped


def _owners(model: nn.Module) -> dict[int, set[int]]:
    """For each parameter, by id, the ids of the modules that have it."""
    found: dict[int, set[int]] = {}
    for module in model.modules():
        for parameter in module._parameters.values():
            if parameter is not None:
                found.setdefault(id(parameter), set()).add(id(module))
    return found


def _bound_in_words(found: Seen, low: Tensor) -> str:
    if found.reached and found.bound > -math.inf:
        return f"exact: no input is below {found.bound:.3g}"
    assert found.statistics is not None
    return f"exact down to {low.min().item():.3g} (seen: {found.statistics.low.min().item():.3g})"


def _as_row(exchange: _Exchange) -> Replaced:
    old = exchange.place.conv
    params = _params(old), _params(exchange.new)
    kind = type(exchange.layer).__name__
    return Replaced(exchange.place.name, kind, sizes_in_words(old), exchange.how, params, exchange.place.aliases)


def _notes(exchanges: Sequence[_Exchange], seen: dict[str, Seen]) -> list[str]:
    notes = []
    features = [exchange for exchange in exchanges if looks_at_features(exchange.layer)]
    open_ended = [exchange for exchange in features if seen[exchange.place.name].bound == -math.inf]
    if open_ended:
        notes.append(
            f"At {len(open_ended)} of them nothing bounds the input from below: the start covers what the calibration "
            f"batches hold, {MARGIN:.0%} beyond that and at least {DEVIATIONS:g} standard deviations; an input "
            "further below is cut off there."
        )
    guessed = [exchange for exchange in features if seen[exchange.place.name].statistics is None]
    if guessed:
        named = sum(seen[exchange.place.name].moments is not None for exchange in guessed)
        notes.append(
            "Without calibration batches training mode starts from the statistics of the batch norm before "
            f"({named} of them) or from mean 0 and variance 1 ({len(guessed) - named}), so less close than eval mode."
        )
    lost = [f"'{one.place.name}' ({', '.join(one.lost_hooks)})" for one in exchanges if one.lost_hooks]
    if lost:
        notes.append(f"Hooks on state dicts were not kept, because the names in them change: {', '.join(lost)}.")
    return notes


def _params(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


class _Once(nn.Module):
    """A model with one batch, for `count`, which knows images alone."""

    def __init__(self, model: nn.Module, forward: Callable[[nn.Module, Any], Any], batch: Any) -> None:
        super().__init__()
        self.model, self.run, self.batch = model, forward, batch

    def forward(self, x: Tensor) -> Any:
        return self.run(self.model, self.batch)


def _macs(model: nn.Module, data: Sequence[Any], forward: Forward) -> int | None:
    """Multiply-adds of the first image; None without data, and where the model takes no batch of one."""
    if not data:
        return None
    try:
        with evaluating(model):
            return count(_Once(model, forward, one_image(data[0])), (1,)).macs
    except Exception:
        return None
