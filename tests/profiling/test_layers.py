"""Costs of layers, and the tables, CSV and Markdown made of costs."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rfaconv import UserError
from rfaconv.ops import Backend, dispatch
from rfaconv.profiling import SHAPES, LayerCost, LayerShape, ModelCost, Ratio, geometric_means, layer_costs, parse_shape
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
    own = (Ratio(times, times, times), Ratio(2, 1.9, 2.1), 1.5, 1.25)
    return LayerCost(conv, shape, 1.5, 4.5, 20, 25, *own, slow, None, plain, None if plain is None else plain / 2)


LAYERS = [
    cost("rfa", SHAPES[0], 2, plain=8),
    cost("ca", SHAPES[0], 1.1),
    cost("rfa", SHAPES[4], 8, plain=2),
    cost("ca", SHAPES[4], 1.1),
]


@pytest.fixture
def one_operator(monkeypatch: pytest.MonkeyPatch) -> None:
    """A backend that is one custom operator, as a kernel is: the plain convolution, so that it can be recognised."""

    @torch.library.custom_op("rfaconv_test::one_operator", mutates_args=())
    def operator(x: Tensor, weight: Tensor, stride: int) -> Tensor:
        return F.conv2d(x, weight, None, stride, padding=1)

    def keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:2])
        ctx.stride = inputs[2]

    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight = ctx.saved_tensors
        call = (gradient, x, weight, [0], [ctx.stride] * 2, [1, 1], [1, 1], False, [0, 0], 1, [True, True, False])
        return *torch.ops.aten.convolution_backward(*call)[:2], None

    operator.register_autograd(backward, setup_context=keep)

    class OneOperator(Backend):
        name = "one_operator"

        def patch_moments(self, x: Tensor, window: Any) -> Tensor:
            taps = window.taps
            return torch.ones(x.shape[1], 1 + taps + taps * taps, dtype=torch.float64)

        def rf_conv2d(
            self, x: Tensor, features: Any, operands: Any, weight: Tensor, bias: Any, window: Any, *rest: Any
        ) -> Tensor:
            return operator(x, weight, window.stride[0])

    backend = OneOperator()
    monkeypatch.setattr(dispatch, "_backends", {**dispatch._backends, "one_operator": backend})


def test_the_fastest_layout_counts_and_the_plain_formula_is_compiled_too(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[torch.nn.Module] = []
    monkeypatch.setattr(torch, "compile", lambda module: compiled.append(module) or module)
    seen = []

    def timed(functions: dict[str, Any], **options: Any) -> dict[str, list[float]]:
        """Channels last takes half as long for Conv2d, twice as long for the others; and everything runs once."""
        seen.append([*functions])
        for function in functions.values():
            function()
        return {
            name: [{(True, True): 1.0, (True, False): 8.0}.get(("last" in name, "Conv2d" in name), 2.0)]
            for name in functions
        }

    monkeypatch.setattr("rfaconv.profiling.layers.alternate", timed)
    layouts = (torch.contiguous_format, torch.channels_last)
    costs = layer_costs(["rfa", "cam"], [SMALL], rounds=1, layouts=layouts, compiled=True)
    names = ["Conv2d", "rfa", "cam", "rfa plain", "rfa compiled"]
    assert [sorted(some) for some in seen] == [sorted([*names, *(f"channels_last {name}" for name in names)])] * 2
    assert [cost.conv for cost in costs] == ["rfa", "cam", "rfa compiled"]
    assert all(cost.inference.median == cost.training.median == 2 for cost in costs)
    assert costs[0].conv2d_inference_ms == 1000
    assert costs[2].memory == costs[0].plain_memory
    assert len(compiled) == 5  # two layouts, forward and step; and the block


def test_layers_beside_conv2d_and_the_plain_formula() -> None:
    costs = {cost.conv: cost for cost in layer_costs(["conv", "rf", "rfa", "cam"], [SMALL], rounds=2)}
    assert list(costs) == ["conv", "rf", "rfa", "cam"]
    assert costs["rfa"].shape == LayerShape(*SMALL)
    assert costs["conv"].memory == 1
    assert costs["rfa"].memory > 1
    # The plain formula is another one for rfa and rf, and does not exist for cam.
    assert costs["rfa"].plain_inference is not None
    assert costs["rfa"].plain_training is not None
    assert costs["rfa"].plain_memory is not None
    assert costs["rf"].plain_inference is not None
    assert costs["rf"].plain_training is not None
    assert costs["cam"].plain_inference is None
    assert costs["cam"].plain_memory is None
    # The block's memory is of the layers that the training times are of.
    assert costs["conv"].block_memory == 1
    assert costs["rfa"].plain_block_memory is not None
    assert costs["rf"].plain_block_memory is not None
    assert costs["cam"].plain_block_memory is None


@pytest.mark.usefixtures("one_operator")
def test_the_plain_formula_is_told_from_a_single_operator() -> None:
    (cost,) = layer_costs(["rfa"], [(2, 16, 16, 12)], rounds=1)
    # Nothing but the convolution is computed, and the plain formula is still the whole formula.
    assert cost.memory < 1.5
    assert cost.plain_inference is not None
    assert cost.plain_training is not None
    assert cost.plain_memory is not None
    assert cost.plain_memory > 4 * cost.memory
    assert cost.plain_block_memory is not None
    assert cost.plain_block_memory > 2 * cost.block_memory


def test_memory_of_the_block_by_hand() -> None:
    # A 1x1 convolution of few channels holds its output alone. In the block's backward pass are there at once: the
    # outputs of convolution and ReLU, what ReLU and batch norm pass on, and batch norm's scratch, if it takes any.
    (cost,) = layer_costs(["conv"], [(4, 2, 32, 24, 1, 1)], rounds=1, dtype=torch.float64)
    one_map = 4 * 32 * 24 * 24 * 8 / 2**20
    assert one_map <= cost.conv2d_memory_mb <= 1.2 * one_map
    assert 4 * one_map <= cost.conv2d_block_memory_mb <= 5.2 * one_map


def test_kernels_of_other_sizes() -> None:
    three, seven = layer_costs(["rf"], [(1, 4, 4, 12), (1, 4, 4, 12, 1, 7)], rounds=1)
    assert (three.shape.kernel_size, seven.shape.kernel_size) == (3, 7)
    # As many features as the kernel has taps.
    assert seven.memory * seven.conv2d_memory_mb > 3 * three.memory * three.conv2d_memory_mb


def test_the_random_numbers_stay_as_they_are() -> None:
    state = torch.random.get_rng_state()
    layer_costs(["ca"], [SMALL], rounds=1, dtype=torch.float64)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_refusals() -> None:
    with pytest.raises(UserError, match="Did you mean 'rfcbam'"):
        layer_costs(["rfcban"], [SMALL])
    for convs, shapes in (([], [SMALL]), (["rfa"], [])):
        with pytest.raises(UserError, match="There are no layers or no shapes"):
            layer_costs(convs, shapes)
    with pytest.raises(UserError, match="rounds must be at least 1"):
        layer_costs(["rfa"], [SMALL], rounds=0)
    with pytest.raises(UserError, match="not on 'meta'"):
        layer_costs(["rfa"], [SMALL], device="meta")
    with pytest.raises(UserError, match="Shape '1x4x0x0 to 8': every number must be at least 1"):
        layer_costs(["rfa"], [(1, 4, 8, 0)])
    with pytest.raises(UserError, match="Shape '1x4x2x2 to 8 s2' has one output value a channel"):
        layer_costs(["rfa"], [(1, 4, 8, 2, 2)])


def test_geometric_means() -> None:
    means = geometric_means(LAYERS)
    assert list(means) == ["rfa", "ca"]
    assert means["rfa"] == pytest.approx((4, 2, 1.5, 1.25, 4, None, 4, 2))
    assert means["ca"].plain_inference is None
    assert means["ca"].plain_block_memory is None


@pytest.mark.parametrize(
    ("shape", "text"),
    [
        (SHAPES[0], "8x64x56x56"),
        (SHAPES[4], "8x64x56x56 to 128 s2"),
        (LayerShape(8, 64, 64, 56, kernel_size=5), "8x64x56x56 k5"),
        (LayerShape(1, 3, 64, 224, 2, 7), "1x3x224x224 to 64 s2 k7"),
    ],
)
def test_shapes_are_read_as_they_are_written(shape: LayerShape, text: str) -> None:
    assert str(shape) == text
    assert parse_shape(text) == parse_shape(text.replace(" ", "")) == shape


def test_output_sizes_of_shapes() -> None:
    for size, stride, kernel_size in ((6, 1, 3), (7, 2, 3), (6, 2, 5), (6, 1, 2), (9, 3, 1)):
        shape = LayerShape(1, 1, 1, size, stride, kernel_size)
        out = F.conv2d(torch.zeros(1, 1, size, size), torch.zeros(1, 1, kernel_size, kernel_size), None, stride,
                       shape.padding)  # fmt: skip
        assert out.shape[2:] == (shape.out_size, shape.out_size)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "'' is no shape: write the input as BxCxHxW"),
        ("8x64x56", "'8x64x56' is no shape"),
        ("8x64x56x56k5s2", "in this order"),
        ("8x64x56x56x3", "is no shape"),
        ("-8x64x56x56", "is no shape"),
        ("8x64x128x56", "is 128 high and 56 wide.* write 8x64x56x56to128"),
        ("8x64x56x56s0", "every number must be at least 1"),
        ("1x64x1x1", "one output value a channel"),
    ],
)
def test_texts_that_are_no_shapes(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_shape(text)


def test_csv_of_layers() -> None:
    rows = list(csv.DictReader(io.StringIO(layers_csv(LAYERS, FACTS))))
    assert len(rows) == 4
    first = rows[0]
    assert (first["conv"], first["in_channels"], first["size"], first["stride"]) == ("rfa", "64", "56", "1")
    assert (first["kernel_size"], first["conv2d_memory_mib"], first["conv2d_block_memory_mib"]) == ("3", "20", "25")
    assert (first["block_memory_ratio"], first["plain_block_memory_ratio"]) == ("1.25", "4")
    assert rows[1]["plain_block_memory_ratio"] == ""
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
    assert "| 8x64x56x56 to 128 s2 | Conv2d | 1.50 ms | 4.50 ms | 20.0 MiB | 25.0 MiB |  |  |  |  |" in layers
    assert "|  | rfa | 8.00x | 2.00x (1.90-2.10) | 1.50x | 1.25x | 2.00x (1.00-3.00) |  | 2.00x | 1.00x |" in layers
    assert "| geometric mean | rfa | 4.00x | 2.00x | 1.50x | 1.25x | 4.00x |  | 4.00x | 2.00x |" in layers
    assert "| train | memory | block memory | plain infer |" in layers
    assert "Block memory is the peak of training the layer, BatchNorm2d and ReLU in a row" in layers


def test_tables_for_the_terminal() -> None:
    console = pytest.importorskip("rich.console").Console(width=110, file=io.StringIO())
    console.print(layer_table(LAYERS))
    console.print(model_table(MODELS))
    shown = console.file.getvalue()
    assert "8x64x56x56 to 128 s2" in shown
    assert "1.20x (1.10-1.30)" in shown


@pytest.mark.parametrize("width", [110, 80])
def test_no_figure_is_cut_in_a_narrow_terminal(width: int) -> None:
    console = pytest.importorskip("rich.console").Console(width=width, file=io.StringIO())
    console.print(layer_table(LAYERS))
    assert "…" not in console.file.getvalue()
    if width == 110:
        assert "(1.90-2.10)" in console.file.getvalue()
