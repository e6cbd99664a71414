"""The counter: each rule by hand, and the model left as it was."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rfaconv import create_conv
from rfaconv.ops import Operands, fold_norm, rf_conv2d
from rfaconv.profiling import count


@pytest.mark.parametrize(
    ("layer", "macs"),
    [
        (nn.Conv2d(4, 8, 3, padding=1, bias=True), 8 * 36 * 4 * 9),
        (nn.Conv2d(4, 8, 3, stride=2, groups=2), 8 * 4 * 2 * 9),
        (nn.ConvTranspose2d(4, 8, 2, stride=2), 4 * 36 * 8 * 4),
        (nn.Sequential(nn.Flatten(), nn.Linear(144, 5)), 144 * 5),
        (nn.BatchNorm2d(4), 4 * 144),
        (nn.BatchNorm2d(4, affine=False), 2 * 144),
        (nn.LayerNorm(6), 4 * 144),
        (nn.AvgPool2d(2), 4 * 9),
        (nn.AdaptiveAvgPool2d(1), 144 + 4),
        (nn.AdaptiveAvgPool2d(3), 144 + 36),
        (nn.Sequential(nn.ReLU(), nn.MaxPool2d(2), nn.Softmax(1)), 0),
    ],
    ids=str,
)
def test_rules(layer: nn.Module, macs: int) -> None:
    assert count(layer, (4, 6, 6)).macs == macs


def test_rfa_counts_as_its_formula_whoever_computes_it() -> None:
    layer = create_conv("rfa", 4, 8)
    by_hand = 36 * (36 * 9 + 36 * 4 + 4 + 36 + 8 * 36)  # features, norm, mean, logits, contraction at 36 places
    assert count(layer, (4, 6, 6)).macs == by_hand
    layer.backend = "torch"
    assert count(layer, (4, 6, 6)).macs == by_hand
    with_norm = create_conv("rfa", 4, 8, norm_layer="batchnorm2d", act_layer="silu")
    assert count(with_norm, (4, 6, 6)).macs == by_hand + 4 * 8 * 36

    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            part, norm = self.layer, self.layer.features.norm
            statistics = {"running_mean": norm.running_mean, "running_var": norm.running_var}
            features = fold_norm(part.features.weight, norm.weight, norm.bias, **statistics, backend="cpu")[0]
            operands = Operands(tap_weight=part.attention.weight)
            return rf_conv2d(x, features, operands, part.weight, padding=1, backend="cpu")

    # An operator by its own formula: the norm is folded, and the mean made with the features.
    assert count(Functional(), (4, 6, 6)).macs == by_hand - 36 * (36 * 4 + 4)


def test_counting_leaves_the_model_as_it_was() -> None:
    model = nn.Sequential(create_conv("rfa", 4, 4), nn.BatchNorm2d(4), nn.Dropout())
    model[1].eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    count(model, (4, 6, 6))
    assert [module.training for module in model] == [True, False, True]
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
