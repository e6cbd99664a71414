"""Every layer equals the paper's formula, in eval and in training, for every kind of window."""

from __future__ import annotations

from typing import Any

import formulas
import pytest
import torch
from torch import nn

from rfaconv import create_conv
from rfaconv.ops import use_backend

LAYERS = ["conv", "rf", "rfa", "rfcbam", "rfca", "cam", "cbam", "ca"]
WINDOWS: list[dict[str, Any]] = [
    {"kernel_size": 3},
    {"kernel_size": 1},
    {"kernel_size": 5, "padding": 1},
    {"kernel_size": (3, 5), "stride": (2, 1)},
    {"kernel_size": 2, "padding": 0},
    {"kernel_size": 2, "stride": 2},
    {"kernel_size": 3, "stride": 2},
    {"kernel_size": 3, "stride": 3, "padding": 2},
    {"kernel_size": 3, "dilation": 2, "padding": 2},
    {"kernel_size": (2, 3), "dilation": (1, 2), "stride": (1, 3), "padding": (0, 2)},
    {"kernel_size": 3, "groups": 2, "bias": False},
]


def scrambled(layer: nn.Module, seed: int = 0) -> nn.Module:
    """`layer` with no parameter or statistic left at a value that could hide a mistake."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in layer.state_dict().items():
            if tensor.is_floating_point():
                values = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
                tensor.copy_(values.abs() + 0.5 if "running_var" in name else values)
    return layer


def expected(name: str, layer: Any, x: torch.Tensor, training: bool) -> torch.Tensor:
    values = {key: value.detach().double().cpu().numpy() for key, value in layer.state_dict().items()}
    out = formulas.layer(name, x.double().numpy(), values, tuple(layer.window), layer.groups, training)
    return torch.from_numpy(out)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("window", WINDOWS, ids=str)
@pytest.mark.parametrize("name", LAYERS)
def test_layer_equals_formula(name: str, window: dict[str, Any], training: bool) -> None:
    layer = scrambled(create_conv(name, 4, 6, **window, dtype=torch.float64)).train(training)
    x = torch.randn(2, 4, 7, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    wanted = expected(name, layer, x, training)
    torch.testing.assert_close(layer(x), wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("layout", ["channels_last", "transposed", "strided"])
def test_memory_layout_changes_nothing(name: str, layout: str) -> None:
    layer = scrambled(create_conv(name, 4, 6, dtype=torch.float64)).eval()
    x = torch.randn(2, 4, 6, 6, dtype=torch.float64)
    views = {
        "channels_last": x.contiguous(memory_format=torch.channels_last),
        "transposed": x.transpose(2, 3).contiguous().transpose(2, 3),
        "strided": torch.stack([x, x + 1], dim=-1)[..., 0],
    }
    assert not views[layout].is_contiguous()
    torch.testing.assert_close(layer(views[layout]), layer(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", LAYERS)
def test_gradcheck(name: str, training: bool) -> None:
    layer = scrambled(create_conv(name, 2, 2, 3, stride=2, dtype=torch.float64)).train(training)
    x = torch.randn(2, 2, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(3), requires_grad=True)
    names = [key for key, _ in layer.named_parameters()]
    parameters = [value.detach().clone().requires_grad_() for value in layer.parameters()]

    def run(x: torch.Tensor, *values: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(layer, dict(zip(names, values, strict=True)), (x,))

    assert torch.autograd.gradcheck(run, (x, *parameters), nondet_tol=0.0)


@pytest.mark.parametrize("name", LAYERS)
def test_float32_is_as_exact_as_float32_allows(name: str) -> None:
    layer = scrambled(create_conv(name, 8, 8, dtype=torch.float32)).eval()
    x = torch.randn(2, 8, 9, 9)
    wanted = expected(name, layer, x, training=False)
    scale = wanted.abs().max()
    assert (layer(x).double() - wanted).abs().max() / scale < 2e-6


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", LAYERS)
def test_bfloat16_autocast_is_as_good_as_the_reference(name: str, training: bool) -> None:
    """At most twice as far from the truth as the plain formula under the same autocast, and as far as bfloat16 goes."""
    layer = scrambled(create_conv(name, 8, 8)).train(training)
    x = torch.randn(2, 8, 9, 9)
    wanted = expected(name, layer, x, training)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours = layer(x)
        with use_backend("reference"):
            plain = layer(x)
    assert ours.dtype == nn.Conv2d(8, 8, 3, dtype=torch.bfloat16)(x.bfloat16()).dtype

    def error(out: torch.Tensor) -> float:
        return ((out.double() - wanted).norm() / wanted.norm()).item()

    assert error(ours) <= 2 * error(plain)
    assert error(plain) < 0.05


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("name", LAYERS)
def test_parameters_in_the_asked_dtype(name: str, dtype: torch.dtype) -> None:
    layer = create_conv(name, 4, 4, norm_layer="batchnorm2d", dtype=dtype)
    assert {value.dtype for value in layer.parameters()} == {dtype}
    assert layer(torch.randn(2, 4, 5, 5, dtype=dtype)).dtype == dtype
