"""What PyTorch must know of the operators without running them: the shapes of their results and their cost.

`window` is everywhere kernel_size, stride, padding and dilation: eight numbers, each pair vertical first.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from rfaconv.ops.window import Window


def output_size(size: tuple[int, int], window: list[int]) -> tuple[int, int]:
    """Height and width of the output from those of the input."""
    height, width = (
        (size[n] + 2 * window[4 + n] - window[6 + n] * (window[n] - 1) - 1) // window[2 + n] + 1 for n in (0, 1)
    )
    return height, width


def flat(window: Window) -> list[int]:
    """A window as the operators take it."""
    kernel_size, stride, padding, dilation = window
    return [*kernel_size, *stride, *padding, *dilation]


def map_like(x: Tensor, channels: Any, height: Any, width: Any) -> Tensor:
    """An empty map as the kernels return it for x: its batch and dtype, and channels last where x has them so."""
    last = x.stride(1) == 1 and x.shape[1] > 1
    layout = torch.channels_last if last else torch.contiguous_format
    shape = (x.shape[0], channels, height, width)
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=layout)


def _fake_moments(x: Tensor, window: list[int]) -> Tensor:
    taps = window[0] * window[1]
    return x.new_empty((x.shape[1], taps + taps * taps), dtype=torch.float64)


def _fake_moments_backward(grad: Tensor, x: Tensor, window: list[int]) -> Tensor:
    return map_like(x, *x.shape[1:])


def _fake_rfa(x: Tensor, feature_weight: Tensor, attention_weight: Tensor, weight: Tensor, *rest: Any) -> Any:
    moments, window = rest[5], rest[8]
    count = 0 if moments is None else feature_weight.shape[0]
    out = map_like(x, weight.shape[0], *output_size((x.shape[2], x.shape[3]), window))
    return out, x.new_empty(count, dtype=torch.float32), x.new_empty(count, dtype=torch.float32)


def _fake_rfa_backward(
    grad: Tensor, x: Tensor, feature_weight: Tensor, attention_weight: Tensor, weight: Tensor, *rest: Any
) -> Any:
    channels, taps = attention_weight.shape
    return (
        map_like(x, *x.shape[1:]) if rest[-1] else x.new_empty(0),
        _dense_like(attention_weight),
        _dense_like(weight),
        x.new_empty((channels, taps), dtype=torch.float64),
        x.new_empty((channels, taps, taps), dtype=torch.float64),
    )


def _fake_norm_backward(grad_x: Tensor, x: Tensor, feature_weight: Tensor, *rest: Any) -> Any:
    count = feature_weight.shape[0]
    return _dense_like(feature_weight), feature_weight.new_empty(count), feature_weight.new_empty(count)


def _fake_survey(
    x: Tensor, weight: Tensor, bias: Tensor, centre: Tensor | None, window: list[int], kind: int, count_ties: bool
) -> tuple[Tensor, Tensor, Tensor]:
    (batch, channels), (height, width) = x.shape[:2], output_size((x.shape[2], x.shape[3]), window)
    if kind == 2:
        rows = x.new_empty((batch, channels, window[0], height))
        return rows, x.new_empty((batch, channels, window[1], width)), x.new_empty(0)
    places = (batch, window[0] * window[1], height, width)
    return x.new_empty(places), x.new_empty(places), x.new_empty(places if count_ties else 0)


def _fake_survey_backward(
    largest: Tensor, grad_first: Tensor, grad_second: Tensor, x: Tensor, weight: Tensor, bias: Tensor,
    centre: Tensor | None, window: list[int], kind: int,
) -> tuple[Tensor, ...]:  # fmt: skip
    return map_like(x, *x.shape[1:]), *_fake_sums(x, window)


def _fake_contract(x: Tensor, *rest: Any) -> Tensor:
    weight, window = rest[5], rest[7]
    return map_like(x, weight.shape[0], *output_size((x.shape[2], x.shape[3]), window))


def _fake_contract_backward(
    grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor, centre: Tensor | None, *rest: Any
) -> tuple[Tensor, ...]:
    first, second, kernel, window = rest[:4]
    gates = (_dense_like(tensor) for tensor in (first, second, kernel))
    return map_like(x, *x.shape[1:]), *_fake_sums(x, window), *gates


def _fake_sums(x: Tensor, window: list[int]) -> tuple[Tensor, Tensor]:
    """D and S, the gradients of filters and biases in double precision."""
    channels, taps = x.shape[1], window[0] * window[1]
    return (
        x.new_empty((channels, taps, taps), dtype=torch.float64),
        x.new_empty((channels, taps), dtype=torch.float64),
    )


def _dense_like(x: Tensor) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def register() -> None:
    """Tell PyTorch, once the operators are defined."""
    fakes: dict[str, Callable[..., Any]] = {
        "patch_moments": _fake_moments,
        "patch_moments_backward": _fake_moments_backward,
        "rfa": _fake_rfa,
        "rfa_backward": _fake_rfa_backward,
        "norm_backward": _fake_norm_backward,
        "survey_features": _fake_survey,
        "survey_backward": _fake_survey_backward,
        "contract_gated": _fake_contract,
        "contract_gated_backward": _fake_contract_backward,
    }
    for name, fake in fakes.items():
        torch.library.register_fake(f"rfaconv::{name}", fake)
    flops: dict[str, Callable[..., int]] = {
        "rfa": _rfa_flops,
        "rfa_backward": _rfa_backward_flops,
        "survey_features": _survey_flops,
        "survey_backward": _survey_backward_flops,
        "contract_gated": _contract_flops,
        "contract_gated_backward": _contract_backward_flops,
    }
    for name, formula in flops.items():
        register_flop_formula(getattr(torch.ops.rfaconv, name))(formula)


def _rfa_flops(x: Any, feature_weight: Any, attention_weight: Any, weight: Any, *rest: Any, **kwargs: Any) -> int:
    """Twice the multiply-adds of the three convolutions the paper writes: features, attention, contraction."""
    channels, taps = attention_weight
    places = x[0] * math.prod(output_size((x[2], x[3]), rest[8]))
    return 2 * places * (channels * taps * taps + channels * taps + math.prod(weight))


def _rfa_backward_flops(grad: Any, *args: Any, **kwargs: Any) -> int:
    """The gradients of input and weights, and the features once more."""
    attention_weight, weight = args[2:4]
    channels, taps = attention_weight
    places = grad[0] * grad[2] * grad[3]
    return 2 * places * (3 * channels * taps * taps + 2 * channels * taps + 2 * math.prod(weight))


def _survey_flops(x: Any, weight: Any, bias: Any, centre: Any, window: Any, *rest: Any, **kwargs: Any) -> int:
    """The features; that they are made again for the contraction does not count: nobody asked for it."""
    return 2 * x[0] * math.prod(output_size((x[2], x[3]), window)) * math.prod(weight)


def _survey_backward_flops(largest: Any, first: Any, second: Any, x: Any, *rest: Any, **kwargs: Any) -> int:
    """The features once more and the gradients of both their factors."""
    return 3 * _survey_flops(x, *rest)


def _contract_flops(
    x: Any, features: Any, bias: Any, centre: Any, first: Any, second: Any, weight: Any, kernel_bias: Any, window: Any,
    *rest: Any, **kwargs: Any,
) -> int:  # fmt: skip
    return 2 * x[0] * math.prod(output_size((x[2], x[3]), window)) * math.prod(weight)


def _contract_backward_flops(
    grad: Any, x: Any, features: Any, bias: Any, centre: Any, first: Any, second: Any, weight: Any, *rest: Any,
    **kwargs: Any,
) -> int:  # fmt: skip
    return 2 * grad[0] * grad[2] * grad[3] * (3 * math.prod(features) + 2 * math.prod(weight))
