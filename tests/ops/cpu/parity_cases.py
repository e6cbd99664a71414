"""Random calls and layers, and how far the kernels may be off: what the tests of parity share.

The measure is the reference in float32: the kernels may be twice as far from float64's truth, plus 1e-6 of the largest
value.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from typing import Any

import torch
from parity import Case, doubt
from torch import Tensor

from rfaconv import create_conv
from rfaconv.ops import use_backend
from rfaconv.ops.kernels import FEWEST_VALUES
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


def as_layer(case: Case, name: str) -> Any:
    """The layer of that name with the case's parameters and statistics, in float64."""
    tensors, (channels, outputs) = case.tensors, (case.running[0].numel() // case.window.taps, case.grad_out.shape[1])
    bias = tensors["bias"] is not None
    torch.manual_seed(0)  # the attention's
    layer = create_conv(name, channels, outputs, *case.window, case.groups, bias, dtype=torch.float64)
    own = layer.state_dict()
    given = {
        "weight": tensors["weight"],
        "bias": tensors["bias"],
        "features.weight": tensors["feature_weight"],
        "features.norm.weight": tensors["norm_weight"],
        "features.norm.bias": tensors["norm_bias"],
        "features.norm.running_mean": case.running[0],
        "features.norm.running_var": case.running[1],
    }
    layer.load_state_dict(own | {key: value for key, value in given.items() if value is not None})
    return layer.train(case.training)


def compute_layer(layer: Any, case: Case, backend: str, dtype: torch.dtype) -> dict[str, Tensor]:
    """The output, the buffers afterwards and every gradient, as float64."""
    layer, image = copy.deepcopy(layer).to(dtype), case.tensors["input"]
    assert image is not None
    x = image.detach().to(dtype).requires_grad_()
    with use_backend(backend):
        out = layer(x)
    wanted = {"input": x, **dict(layer.named_parameters())}
    if case.training:
        wanted.pop("attention.reduce.bias", None)  # a norm follows: its gradient is zero, and what is found rounding
    grads = torch.autograd.grad(out, list(wanted.values()), case.grad_out.to(dtype))
    found = {"out": out.detach(), **dict(layer.named_buffers())}
    found |= {f"grad of {name}": grad for name, grad in zip(wanted, grads, strict=True)}
    return {name: value.double() for name, value in found.items()}


def nearly_ties(layer: Any, case: Case) -> bool:
    """Whether which channel has the largest feature of a place hangs on float32's last bits."""
    with use_backend("reference"), torch.no_grad():
        features = copy.deepcopy(layer.features)(case.tensors["input"])
    if features.shape[1] == 1:
        return False
    first, second = features.topk(2, dim=1).values.unbind(1)
    return bool(((first - second < 1e-5 * first.max()) & (first > 0)).any())


def jittered(case: Case, seed: int) -> Case:
    """The case with the last bit of float32 of the image and the parameters moved by chance."""
    generator = torch.Generator().manual_seed(seed)

    def move(x: Tensor | None) -> Tensor | None:
        if x is None:
            return None
        noise = torch.rand(x.shape, generator=generator, dtype=x.dtype).mul_(2).sub_(1)
        return x * (1 + noise * 2**-23)

    return case._replace(tensors={name: move(x) for name, x in case.tensors.items()})


def violations(case: Case, name: str) -> Iterator[str]:
    """What the layer of that name computes further from the truth than twice what float32 does without kernels.

    That is measured five times, four with last bits moved: a gradient in which much cancels is right by luck now and
    then.
    """
    layer = as_layer(case, name)
    truth, ours = (
        compute_layer(layer, case, backend, dtype)
        for backend, dtype in (("reference", torch.float64), ("cpu", torch.float32))
    )
    cases = [case, *(jittered(case, seed) for seed in range(4))]
    plain = [compute_layer(as_layer(one, name), one, "torch", torch.float32) for one in cases]
    found = doubt(case)
    # A norm that follows a 1x1 filter leaves its size no meaning: what is found of its gradient is rounding.
    rounding = case.training and case.window.taps == 1
    unsure = found.flips or rounding or (name == "rfcbam" and nearly_ties(layer, case))
    for key, value in truth.items():
        if found.blows_up or (unsure and key.startswith("grad")):
            continue
        scale = value.abs().max() + 1e-30
        error, *errors = ((one[key] - value).abs().max() / scale for one in (ours, *plain))
        allowed = 2 * max(errors) + 1e-6
        if not error <= allowed:
            yield f"{key} of {name} is {error / allowed:.2f} times the allowed error off at {case.says}"
