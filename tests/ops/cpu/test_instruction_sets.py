"""Each instruction set's kernels against the float64 reference, over random shapes, windows and layouts.

RFAConv by `test_parity`'s cases and measure; RFCBAMConv and RFCAConv as layers, on images of noise.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from test_parity import Case, doubt, draw, worst_violation
from torch import Tensor

from rfaconv import create_conv
from rfaconv.ops import use_backend
from rfaconv.ops.cpu import library


def noise_cases(seeds: range) -> Iterator[Case]:
    """`test_parity`'s cases on images of noise; without 1x1 kernels in training, whose filters have no gradient."""
    for seed in seeds:
        case, generator = draw(seed), torch.Generator().manual_seed(seed)
        image, (mean, var) = case.tensors["input"], case.running
        assert image is not None
        x = torch.empty_like(image).normal_(0.5, generator=generator)
        running = (torch.randn(mean.shape, generator=generator).double(), torch.rand_like(var) + 0.5)
        if case.window.taps > 1 or not case.training:
            yield case._replace(tensors={**case.tensors, "input": x}, running=running)


def as_layer(case: Case, name: str) -> Any:
    """The layer of that name with the case's parameters and statistics, in float64."""
    tensors, (channels, outputs) = case.tensors, (case.running[0].numel() // case.window.taps, case.grad_out.shape[1])
    bias = tensors["bias"] is not None
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


def compute(layer: Any, case: Case, backend: str, dtype: torch.dtype) -> dict[str, Tensor]:
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


def violations(layer: Any, case: Case) -> Iterator[str]:
    """What is further from the truth than twice float32's composition of the layer's own modules, and by how much."""
    truth, ours, plain = (
        compute(layer, case, backend, dtype)
        for backend, dtype in (("reference", torch.float64), ("cpu", torch.float32), ("torch", torch.float32))
    )
    unsure = doubt(case).flips or nearly_ties(layer, case)
    for name, value in truth.items():
        scale = value.abs().max() + 1e-30
        error, allowed = ((found[name] - value).abs().max() / scale for found in (ours, plain))
        if not (error <= 2 * allowed + 1e-6 or (unsure and name.startswith("grad"))):
            yield f"{name} is {error / (2 * allowed + 1e-6):.2f} times the allowed error off at {case.says}"


def test_rfa_equals_the_reference(instruction_set: str) -> None:
    found = [(*worst_violation(case), case.says) for case in map(draw, range(5000, 5060))]
    assert [one for one in found if not one[0] <= 1] == []


@pytest.mark.parametrize("name", ["rfcbam", "rfca"])
def test_gated_layers_equal_the_reference(name: str, instruction_set: str) -> None:
    bad = [line for case in noise_cases(range(80)) for line in violations(as_layer(case, name), case)]
    assert not bad, "\n".join(bad)


def test_few_cases_are_in_doubt() -> None:
    cases = list(noise_cases(range(80)))
    assert len(cases) > 70
    assert sum(case.training for case in cases) > 20
    assert sum(doubt(case).flips or nearly_ties(as_layer(case, "rfcbam"), case) for case in cases) < 20


def test_the_widest_set_is_chosen_and_an_unknown_one_refused() -> None:
    before = library.instruction_set()
    assert before == next(name for name in ("AVX-512", "AVX2", "baseline") if library.use_instruction_set(name))
    assert not library.use_instruction_set("AVX-1024")
    assert library.instruction_set() == before
