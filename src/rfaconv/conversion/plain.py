"""`simplify`: layers that still compute a convolution back into Conv2d, and batch norms folded for inference."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from rfaconv.conversion.calibration import Seen, foresee, watch
from rfaconv.conversion.folding import as_line, fold_all
from rfaconv.conversion.places import Place, Skipped, check_model, slots_of
from rfaconv.conversion.run import Forward, default_forward, take_batches
from rfaconv.conversion.start import constant
from rfaconv.conversion.summary import Replaced, Summary, sizes_in_words
from rfaconv.conversion.surgery import hang, keep_hooks, take_down, without_padding
from rfaconv.conversion.verification import default_tolerance, verified
from rfaconv.layers.base import ConvLayer
from rfaconv.layers.folding import has_fixed_statistics
from rfaconv.layers.receptive_field import ReceptiveFieldFeatures


def simplify(
    model: nn.Module,
    *,
    fold_norms: bool = True,
    calibrate: Any = None,
    verify: float | bool = True,
    forward: Forward | None = None,
    batches: int = 8,
) -> Summary:
    """Turn layers of `model` that still are plain convolutions back into Conv2d, in place, for inference.

    A layer is one if its attention is constant, its depthwise kernels pick one tap each, its norm is in eval mode and
    no input can fall below what its ReLU cuts off: proved by the activation before, or seen in `calibrate`. What was
    trained stays as it is, and the summary says why. Then each BatchNorm2d in eval mode goes into the convolution or
    layer before it where nothing else uses what lies between (found by running the model, on `calibrate` or on a
    stand-in of a usual size); an Identity takes its place.

    Args:
        model: in eval mode; what is in training mode stays as it is.
        fold_norms: whether to fold batch norms.
        calibrate, verify, forward, batches: as for `convert`.

    Raises:
        UserError: the outputs deviate by more than the tolerance. The model is then as it was.
    """
    check_model(model)
    data, forward = take_batches(calibrate, batches), forward or default_forward
    places = list(slots_of(model, lambda module: isinstance(module, ConvLayer)))
    seen, outputs = watch(model, places, data, forward) if data else (foresee(model, places), [])
    summary = Summary("conv", batches=len(data))
    before = sum(parameter.numel() for parameter in model.parameters())
    undo: list[Callable[[], None]] = []
    try:
        for place in places:
            reason = why_not_plain(place.conv, seen[place.name])
            if reason is None:
                summary.replaced.append(_exchange(model, place, undo))
            else:
                summary.skipped.append(Skipped(place.name, reason))
        if fold_norms:
            summary.notes.append(fold_all(model, data, forward, undo))
        if outputs and verify is not False:
            summary.tolerance = default_tolerance(model) if verify is True else float(verify)
            summary.deviation = verified(model, data, outputs, forward, summary.tolerance)
    except BaseException:
        for step in reversed(undo):
            step()
        raise
    summary.params = before, sum(parameter.numel() for parameter in model.parameters())
    return summary


def why_not_plain(layer: ConvLayer, seen: Seen) -> str | None:
    """Why `layer` is no plain convolution, or None if it is one for every input not below what was seen."""
    if constant(layer.attention) is None:
        return "its attention is not constant"
    if layer.features is None:
        return None
    if not isinstance(layer.features, ReceptiveFieldFeatures) or type(layer.features.norm) is not nn.BatchNorm2d:
        return "its features have a norm of another kind"
    if not has_fixed_statistics(layer.features.norm):
        return "its norm uses the statistics of each batch: call model.eval() first"
    if _picks(layer.features) is None:
        return "its depthwise kernels do not pick one tap each"
    low = seen.bound if seen.reached else -math.inf
    if low == -math.inf and seen.statistics is None:
        return "its input has no lower bound that can be proved: give calibrate= a few batches"
    lowest = torch.tensor(low) if low > -math.inf else seen.statistics.low  # type: ignore[union-attr]
    scale, offset = _affine(layer.features)
    values = lowest.double().clamp(max=0).expand(layer.in_channels)[:, None]  # a padded tap is 0
    # Rounding may put a feature that is 0 a hair below it; cutting that off changes nothing.
    slack = 1e-6 * (offset.abs() + (scale * values).abs())
    if (scale < 0).any() or (scale * values + offset < -slack).any():
        return "its ReLU may cut values off"
    return None


def plain(layer: ConvLayer) -> nn.Module:
    """The convolution that a layer `why_not_plain` has nothing against computes; its norm and act follow it."""
    factor = constant(layer.attention)
    assert factor is not None
    weight, bias = layer.weight.detach().cpu().double() * factor, layer.bias
    if isinstance(layer.features, ReceptiveFieldFeatures):
        scale, offset = _affine(layer.features)
        shape = (layer.groups, 1, -1, *layer.kernel_size)
        grouped = weight.unflatten(0, (layer.groups, -1))
        added = (grouped * offset.to(weight).view(shape)).sum((2, 3, 4)).flatten()
        weight = (grouped * scale.to(weight).view(shape)).flatten(0, 1)
        if bias is not None or offset.any():
            added = added if bias is None else added + bias.detach().cpu().double()
            bias = nn.Parameter(added.to(layer.weight), layer.weight.requires_grad)
    window = (layer.kernel_size, layer.stride, layer.padding, layer.dilation)
    conv = nn.Conv2d(layer.in_channels, layer.out_channels, *window, layer.groups, bias is not None, device="meta")
    conv.weight = nn.Parameter(weight.to(layer.weight), layer.weight.requires_grad)
    conv.bias = bias
    parts = [conv, *(part for part in (layer.norm, layer.act) if part is not None)]
    return (conv if len(parts) == 1 else nn.Sequential(*parts)).train(layer.training)


def _picks(features: ReceptiveFieldFeatures) -> Tensor | None:
    """[C, T]: by what each kernel multiplies the tap it is named for; None if one looks at another tap too."""
    taps = features.window.taps
    kernels = features.weight.detach().cpu().double().view(features.channels, taps, taps)
    picked = kernels.diagonal(dim1=1, dim2=2)
    return picked if torch.equal(torch.diag_embed(picked), kernels) else None


def _affine(features: ReceptiveFieldFeatures) -> tuple[Tensor, Tensor]:
    """Scale and offset of each tap, [C, T], before the ReLU."""
    norm, picked = features.norm, _picks(features)
    assert isinstance(norm, nn.BatchNorm2d)
    assert picked is not None
    scale, offset = as_line(norm)
    return scale.view_as(picked) * picked, offset.view_as(picked)


def _exchange(model: nn.Module, place: Place, undo: list[Callable[[], None]]) -> Replaced:
    """Hang the convolution in the layer's place; what `convert` put before it for padding goes too."""
    layer, new = place.conv, plain(place.conv)
    parent = place.slots[0][0]
    if len(place.slots) == 1 and type(parent) is nn.Sequential and tuple(parent._modules) == ("pad", "conv"):
        around = next(slots_of(model, lambda module: module is parent), None)
        if around is not None and type(new) is nn.Conv2d:
            new = without_padding(parent.pad, new)  # type: ignore[arg-type]
            place = Place(around.name, parent, around.slots, around.aliases)
    keep_hooks(new, place.conv)
    hang(place, new)
    undo.append(lambda: take_down([place]))
    before, after = (sum(value.numel() for value in module.parameters()) for module in (place.conv, new))
    start = "the same convolution"
    return Replaced(place.name, type(new).__name__, sizes_in_words(layer), start, (before, after), place.aliases)
