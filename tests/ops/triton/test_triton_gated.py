"""RFCBAMConv and RFCAConv by the Triton kernels, in inference, against their composition and the float64 reference."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rfaconv import UserError, create_conv
from rfaconv.ops import use_backend

CASES: dict[str, tuple[tuple[int, int, int, int], dict[str, Any]]] = {
    "3x3": ((2, 3, 7, 9), {}),
    "more channels and pixels than a tile": ((1, 18, 13, 9), {"bias": False}),
    "stride and groups": ((2, 4, 11, 9), {"stride": 2, "groups": 2}),
    "asymmetric": ((3, 4, 9, 8), {"kernel_size": (3, 2), "stride": (2, 3), "padding": (1, 2), "dilation": (1, 2)}),
    "more taps than a program surveys": ((1, 2, 3, 34), {"kernel_size": (2, 5), "padding": (0, 2)}),
    "1x1": ((2, 3, 5, 4), {"kernel_size": 1}),
}


def make(name: str, case: str) -> tuple[nn.Module, Tensor]:
    """A layer whose norms do something, in eval mode, and an image."""
    torch.manual_seed(0)
    (batch, channels, *size), options = CASES[case]
    layer = create_conv(name, channels, 6, **{"kernel_size": 3, **options}, act_layer="silu")
    for module in layer.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
    return layer.eval(), torch.randn(batch, channels, *size) + 0.5


def run(layer: nn.Module, x: Tensor, backend: str, dtype: torch.dtype, device: str = "cpu") -> Tensor:
    with torch.no_grad(), use_backend(backend):
        return copy.deepcopy(layer).to(device, dtype)(x.to(device, dtype)).cpu()


@pytest.mark.parametrize("last", [False, True], ids=["NCHW", "channels last"])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", ["rfcbam", "rfca"])
def test_as_exact_as_the_reference(name: str, case: str, last: bool, device: str) -> None:
    layer, x = make(name, case)
    x = x.contiguous(memory_format=torch.channels_last) if last else x
    truth, plain = (run(layer, x, "reference", dtype) for dtype in (torch.float64, torch.float32))
    found = run(layer, x, "triton", torch.float32, device)
    error, allowed = ((one - truth).abs().max() / truth.abs().max() for one in (found, plain))
    assert error <= 2 * allowed + 1e-6
    assert found.is_contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)


@pytest.mark.parametrize("name", ["rfcbam", "rfca"])
def test_batch_statistics_without_gradients(name: str, device: str) -> None:
    layer, x = make(name, "3x3")
    layer.train()
    truth, plain = (run(layer, x, "reference", dtype) for dtype in (torch.float64, torch.float32))
    found = run(layer, x, "triton", torch.float32, device)
    assert (found - truth).abs().max() <= 2 * (plain - truth).abs().max() + 1e-6 * truth.abs().max()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", ["rfcbam", "rfca"])
def test_half_precision_is_as_good_as_the_references(name: str, dtype: torch.dtype, device: str) -> None:
    layer, x = make(name, "more channels and pixels than a tile")
    layer, x = layer.to(dtype), x.to(dtype)
    truth = run(layer, x, "reference", torch.float64)
    plain, found = run(layer, x, "reference", dtype), run(layer, x, "triton", dtype, device)
    assert found.dtype == dtype
    assert (found - truth).norm() <= 2 * (plain - truth).norm()


@pytest.mark.parametrize("name", ["rfcbam", "rfca"])
def test_nan_goes_on_as_in_the_reference(name: str, device: str) -> None:
    layer, x = make(name, "3x3")
    x[0, 1, 2, 3] = torch.nan
    found, plain = run(layer, x, "triton", torch.float32, device), run(layer, x, "reference", torch.float32)
    torch.testing.assert_close(found, plain, rtol=1e-4, atol=1e-5, equal_nan=True)


@pytest.mark.parametrize("name", ["rfcbam", "rfca"])
def test_gradients_are_declined_with_a_reason(name: str, device: str) -> None:
    layer, x = make(name, "3x3")
    layer, x = layer.to(device), x.to(device)
    with use_backend("triton"), pytest.raises(UserError, match="has no gradients for an attention of two gates"):
        layer(x)
