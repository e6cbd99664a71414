"""The functional operator and its backends."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from calls import rfa_conv2d

from rfaconv import UserError
from rfaconv.ops import backends, dispatch, fold_norm, use_backend


def arguments(seed: int, dtype: torch.dtype = torch.float64) -> dict[str, Any]:
    """A random call: shapes, window, groups, optional parts and magnitudes."""
    choose = random.Random(seed)
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, dtype=dtype)

    groups = choose.choice([1, 1, 2])
    channels, outputs = groups * choose.randint(1, 3), groups * choose.randint(1, 4)
    kernel = (choose.randint(1, 5), choose.randint(1, 5))
    dilation = (choose.randint(1, 2), choose.randint(1, 2))
    padding = (choose.randint(0, 3), choose.randint(0, 3))
    least = [d * (k - 1) + 1 - 2 * p for k, d, p in zip(kernel, dilation, padding, strict=True)]
    size = [max(1, value) + choose.randint(0, 6) for value in least]
    features = channels * kernel[0] * kernel[1]
    affine = choose.random() < 0.7
    return {
        "input": draw(choose.randint(1, 3), channels, *size) * 10 ** choose.uniform(-3, 2),
        "feature_weight": draw(features, 1, *kernel),
        "attention_weight": draw(channels, kernel[0] * kernel[1]),
        "weight": draw(outputs, channels // groups, *kernel),
        "bias": draw(outputs) if choose.random() < 0.5 else None,
        "norm_weight": draw(features) if affine else None,
        "norm_bias": draw(features) if affine else None,
        "running_mean": draw(features),
        "running_var": draw(features).abs() + 0.1,
        "training": choose.random() < 0.5,
        "stride": (choose.randint(1, 3), choose.randint(1, 3)),
        "padding": padding,
        "dilation": dilation,
        "groups": groups,
    }


def run(backend: str, call: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The output, the running statistics afterwards and every gradient."""
    tensors = {key: value.clone() for key, value in call.items() if isinstance(value, torch.Tensor)}
    leaves = {key: value.requires_grad_() for key, value in tensors.items() if not key.startswith("running")}
    out = rfa_conv2d(**{**call, **tensors}, backend=backend)
    gradients = torch.autograd.grad(out.sin().sum(), list(leaves.values()))
    found = {f"d{key}": value for key, value in zip(leaves, gradients, strict=True)}
    return {"out": out.detach(), "mean": tensors["running_mean"], "var": tensors["running_var"], **found}


# The kernels compute in float32 and have tests of their own (cpu/, triton/).
@pytest.mark.parametrize(
    "backend", [backend.name for backend in backends() if backend.name not in ("reference", "cpu", "triton")]
)
@pytest.mark.parametrize("first", range(0, 400, 100))
def test_backend_equals_reference(backend: str, first: int) -> None:
    for seed in range(first, first + 100):
        call = arguments(seed)
        if call["training"] and call["input"].shape[0] == 1:
            call["training"] = False  # one value a channel is an error, as in torch
        torch.testing.assert_close(run(backend, call), run("reference", call), rtol=1e-7, atol=1e-7, msg=f"seed {seed}")


def test_without_running_statistics_the_batchs_are_used() -> None:
    call = {**arguments(3), "running_mean": None, "running_var": None}
    outputs = [
        rfa_conv2d(**{**call, "training": training}, backend=backend)
        for training in (False, True)
        for backend in ("torch", "reference")
    ]
    for out in outputs[1:]:
        torch.testing.assert_close(out, outputs[0])


def test_a_norm_needs_statistics() -> None:
    with pytest.raises(ValueError, match="fold_norm needs running_mean and running_var, or the moments"):
        fold_norm(torch.randn(9, 1, 3, 3))


def test_nan_and_inf_pass_through_as_in_the_reference() -> None:
    call = {**arguments(1), "training": False}
    call["input"][0, 0, 0, 0], call["input"][-1, -1, -1, -1] = torch.nan, torch.inf
    torch.testing.assert_close(
        rfa_conv2d(**call, backend="torch"), rfa_conv2d(**call, backend="reference"), equal_nan=True
    )


def test_backends_are_chosen_by_name_and_by_context() -> None:
    call = {**arguments(2, torch.float32), "training": False}
    with pytest.raises(UserError, match="Did you mean 'torch'"):
        rfa_conv2d(**call, backend="torhc")
    with use_backend("torch"):
        inside = rfa_conv2d(**call)
        with pytest.raises(UserError, match="Unknown backend"), use_backend("nothing"):
            pass
        assert dispatch.preferred_backend() == "torch"
    assert torch.equal(inside, rfa_conv2d(**call, backend="torch"))
    assert dispatch.preferred_backend() == "auto"
