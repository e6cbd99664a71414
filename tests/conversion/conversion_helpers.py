"""What several tests of conversion share."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from rfaconv.conversion.verification import tensors

LAYERS = ["rf", "rfa", "rfcbam", "rfca", "cam", "cbam", "ca"]
RECEPTIVE_FIELD = LAYERS[:4]


def realistic(model: nn.Module) -> nn.Module:
    """Batch norms as training leaves them: no statistic and no affine parameter at the value it is born with."""
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                assert module.running_mean is not None
                assert module.running_var is not None
                module.running_mean.normal_(0, 0.3)
                module.running_var.uniform_(0.3, 1.8)
                if module.affine:
                    module.weight.uniform_(0.3, 1.1)
                    module.bias.normal_(0, 0.3)
    return model.eval()


def outputs(model: nn.Module, *inputs: Any) -> list[Tensor]:
    """Every tensor the model gives in the mode it is in."""
    with torch.no_grad():
        return [tensor.clone() for _, tensor in tensors(model(*inputs))]


def deviation(before: list[Tensor], after: list[Tensor]) -> float:
    """Largest difference relative to the largest value, tensor by tensor; written anew, not what convert checks by."""
    assert [tensor.shape for tensor in before] == [tensor.shape for tensor in after]
    assert before
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(after, before, strict=True))


def twin(model: nn.Module) -> nn.Module:
    return copy.deepcopy(model)


class Net(nn.Module):
    """A stem, a convolution that hangs in two places and is used twice, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.first = nn.Sequential(nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1))
        self.second = nn.Sequential(nn.SiLU(), self.first[1])
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.second(self.first(self.stem(x)))
        out: Tensor = self.head(x.mean((2, 3)))
        return out


X = torch.randn(4, 3, 10, 10, generator=torch.Generator().manual_seed(0))
