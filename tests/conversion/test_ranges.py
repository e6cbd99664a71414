"""The bounds that are proved: true for what runs, and as tight as the functions' definitions."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rfaconv.conversion.ranges import RangeMode
from rfaconv.conversion.rules import MOST_NORMALISED

KNOWN: dict[str, tuple[Callable[[Tensor], Tensor], float, float]] = {
    "relu": (F.relu, 0, math.inf),
    "method": (lambda x: x.relu(), 0, math.inf),
    "in place": (lambda x: (x * 1).relu_(), 0, math.inf),
    "module in place": (lambda x: nn.ReLU(inplace=True)(x * 1), 0, math.inf),
    "relu6": (F.relu6, 0, 6),
    "sigmoid": (torch.sigmoid, 0, 1),
    "softmax": (lambda x: x.softmax(1), 0, 1),
    "clamp": (lambda x: x.clamp(-2, 3), -2, 3),
    "clamp from below": (lambda x: x.clamp(min=-2), -2, math.inf),
    "hardtanh": (lambda x: F.hardtanh(x, -3, 0.5), -3, 0.5),
    "leaky of relu6 - 2": (lambda x: F.leaky_relu(F.relu6(x) - 2, 0.1), -0.2, 4),
    "elu": (lambda x: F.elu(x, 0.5), -0.5, math.inf),
    "difference": (lambda x: torch.sigmoid(x) - F.relu6(x), -6, 1),
    "product": (lambda x: x.tanh() * F.relu6(x), -6, 6),
    "squeeze and excite": (lambda x: F.relu(x) * x.mean((2, 3), keepdim=True).sigmoid(), 0, math.inf),
    "scaled": (lambda x: -2 * x.sigmoid() / 4, -0.5, 0),
    "named": (lambda x: torch.mul(F.relu(x), other=x.sigmoid()), 0, math.inf),
    "turned": (lambda x: 1 - x.sigmoid(), 0, 1),
    "residual": (lambda x: F.relu(x) + F.silu(x), -0.2784646, math.inf),
    "added in place": (lambda x: F.relu(x).add_(x.tanh()), -1, math.inf),
    "join": (lambda x: torch.cat([x.tanh(), F.relu(x)], 1), -1, math.inf),
    "pooled": (lambda x: F.max_pool2d(F.avg_pool2d(F.relu(x), 3, 1, 1), 3, 2, 1), 0, math.inf),
    "padded": (lambda x: F.pad(x.sigmoid() + 1, (1, 1, 1, 1)), 0, 2),
    "padded with a value": (lambda x: F.pad(x.sigmoid(), (1, 1), value=-4.0), -4, 1),
    "moved": (lambda x: F.relu(x).flatten(2).transpose(1, 2).chunk(2, 2)[1][:, 1:], 0, math.inf),
    "bilinear": (lambda x: F.interpolate(F.relu(x), scale_factor=2, mode="bilinear"), 0, math.inf),
    "dropout": (lambda x: F.dropout(x.tanh(), 0.5, True), -2, 2),
    "layer norm": (lambda x: F.layer_norm(x, (8,)), -math.sqrt(7), math.sqrt(7)),
    "layer norm, affine": (
        lambda x: F.layer_norm(x[..., :2], (2,), torch.tensor([-2.0, 1.0]), torch.tensor([0.5, 3.0])),
        -1.5,
        4,
    ),
}
UNBOUNDED: dict[str, Callable[[Tensor], Tensor]] = {
    "the input": lambda x: x + 0,
    "leaky": lambda x: F.leaky_relu(x, 0.1),
    "bicubic": lambda x: F.interpolate(F.relu(x), scale_factor=2, mode="bicubic"),
    "convolution": lambda x: F.conv2d(F.relu(x), torch.ones(4, 4, 1, 1)),
    "minus": lambda x: -F.relu(x),
    "written to": lambda x: F.relu(x).sub_(5.0 * x.abs()),
    "part written to": lambda x: _part_written_to(F.relu(x)),
    "a view written to": lambda x: _view_written_to(F.relu(x)),
    "one over": lambda x: 1 / (F.relu6(x) - 3),
    "summed": lambda x: F.avg_pool2d(x.tanh(), 2, divisor_override=1),
    "read as another type": lambda x: F.relu(x).view(torch.int32),
    "named arguments": lambda x: torch.add(input=F.relu(x), other=x),
    "layer norm over many": lambda x: F.layer_norm(x.repeat(1, 1, MOST_NORMALISED, 1), (MOST_NORMALISED * 8, 8)),
    "unknown": lambda x: torch.fft.fft2(F.relu(x)).real,
}


def _part_written_to(x: Tensor) -> Tensor:
    x[:, :1] = -7.0
    return x


def _view_written_to(x: Tensor) -> Tensor:
    x.view(-1).mul_(-3)
    return x


def look(function: Callable[[Tensor], Tensor]) -> tuple[float, float, Tensor]:
    x = 4 * torch.randn(2, 4, 8, 8)
    with RangeMode() as mode:
        out = function(x)
        low, high, _ = mode.of(out)
    return low, high, out


@pytest.mark.parametrize("what", KNOWN)
def test_what_is_proved(what: str) -> None:
    function, least, most = KNOWN[what]
    low, high, out = look(function)
    assert (low, high) == pytest.approx((least, most))
    assert low <= out.min()
    assert out.max() <= high


@pytest.mark.parametrize("what", UNBOUNDED)
def test_what_is_not(what: str) -> None:
    low, _, _ = look(UNBOUNDED[what])
    assert low == -math.inf


@pytest.mark.parametrize(
    "act", [nn.SiLU(), nn.GELU(), nn.GELU("tanh"), nn.Mish(), nn.Hardswish(), nn.SELU(), nn.CELU()]
)
def test_least_values_of_activations(act: nn.Module) -> None:
    """Against a fine grid in float64: below it, and by no more than the bound's own rounding."""
    with RangeMode() as mode:
        grid = act(torch.linspace(-30, 10, 400_001, dtype=torch.float64))
        low = mode.of(grid).low
    assert grid.min().item() - 2e-4 < low <= grid.min().item()


def test_moments_of_a_batch_norm_and_what_follows() -> None:
    norm = nn.BatchNorm2d(3).eval()
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([0.5, 1.0, 2.0]))
        norm.bias.copy_(torch.tensor([-1.0, 0.0, 3.0]))
    with RangeMode() as mode:
        out = norm(torch.randn(64, 3, 64, 64, dtype=torch.float32))
        for value in (out, F.relu(out), F.silu(out), F.relu(out) + F.relu(norm(torch.randn(64, 3, 64, 64)))):
            moments = mode.of(value).moments
            assert moments is not None
            torch.testing.assert_close(moments[0].float(), value.detach().mean((0, 2, 3)), rtol=0.02, atol=0.01)
            torch.testing.assert_close(moments[1].float(), value.detach().var((0, 2, 3)), rtol=0.04, atol=0.01)
        assert mode.of(nn.Conv2d(3, 3, 1)(out)).moments is None
