"""The measure of every kernel: how far it is from the float64 reference, beside how far the float32 reference is.

A kernel may be twice as far from the truth, plus 1e-6 of the largest value.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from calls import rfa_conv2d
from torch import Tensor

from rfaconv.ops.window import Window


class Case(NamedTuple):
    """A random call in float64. `tensors` are the differentiable arguments by name; some may be None."""

    tensors: dict[str, Tensor | None]
    running: tuple[Tensor, Tensor]
    training: bool
    window: Window
    groups: int
    grad_out: Tensor
    says: str


def compute(case: Case, backend: str, dtype: torch.dtype, device: str = "cpu") -> dict[str, Tensor]:
    """The output, the running statistics afterwards and every gradient, as float64 on the CPU."""
    tensors = {name: None if t is None else t.to(device, dtype).requires_grad_() for name, t in case.tensors.items()}
    mean, var = (t.to(device, dtype).clone() for t in case.running)
    _, stride, padding, dilation = case.window
    out = rfa_conv2d(
        **tensors,
        running_mean=mean,
        running_var=var,
        training=case.training,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=case.groups,
        backend=backend,
    )
    wanted = {name: t for name, t in tensors.items() if t is not None}
    grads = torch.autograd.grad(out, list(wanted.values()), case.grad_out.to(device, dtype))
    found = {"out": out.detach(), "running_mean": mean, "running_var": var}
    found |= {f"grad of {name}": grad for name, grad in zip(wanted, grads, strict=True)}
    return {name: value.detach().double().cpu() for name, value in found.items()}


class Doubt(NamedTuple):
    """Where a result hangs on the last bits of a feature, for any computation in float32, the reference's too."""

    flips: bool
    """A feature comes within rounding of the ReLU's zero: no gradient is right."""
    blows_up: bool
    """Batch statistics blow up a deviation that is a hundredth of what the filter adds up (some constant images)."""


def doubt(case: Case) -> Doubt:
    x, filters = case.tensors["input"], case.tensors["feature_weight"]
    assert x is not None
    assert filters is not None
    _, stride, padding, dilation = case.window
    mean, var = (t.clone() for t in case.running)

    def generate(values: Tensor, weight: Tensor) -> Tensor:
        return F.conv2d(values, weight, None, stride, padding, dilation, groups=x.shape[1])

    linear = generate(x, filters)
    norm = (case.tensors["norm_weight"], case.tensors["norm_bias"])
    features = F.batch_norm(linear, mean, var, *norm, case.training).abs()
    terms = generate((x - x.mean((0, 2, 3), keepdim=True)).abs(), filters.abs()).amax((0, 2, 3))
    deviation = linear.var((0, 2, 3), correction=0).add(1e-5).sqrt()
    return Doubt(bool(features.min() < 1e-5 * features.max()), case.training and bool((terms > 100 * deviation).any()))


def worst_violation(case: Case, backend: str, device: str = "cpu") -> tuple[float, str]:
    """How many times the allowed error the backend's worst result is off, and which it is."""
    truth, plain = (compute(case, "reference", dtype) for dtype in (torch.float64, torch.float32))
    ours = compute(case, backend, torch.float32, device)
    flips, blows_up = doubt(case)
    worst = (0.0, "")
    for name, value in truth.items():
        if blows_up or (flips and name.startswith("grad")):
            continue
        scale = value.abs().max() + 1e-30
        error, allowed = ((found[name] - value).abs().max() / scale for found in (ours, plain))
        worst = max(worst, (float(error / (2 * allowed + 1e-6)), name))
    return worst
