"""The C++ kernel against the float64 reference over random configurations: outputs, statistics and all gradients.

The measure is the float32 reference: the kernel may be twice as far from the truth, plus 1e-6 of the largest value.
"""

from __future__ import annotations

import random
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rfaconv.ops import rfa_conv2d
from rfaconv.ops.operator_call import FEWEST_VALUES
from rfaconv.ops.window import Window

NAMES = ("input", "feature_weight", "attention_weight", "weight", "bias", "norm_weight", "norm_bias")


class Case(NamedTuple):
    """A random call in float64. `tensors` are the differentiable arguments by name; some may be None."""

    tensors: dict[str, Tensor | None]
    running: tuple[Tensor, Tensor]
    training: bool
    window: Window
    groups: int
    grad_out: Tensor
    says: str


def draw(seed: int) -> Case:
    """Shapes, window, layout, magnitude, kind of image and optional parts, all by chance."""
    choose, generator = random.Random(seed), torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    kernel = choose.choice([(3, 3)] * 5 + [(1, 1), (2, 2), (5, 5), (7, 7), (3, 5), (4, 1)])
    taps = kernel[0] * kernel[1]
    stride, dilation = ((choose.randint(1, 3), choose.randint(1, 3)) for _ in range(2))
    padding = (choose.randint(0, 4), choose.randint(0, 4))
    groups = choose.choice([1, 1, 1, 2, 3])
    small = taps > 9
    channels = groups * choose.randint(1, 3 if small else 24 // groups)
    outputs = groups * choose.randint(1, 8 if small else 40 // groups)
    batch = choose.choice([1, 1, 2, 3])
    least = [max(1, d * (k - 1) + 1 - 2 * p) for k, d, p in zip(kernel, dilation, padding, strict=True)]
    size = [one + choose.choice([0, 1, 3, *[choose.randint(0, 28)] * 4]) for one in least]
    kind = choose.choice(["normal", "normal", "constant", "smooth", "after relu"])
    x = normal(batch, channels, *size)
    if kind == "constant":
        x = normal(batch, channels, 1, 1).expand_as(x).clone()
    elif kind == "smooth":
        ramp = (
            torch.arange(size[1], dtype=torch.float64) / 50 + torch.arange(size[0], dtype=torch.float64)[:, None] / 30
        )
        x = (normal(batch, channels, 1, 1) + ramp).contiguous()
    elif kind == "after relu":
        x = x.relu()
    magnitude = 10 ** choose.uniform(-3, 3)
    x = x * magnitude
    if choose.random() < 0.3:
        x = x.to(memory_format=torch.channels_last)
    features = channels * taps
    affine = choose.random() < 0.8
    window = Window(kernel, stride, padding, dilation)
    out = [(n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in zip(size, *window, strict=True)]
    training = choose.random() < 0.7 and batch * out[0] * out[1] >= FEWEST_VALUES
    grad_out = normal(batch, outputs, *out)
    if choose.random() < 0.3:
        grad_out = grad_out.to(memory_format=torch.channels_last)
    tensors: dict[str, Tensor | None] = {
        "input": x,
        "feature_weight": normal(features, 1, *kernel) / taps**0.5,
        # The logits stay moderate: where one tap takes all, its gradient is a difference of equals for anyone.
        "attention_weight": normal(channels, taps) / max(1.0, magnitude),
        "weight": normal(outputs, channels // groups, *kernel) / features**0.5,
        "bias": normal(outputs) if choose.random() < 0.5 else None,
        "norm_weight": normal(features) if affine else None,
        "norm_bias": normal(features) if affine else None,
    }
    says = (
        f"seed {seed}: {kind} x {magnitude:.1e}, {list(x.shape)} to {outputs}, {window}, groups {groups}, {training=}"
    )
    running = (normal(features) * magnitude, (normal(features).abs() + 0.1) * magnitude**2)
    return Case(tensors, running, training, window, groups, grad_out, says)


def compute(case: Case, backend: str, dtype: torch.dtype) -> dict[str, Tensor]:
    """The output, the running statistics afterwards and every gradient, as float64."""
    tensors = {name: None if t is None else t.to(dtype).requires_grad_() for name, t in case.tensors.items()}
    mean, var = (t.to(dtype).clone() for t in case.running)
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
    grads = torch.autograd.grad(out, list(wanted.values()), case.grad_out.to(dtype))
    found = {"out": out.detach(), "running_mean": mean, "running_var": var}
    found |= {f"grad of {name}": grad for name, grad in zip(wanted, grads, strict=True)}
    return {name: value.double() for name, value in found.items()}


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


def worst_violation(case: Case) -> tuple[float, str]:
    """How many times the allowed error the worst result is off, and which it is."""
    truth, ours, plain = (
        compute(case, backend, dtype)
        for backend, dtype in (("reference", torch.float64), ("cpu", torch.float32), ("reference", torch.float32))
    )
    flips, blows_up = doubt(case)
    worst = (0.0, "")
    for name, value in truth.items():
        if blows_up or (flips and name.startswith("grad")):
            continue
        scale = value.abs().max() + 1e-30
        error, allowed = ((found[name] - value).abs().max() / scale for found in (ours, plain))
        worst = max(worst, (float(error / (2 * allowed + 1e-6)), name))
    return worst


@pytest.mark.parametrize("first", range(0, 2000, 250))
def test_kernel_is_as_exact_as_the_reference(first: int) -> None:
    bad = []
    for seed in range(first, first + 250):
        case = draw(seed)
        violation, name = worst_violation(case)
        if not violation <= 1:
            bad.append(f"{name} is {violation:.2f} times the allowed error off at {case.says}")
    assert not bad, "\n".join(bad)


def test_few_cases_are_in_doubt() -> None:
    cases = [draw(seed) for seed in range(400)]
    doubts = [doubt(case) for case in cases]
    assert sum(case.training for case in cases) > 100
    assert sum(one.flips for one in doubts) < 80
    assert sum(one.blows_up for one in doubts) < 8
