"""Costs of models: what they are made of, and that the models come out as they went in."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from rfaconv import UserError, create_conv
from rfaconv.profiling import ModelCost, Ratio, count, model_costs


def network(conv: str, channels: int = 8) -> nn.Module:
    return nn.Sequential(
        create_conv(conv, 3, channels, 3, 2, norm_layer="batchnorm2d", act_layer="relu"),
        nn.Dropout(0.1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(channels, 4),
    )


def measure(models: dict[str, nn.Module], **arguments: object) -> dict[str, ModelCost]:
    given: dict[str, object] = {"batch": 2, "rounds": 3, "train_rounds": 2, **arguments}
    return model_costs(models, (3, 16, 16), **given)


def test_costs_beside_the_baseline() -> None:
    models = {name: network(name) for name in ("rfa", "conv", "ca")}
    costs = measure(models, baseline="conv")
    assert list(costs) == ["rfa", "conv", "ca"]
    one = Ratio(1, 1, 1)
    assert (costs["conv"].inference, costs["conv"].training, costs["conv"].memory) == (one, one, one)
    for name, cost in costs.items():
        assert (cost.params, cost.macs) == count(models[name], (3, 16, 16))
        assert cost.inference_ms > 0
        assert cost.training_ms > 0
        assert cost.inference.low <= cost.inference.median <= cost.inference.high
        assert cost.memory.low == cost.memory.median == cost.memory.high
        assert cost.memory.median == pytest.approx(cost.memory_mb / costs["conv"].memory_mb)


def test_the_first_is_the_baseline() -> None:
    costs = measure({"rfa": network("rfa"), "conv": network("conv")})
    assert costs["rfa"].training == Ratio(1, 1, 1)


def test_memory_is_the_same_every_time_and_grows_with_the_batch() -> None:
    # A layer without a kernel of its own, whose scratch would not depend on the batch.
    once, again = (measure({"ca": network("ca")})["ca"].memory_mb for _ in range(2))
    assert once == again
    assert measure({"ca": network("ca")}, batch=8)["ca"].memory_mb > 2 * once


def test_memory_by_hand() -> None:
    # Model, momentum and batch are not counted; the gradient of the weight, as large as both, is the peak.
    model = nn.Sequential(nn.Flatten(), nn.Linear(768, 4096, bias=False))
    gradient = 768 * 4096 * 4 / 2**20
    assert gradient <= measure({"model": model})["model"].memory_mb <= 1.05 * gradient


def test_the_models_and_the_random_numbers_stay_as_they_are() -> None:
    model = network("rfa")
    model[1].eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    state = torch.random.get_rng_state()
    measure({"model": model})
    assert torch.equal(torch.random.get_rng_state(), state)
    assert [module.training for module in model] == [True, False, True, True, True]
    assert all(parameter.grad is None for parameter in model.parameters())
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)


def test_outputs_of_any_make() -> None:
    class Heads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1)

        def forward(self, x: Tensor) -> dict[str, object]:
            y = self.body(x)
            return {"out": self.head(y), "aux": [y, (y.detach(), None)], "name": "heads"}

    assert measure({"heads": Heads()})["heads"].memory_mb > 0


def test_progress_is_told() -> None:
    told: list[str] = []
    measure({"a": network("conv")}, progress=told.append)
    assert told == [
        "parameters and MACs",
        *(f"inference, round {number} of 3" for number in (1, 2, 3)),
        *(f"training, round {number} of 2" for number in (1, 2)),
        "training memory of a",
    ]


@pytest.mark.parametrize(
    ("models", "arguments", "message"),
    [
        ({}, {}, "no models"),
        ({"conv": nn.Conv2d(3, 3, 1)}, {"baseline": "con"}, "Did you mean 'conv'"),
        ({"conv": nn.Conv2d(3, 3, 1)}, {"batch": 0}, "batch must be at least 1"),
        ({"conv": nn.Conv2d(3, 3, 1)}, {"train_rounds": 0}, "train_rounds must be at least 1"),
        ({"conv": nn.Conv2d(3, 3, 1)}, {"device": "meta"}, "not on 'meta'"),
        ({"pool": nn.AvgPool2d(2)}, {}, "'pool' has no parameter"),
    ],
)
def test_refusals(models: dict[str, nn.Module], arguments: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        measure(models, **arguments)
