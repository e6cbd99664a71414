"""What functions do to the interval their values lie in: the table behind `ranges.RangeMode`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import unset_fake_temporarily

Bounds: TypeAlias = tuple[float, float]
Moments: TypeAlias = tuple[Tensor, Tensor]
"""Mean and variance of each channel, [C] in float64."""


class Range(NamedTuple):
    """All values lie in [low, high]; `moments` if they follow from a batch norm, under a normal distribution."""

    low: float = -math.inf
    high: float = math.inf
    moments: Moments | None = None


UNKNOWN = Range()
MOST_NORMALISED = 1024
"""A layer norm over more values has a bound so far off that what calibration sees serves better."""

Of: TypeAlias = Callable[[Any], Range]
"""The range of an argument."""
Rule: TypeAlias = Callable[[Of, Any, Sequence[Any], Mapping[str, Any]], Range]
"""From (of, function, args, kwargs) to the range of what the function returns."""


def plain_name(func: Any) -> str:
    """`relu` for F.relu, torch.relu, Tensor.relu_ and the like; `add` for Tensor.__iadd__."""
    name: str = getattr(func, "__name__", "")
    if name == "fn":  # the functional maximum poolings are called so
        name = "max_pool2d" if "max pool" in str(getattr(func, "__doc__", "")) else name
    if name.startswith("__") and name.endswith("__"):
        name = name.strip("_")
        return _DUNDERS.get(name, name)
    return name.rstrip("_")


_DUNDERS = {
    "iadd": "add",
    "isub": "sub",
    "imul": "mul",
    "itruediv": "div",
    "truediv": "div",
    "radd": "add",
    "rmul": "mul",
}


def _argument(args: Sequence[Any], kwargs: Mapping[str, Any], index: int, name: str, default: Any) -> Any:
    return kwargs.get(name, args[index] if len(args) > index else default)


def _activation(bounds: Callable[[float, float, Sequence[Any], Mapping[str, Any]], Bounds]) -> Rule:
    """The rule of an elementwise function; moments by applying it to quantiles of the normal distribution."""

    def rule(of: Of, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Range:
        before = of(args[0])
        low, high = bounds(before.low, before.high, args[1:], kwargs)
        return Range(low, high, _through(func, before.moments, args[1:], kwargs))

    return rule


def _through(func: Any, moments: Moments | None, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Moments | None:
    if moments is None or any(isinstance(value, Tensor) for value in (*args, *kwargs.values())):
        return None
    with unset_fake_temporarily():
        quantiles = torch.special.ndtri((torch.arange(256, dtype=torch.float64) + 0.5) / 256)
        mean, var = moments
        out = func(mean[:, None] + var.sqrt()[:, None] * quantiles, *args, **kwargs)
        return out.mean(1), out.var(1, unbiased=False)


def _keep(of: Of, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Range:
    """Values are moved, left out or averaged; not read as another type."""
    if any(isinstance(value, torch.dtype) for value in (*args, *kwargs.values())):
        return UNKNOWN
    return of(args[0])._replace(moments=None)


def _same(of: Of, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Range:
    """The same values in the same channels."""
    return of(args[0])


def _with_zero(found: Range) -> Range:
    return Range(min(found.low, 0.0), max(found.high, 0.0), found.moments)


def _average(of: Of, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Range:
    if _argument(args, kwargs, 6, "divisor_override", None) is not None:
        return UNKNOWN
    return _with_zero(of(args[0]))._replace(moments=None)


def _interpolate(of: Of, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Range:
    kind = _argument(args, kwargs, 3, "mode", "nearest")
    return UNKNOWN if kind == "bicubic" else _keep(of, func, args, kwargs)  # which overshoots


def _pad(of: Of, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Range:
    found = of(args[0])
    if _argument(args, kwargs, 2, "mode", "constant") != "constant":
        return found
    value = float(_argument(args, kwargs, 3, "value", 0.0) or 0.0)
    return Range(min(found.low, value), max(found.high, value), found.moments)


def _dropout(of: Of, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Range:
    """In training the values that are left grow, and the model is to be trained."""
    share = float(_argument(args, kwargs, 1, "p", 0.5))
    found, grown = _with_zero(of(args[0])), 1.0 if share >= 1 else 1 / (1 - share)
    return Range(found.low * grown, found.high * grown, found.moments)


def _join(of: Of, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Range:
    parts = [of(part) for part in args[0]]
    dim = _argument(args, kwargs, 1, "dim", 0)
    known = [part.moments for part in parts if part.moments is not None]
    moments = None
    if dim == 1 and known and len(known) == len(parts) and plain_name(func) in ("cat", "concat", "concatenate"):
        with unset_fake_temporarily():
            moments = torch.cat([mean for mean, _ in known]), torch.cat([var for _, var in known])
    return Range(min(part.low for part in parts), max(part.high for part in parts), moments)


def _add(of: Of, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Range:
    if kwargs.get("alpha", 1) != 1:
        return UNKNOWN
    first, second = of(args[0]), of(_argument(args, kwargs, 1, "other", None))
    moments = None
    if first.moments is not None and second.moments is not None:  # as if they were independent
        with unset_fake_temporarily():
            if first.moments[0].shape == second.moments[0].shape:
                moments = first.moments[0] + second.moments[0], first.moments[1] + second.moments[1]
    return Range(first.low + second.low, first.high + second.high, moments)


def _sub(of: Of, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Range:
    if kwargs.get("alpha", 1) != 1:
        return UNKNOWN
    first, second = of(args[0]), of(_argument(args, kwargs, 1, "other", None))
    return Range(first.low - second.high, first.high - second.low)


def _rsub(of: Of, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Range:
    return _sub(of, func, [args[1], args[0], *args[2:]], kwargs) if len(args) > 1 else UNKNOWN


def _mul(of: Of, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Range:
    first, second = of(args[0]), of(_argument(args, kwargs, 1, "other", None))
    ends = [_product(a, b) for a in first[:2] for b in second[:2]]
    return Range(min(ends), max(ends))


def _product(first: float, second: float) -> float:
    return 0.0 if first == 0 or second == 0 else first * second


def _div(of: Of, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Range:
    first, by = of(args[0]), _argument(args, kwargs, 1, "other", None)
    if not isinstance(by, int | float) or by <= 0 or "rounding_mode" in kwargs:
        return UNKNOWN
    return Range(first.low / by, first.high / by)


def _batch_norm(of: Of, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Range:
    """No bounds, but what a channel's values are distributed like: mean `bias`, deviation `weight`."""
    weight, bias = (_argument(args, kwargs, 3, "weight", None), _argument(args, kwargs, 4, "bias", None))
    if not isinstance(weight, Tensor) or not isinstance(bias, Tensor):
        return UNKNOWN
    with unset_fake_temporarily():
        return Range(moments=(bias.detach().double().cpu(), weight.detach().double().cpu().square()))


def _layer_norm(of: Of, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Range:
    """None of n values is more than sqrt(n - 1) standard deviations from their mean."""
    count = math.prod(_argument(args, kwargs, 1, "normalized_shape", ()))
    weight, bias = (_argument(args, kwargs, 2, "weight", None), _argument(args, kwargs, 3, "bias", None))
    if not 1 <= count <= MOST_NORMALISED:
        return UNKNOWN
    with unset_fake_temporarily():
        one = torch.ones(1, dtype=torch.float64)
        reach = math.sqrt(count - 1) * (one if weight is None else weight.detach().abs().cpu().double())
        middle = 0 * one if bias is None else bias.detach().cpu().double()
        return Range((middle - reach).min().item(), (middle + reach).max().item())


def _least(value: float) -> Rule:
    """Activations that pass large values and never fall below `value`; not below 0 for inputs that are not."""
    return _activation(lambda low, high, args, kwargs: (0.0 if low >= 0 else value, max(high, 0.0)))


def _between(low: float, high: float) -> Rule:
    return _activation(lambda *_: (low, high))


def _hardtanh(low: float, high: float, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Bounds:
    least = float(_argument(args, kwargs, 0, "min_val", -1.0))
    most = float(_argument(args, kwargs, 1, "max_val", 1.0))
    return min(max(low, least), most), max(min(high, most), least)


def _clamp(low: float, high: float, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Bounds:
    least, most = _argument(args, kwargs, 0, "min", None), _argument(args, kwargs, 1, "max", None)
    if isinstance(least, Tensor) or isinstance(most, Tensor):
        return -math.inf, math.inf
    least, most = -math.inf if least is None else float(least), math.inf if most is None else float(most)
    return min(max(low, least), most), max(min(high, most), least)


def _leaky(low: float, high: float, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Bounds:
    slope = float(_argument(args, kwargs, 0, "negative_slope", 0.01))
    ends = [value if value > 0 else _product(slope, value) for value in (low, high)]
    return min(0.0 if low < 0 < high else math.inf, *ends), max(*ends, 0.0 if low < 0 < high else -math.inf)


def _elu(low: float, high: float, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Bounds:
    least = -abs(float(_argument(args, kwargs, 0, "alpha", 1.0)))
    return (max(low, 0.0) if low >= 0 else least), max(high, 0.0)


RULES: dict[str, Rule] = {
    "relu": _activation(lambda low, high, *_: (max(low, 0.0), max(high, 0.0))),
    "relu6": _between(0.0, 6.0),
    "hardtanh": _activation(_hardtanh),
    "clamp": _activation(_clamp),
    "clip": _activation(_clamp),
    "leaky_relu": _activation(_leaky),
    "elu": _activation(_elu),
    "celu": _activation(_elu),
    # The least values of these, rounded away from zero.
    "silu": _least(-0.2784646),
    "gelu": _least(-0.1700408),
    "mish": _least(-0.3088493),
    "hardswish": _least(-0.375),
    "selu": _least(-1.7580994),
    "softplus": _least(0.0),
    "abs": _activation(lambda *_: (0.0, math.inf)),
    "square": _activation(lambda *_: (0.0, math.inf)),
    "exp": _activation(lambda *_: (0.0, math.inf)),
    "sigmoid": _between(0.0, 1.0),
    "hardsigmoid": _between(0.0, 1.0),
    "tanh": _between(-1.0, 1.0),
    "softmax": lambda *_: Range(0.0, 1.0),
    "batch_norm": _batch_norm,
    "layer_norm": _layer_norm,
    "add": _add,
    "sub": _sub,
    "mul": _mul,
    "div": _div,
    "rsub": _rsub,
    "cat": _join,
    "concat": _join,
    "concatenate": _join,
    "stack": _join,
    "pad": _pad,
    "interpolate": _interpolate,
    "avg_pool2d": _average,
    **dict.fromkeys(("dropout", "dropout2d"), _dropout),
    **dict.fromkeys(("clone", "detach", "contiguous", "to", "float", "double", "requires_grad"), _same),
    # Near enough for moments: a maximum of neighbours is not much more than one of them.
    **dict.fromkeys(("max_pool2d", "max_pool2d_with_indices"), _same),
    **dict.fromkeys(
        (
            *("adaptive_avg_pool2d", "adaptive_max_pool2d", "mean", "amax"),
            *("getitem", "chunk", "split", "unbind", "narrow", "select", "flatten", "unflatten", "view", "reshape"),
            *("permute", "transpose", "squeeze", "unsqueeze", "expand", "flip", "roll", "repeat", "pixel_shuffle"),
            *("pixel_unshuffle", "channel_shuffle", "amin", "index_select", "tile", "movedim"),
        ),
        _keep,
    ),
}
