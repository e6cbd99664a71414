"""The C++ kernel against the float64 reference over random configurations: outputs, statistics and all gradients."""

from __future__ import annotations

import random

import pytest
import torch
from parity import Case, doubt, worst_violation
from torch import Tensor

from rfaconv.ops.operator_call import FEWEST_VALUES
from rfaconv.ops.window import Window


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


@pytest.mark.parametrize("first", range(0, 2000, 250))
def test_kernel_is_as_exact_as_the_reference(first: int) -> None:
    bad = []
    for seed in range(first, first + 250):
        case = draw(seed)
        violation, name = worst_violation(case, "cpu")
        if not violation <= 1:
            bad.append(f"{name} is {violation:.2f} times the allowed error off at {case.says}")
    assert not bad, "\n".join(bad)


def test_few_cases_are_in_doubt() -> None:
    cases = [draw(seed) for seed in range(400)]
    doubts = [doubt(case) for case in cases]
    assert sum(case.training for case in cases) > 100
    assert sum(one.flips for one in doubts) < 80
    assert sum(one.blows_up for one in doubts) < 8
