"""Random small networks, drawn from a seed: whatever hangs together how, the converted one computes the same."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from conversion_helpers import LAYERS, RECEPTIVE_FIELD, deviation, outputs, realistic, twin
from torch import Tensor, nn

import rfaconv
from rfaconv.layers import ConvLayer

ACTIVATIONS: list[Any] = [nn.ReLU, nn.SiLU, nn.Hardswish, nn.GELU, lambda: nn.LeakyReLU(0.1), nn.Identity]


class Branches(nn.Module):
    """Sums, products and joins of branches over one input, some of which share their convolution."""

    def __init__(self, branches: list[nn.Module], how: str) -> None:
        super().__init__()
        self.branches, self.how = nn.ModuleList(branches), how

    def forward(self, x: Tensor) -> Tensor:
        outs = [branch(x) for branch in self.branches]
        if self.how == "cat":
            return torch.cat(outs, 1)
        total = outs[0]
        for out in outs[1:]:
            total = total + out if self.how == "sum" else total * out.sigmoid()
        return total


def convolution(draw: random.Random, channels: int, outputs: int) -> nn.Conv2d:
    """Keeps the size of the plane, so that branches fit together."""
    kernel = draw.choice([(1, 1), (3, 3), (3, 3), (5, 5), (1, 5), (3, 1)])
    dilation = draw.choice([1, 1, 2])
    padding = tuple(dilation * (size // 2) for size in kernel)
    groups = draw.choice([g for g in (1, 1, 2, 4, channels) if channels % g == 0 and outputs % g == 0])
    mode = draw.choice(["zeros", "zeros", "zeros", "reflect", "replicate", "circular"])
    return nn.Conv2d(
        channels,
        outputs,
        kernel,
        padding=draw.choice([padding, "same"]),  # type: ignore[arg-type]
        dilation=dilation,
        groups=groups,
        bias=draw.random() < 0.5,
        padding_mode=mode,
    )


def block(draw: random.Random, channels: int, outputs: int, shared: list[nn.Conv2d]) -> nn.Module:
    if channels == outputs and shared and draw.random() < 0.3:
        conv: nn.Module = draw.choice(shared)
    else:
        conv = convolution(draw, channels, outputs)
        if channels == outputs:
            shared.append(conv)  # type: ignore[arg-type]
    norm: nn.Module = nn.BatchNorm2d(outputs) if draw.random() < 0.6 else nn.Identity()
    parts = [conv, norm, draw.choice(ACTIVATIONS)()]
    if channels == outputs and draw.random() < 0.3:
        return nn.Sequential(parts[1], parts[2], conv)
    return nn.Sequential(*parts)


def network(seed: int) -> nn.Module:
    draw = random.Random(seed)
    torch.manual_seed(seed)
    channels, parts, shared = 8, [nn.Conv2d(3, 8, 3, draw.choice([1, 2]), 1), nn.ReLU()], list[nn.Conv2d]()
    for _ in range(draw.randint(2, 4)):
        kind = draw.choice(["chain", "cat", "sum", "gate", "pool"])
        if kind == "chain":
            new = draw.choice([8, 16])
            if channels == new or draw.random() < 0.5:
                parts.append(block(draw, channels, new, [conv for conv in shared if conv.in_channels == channels]))
                channels = new
        elif kind == "pool":
            parts.append(draw.choice([nn.MaxPool2d(3, 1, 1), nn.AvgPool2d(3, 1, 1), nn.Dropout(0.2)]))
        else:
            mine = [conv for conv in shared if conv.in_channels == channels]
            parts.append(Branches([block(draw, channels, channels, mine) for _ in range(2)], kind))
            shared += [conv for conv in mine if conv not in shared]
            if kind == "cat":
                parts.append(nn.Conv2d(2 * channels, channels, 1))
    return realistic(nn.Sequential(*parts))


@pytest.mark.parametrize("seed", range(60))
def test_the_same_function(seed: int) -> None:
    model, name = network(seed), LAYERS[seed % len(LAYERS)]
    plain, x = twin(model), torch.randn(3, 3, 14, 15)
    wanted = {id(module) for module in model.modules() if isinstance(module, nn.Conv2d)}
    summary = rfaconv.convert(model, name, where="*", calibrate=x)
    assert not summary.skipped
    assert sum(isinstance(module, ConvLayer) for module in model.modules()) == len(wanted)
    before = outputs(plain, x)
    assert deviation(before, outputs(model, x)) < 2e-5
    # What is proved holds for other inputs as well.
    if not any("nothing bounds" in note for note in summary.notes):
        other = 10 * torch.randn(2, 3, 11, 12)
        assert deviation(outputs(plain, other), outputs(model, other)) < 2e-5


@pytest.mark.parametrize("seed", range(0, 60, 3))
def test_and_without_data_where_it_says_so(seed: int) -> None:
    """A place without a proof stays; the others are exact for inputs nobody has seen."""
    model, name = network(seed), RECEPTIVE_FIELD[seed % len(RECEPTIVE_FIELD)]
    channels = model(torch.randn(1, 3, 9, 9)).shape[1]
    model = nn.Sequential(*model, nn.ReLU(), nn.Conv2d(channels, 4, 3)).eval()  # one place at least
    plain = twin(model)
    summary = rfaconv.convert(model, name, where="*")
    for scale in (1, 30):
        x = scale * torch.randn(2, 3, 12, 12)
        assert deviation(outputs(plain, x), outputs(model, x)) < 2e-5
    assert {skip.reason for skip in summary.skipped} <= {
        "its input has no lower bound that can be proved: give calibrate= a few batches"
    }


@pytest.mark.parametrize("seed", range(0, 60, 2))
def test_there_and_back(seed: int) -> None:
    model, name = network(seed), LAYERS[seed % len(LAYERS)]
    plain, x = twin(model), torch.randn(3, 3, 14, 15)
    rfaconv.convert(model, name, where="*", calibrate=x)
    summary = rfaconv.simplify(model, calibrate=x, fold_norms=False)
    assert not summary.skipped, summary
    assert not any(isinstance(module, ConvLayer) for module in model.modules())
    assert deviation(outputs(plain, x), outputs(model, x)) < 2e-5
    kinds = [[type(module).__name__ for module in network.modules()] for network in (plain, model)]
    assert kinds[0] == kinds[1]
    rfaconv.simplify(model, calibrate=x)
    assert deviation(outputs(plain, x), outputs(model, x)) < 2e-5
