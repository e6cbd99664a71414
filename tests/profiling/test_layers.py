"""Costs of layers, and the tables, CSV and Markdown made of costs."""

from __future__ import annotations

import csv
import io

import pytest
import torch

from rfaconv import UserError
from rfaconv.profiling import SHAPES, LayerCost, LayerShape, ModelCost, Ratio, geometric_means, layer_costs
from rfaconv.profiling.records import layers_csv, models_csv
from rfaconv.profiling.tables import layer_table, layers_markdown, model_table, models_markdown

SMALL = (1, 4, 8, 6, 2)
FACTS = {"cpu": "a cpu, fast", "torch": "2.6.0"}
MODELS = {
    "conv": ModelCost(11_689_512, 1_820_000_000, 10, Ratio(1, 1, 1), 30, Ratio(1, 1, 1), 800, Ratio(1, 1, 1)),
    "a|b": ModelCost(950, 12_345, 12, Ratio(1.2, 1.1, 1.3), 45, Ratio(1.5, 1.4, 1.6), 880, Ratio(1.1, 1.1, 1.1)),
}


def cost(conv: str, shape: LayerShape, times: float, plain: float | None = None) -> LayerCost:
    slow = None if plain is None else Ratio(plain, plain - 1, plain + 1)
    return LayerCost(conv, shape, 1.5, 4.5, 20, Ratio(times, times, times), Ratio(2, 1.9, 2.1), 1.5, slow, None, plain)


LAYERS = [
    cost("rfa", SHAPES[0], 2, plain=8),
    cost("ca", SHAPES[0], 1.1),
    cost("rfa", SHAPES[4], 8, plain=2),
    cost("ca", SHAPES[4], 1.1),
]


def test_layers_beside_conv2d_and_the_plain_formula() -> None:
    costs = {cost.conv: cost for cost in layer_costs(["conv", "rf", "rfa", "cam"], [SMALL], rounds=2)}
    assert list(costs) == ["conv", "rf", "rfa", "cam"]
    assert costs["rfa"].shape == LayerShape(*SMALL)
    assert costs["conv"].memory == 1
    assert costs["rfa"].memory > 1
    # The plain formula is another one for rfa, differs for rf in eval mode alone, and does not exist for cam.
    assert costs["rfa"].plain_inference is not None
    assert costs["rfa"].plain_training is not None
    assert costs["rfa"].plain_memory is not None
    assert costs["rf"].plain_inference is not None
    assert costs["rf"].plain_training is None
    assert costs["cam"].plain_inference is None
    assert costs["cam"].plain_memory is None


def test_the_random_numbers_stay_as_they_are() -> None:
    state = torch.random.get_rng_state()
    layer_costs(["ca"], [SMALL], rounds=1, dtype=torch.float64)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_refusals() -> None:
    with pytest.raises(UserError, match="Did you mean 'rfcbam'"):
        layer_costs(["rfcban"], [SMALL])
    with pytest.raises(UserError, match="rounds must be at least 1"):
        layer_costs(["rfa"], [SMALL], rounds=0)
    with pytest.raises(UserError, match="not on 'meta'"):
        layer_costs(["rfa"], [SMALL], device="meta")


def test_geometric_means() -> None:
    means = geometric_means(LAYERS)
    assert list(means) == ["rfa", "ca"]
    assert means["rfa"] == pytest.approx((4, 2, 1.5, 4, None, 4))
    assert means["ca"].plain_inference is None


def test_names_of_shapes() -> None:
    assert [str(shape) for shape in (SHAPES[0], SHAPES[4])] == ["8x64x56x56", "8x64x56x56 to 128 s2"]


def test_csv_of_layers() -> None:
    rows = list(csv.DictReader(io.StringIO(layers_csv(LAYERS, FACTS))))
    assert len(rows) == 4
    first = rows[0]
    assert (first["conv"], first["in_channels"], first["size"], first["stride"]) == ("rfa", "64", "56", "1")
    assert (first["training_ratio"], first["training_ratio_p25"], first["training_ratio_p75"]) == ("2", "1.9", "2.1")
    assert (first["plain_inference_ratio"], first["plain_training_ratio"]) == ("8", "")
    assert (first["cpu"], first["torch"]) == ("a cpu, fast", "2.6.0")


def test_csv_of_models() -> None:
    rows = list(csv.DictReader(io.StringIO(models_csv(MODELS, FACTS))))
    assert [row["model"] for row in rows] == ["conv", "a|b"]
    assert (rows[1]["params"], rows[1]["macs"], rows[1]["inference_ms"]) == ("950", "12345", "12")
    assert (rows[1]["training_ratio_p25"], rows[1]["memory_mib"], rows[1]["memory_ratio"]) == ("1.4", "880", "1.1")
    assert rows[1]["cpu"] == "a cpu, fast"


def test_markdown() -> None:
    models = models_markdown("Models", MODELS, FACTS)
    assert "| conv | 11.7 M | 1.82 G | 10.0 | 1.00x | 30.0 | 1.00x | 800 | 1.00x |" in models
    assert "| a\\|b | 950 | 12.3 k | 12.0 | 1.20x (1.10-1.30) |" in models
    assert models.startswith("## Models\n")
    assert "Measured with: cpu a cpu, fast; torch 2.6.0.\n" in models
    layers = layers_markdown("Layers", LAYERS, FACTS)
    assert "| 8x64x56x56 to 128 s2 | Conv2d | 1.50 ms | 4.50 ms | 20.0 MiB |  |  |  |" in layers
    assert "|  | rfa | 8.00x | 2.00x (1.90-2.10) | 1.50x | 2.00x (1.00-3.00) |  | 2.00x |" in layers
    assert "| geometric mean | rfa | 4.00x | 2.00x | 1.50x | 4.00x |  | 4.00x |" in layers


def test_tables_for_the_terminal() -> None:
    console = pytest.importorskip("rich.console").Console(width=110, file=io.StringIO())
    console.print(layer_table(LAYERS))
    console.print(model_table(MODELS))
    shown = console.file.getvalue()
    assert "8x64x56x56 to 128 s2" in shown
    assert "1.20x (1.10-1.30)" in shown
