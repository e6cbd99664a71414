"""The operators as citizens of PyTorch: opcheck, compile, export, FLOPs, autocast, threads, gradients of gradients."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
import torch
from calls import rfa_conv2d
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.flop_counter import FlopCounterMode

from rfaconv import create_conv
from rfaconv.ops import use_backend
from rfaconv.ops.window import Window, output_size

LAYERS = ["rfa", "rfcbam", "rfca"]
every_layer = pytest.mark.parametrize("name", LAYERS)
in_both_modes = pytest.mark.parametrize("training", [False, True], ids=["eval", "training"])


class Sizes(NamedTuple):
    """What an operator is called on; `last`: the input is in channels_last."""

    shape: tuple[int, int, int, int]
    outputs: int
    window: Window
    groups: int = 1
    last: bool = False


SIZES = {
    "3x3": Sizes((2, 5, 8, 9), 6, Window((3, 3), padding=(1, 1))),
    "asymmetric": Sizes((2, 4, 9, 7), 6, Window((3, 2), (2, 3), (1, 2), (1, 2)), 2, True),
    "one output channel": Sizes((3, 4, 5, 6), 1, Window((3, 3)), 1, True),
    "one channel": Sizes((2, 1, 6, 6), 3, Window((2, 2)), 1, True),
    "one column": Sizes((2, 4, 6, 1), 3, Window((3, 1)), 1, True),
    "one pixel": Sizes((2, 4, 1, 1), 3, Window((3, 3), padding=(2, 2))),
    "empty batch": Sizes((0, 4, 5, 5), 6, Window((3, 3))),
}
OPERATORS = [
    "patch_moments",
    "patch_moments_backward",
    "fold_norm by statistics",
    "fold_norm by moments",
    "fold_norm_backward by statistics",
    "fold_norm_backward by moments",
    "pool_features over channels",
    "pool_features over channels, centred, with ties",
    "pool_features over lines, centred",
    "pool_features_backward over channels, centred",
    "pool_features_backward over lines",
    "rf_conv2d by taps",
    "rf_conv2d by taps, centred, with epilogue",
    "rf_conv2d by gates, centred",
    "rf_conv2d by lines",
    "rf_conv2d_backward by taps, centred",
    "rf_conv2d_backward by taps, without input",
    "rf_conv2d_backward by gates",
    "rf_conv2d_backward by lines, centred",
]
every_operator = pytest.mark.parametrize("operator", OPERATORS)


def arguments(operator: str, sizes: Sizes, learns: bool = False) -> tuple[Any, ...]:
    """The operator's arguments, random; with `learns`, those it can be differentiated by require gradients."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=dtype).requires_grad_(learns)

    name, _, special = operator.partition(" ")
    (batch, channels, *_), outputs, (kh, kw) = sizes.shape, sizes.outputs, sizes.window.kernel_size
    layout = torch.channels_last if sizes.last else torch.contiguous_format
    x = torch.randn(sizes.shape, generator=generator).contiguous(memory_format=layout).requires_grad_(learns)
    (height, width), taps = output_size(x, sizes.window), kh * kw
    kernel_size, geometry = sizes.window.kernel_size, sizes.window[1:]
    places, rows, columns = (batch, taps, height, width), (batch, channels, kh, height), (batch, channels, kw, width)
    features = channels * taps
    moments, mean, var = None, draw(features).detach(), draw(features).detach().abs() + 0.1
    if "moments" in special:
        # One patch more, so that there is one.
        moments = torch.ops.rfaconv.patch_moments(torch.randn(1, *sizes.shape[1:]), kernel_size, *geometry)
        moments += torch.ops.rfaconv.patch_moments(x.detach(), kernel_size, *geometry)
        moments, mean, var = moments.requires_grad_(learns), None, None
    norms = (draw(features), draw(features))
    double = torch.float64
    folded = (draw(features, 1, kh, kw, dtype=double), draw(features, dtype=double))
    folded += (draw(channels if "centred" in special else 0, taps, dtype=double),)
    operands: tuple[Tensor | None, ...] = (draw(channels, taps), None, None, None, None)
    if "by gates" in special:
        operands = (None, draw(batch, channels), draw(*places), None, None)
    elif "by lines" in special:
        operands = (None, None, None, draw(*rows), draw(*columns))
    kernel, over = draw(outputs, channels // sizes.groups, kh, kw), "channels" in special
    grad = torch.randn((batch, outputs, height, width), generator=generator).contiguous(memory_format=layout)
    pooled = (draw(*places), draw(*places)) if over else (draw(*rows), draw(*columns))
    match name:
        case "patch_moments":
            return x, kernel_size, *geometry
        case "patch_moments_backward":
            return draw(channels, 1 + taps + taps * taps, dtype=double), x, kernel_size, *geometry
        case "fold_norm":
            return draw(features, 1, kh, kw), *norms, mean, var, moments, 1e-5
        case "fold_norm_backward":
            center = draw(0 if moments is None else channels, taps, dtype=double)
            return *folded[:2], center, draw(features, 1, kh, kw), norms[0], mean, var, moments, 1e-5
        case "pool_features":
            return x, *folded, *geometry, over, "ties" in special or (learns and over)
        case "pool_features_backward":
            return *pooled, draw(*places), x, *folded, *geometry, over
        case "rf_conv2d":
            epilogue = (draw(outputs), draw(outputs), 2) if "epilogue" in special else (None, None, 0)
            return x, *folded, *operands, kernel, draw(outputs), *geometry, sizes.groups, *epilogue
        case "rf_conv2d_backward":
            wants = "without" not in special
            return grad, x, *folded, *operands, kernel, *geometry, sizes.groups, wants
    raise AssertionError(operator)


def function(operator: str) -> Any:
    return getattr(torch.ops.rfaconv, operator.partition(" ")[0])


def results(operator: str, args: tuple[Any, ...]) -> list[Tensor]:
    """What the operator returns."""
    return tree_leaves(function(operator)(*args))


@pytest.mark.parametrize("sizes", ["3x3", "asymmetric", "empty batch"])
@every_operator
def test_opcheck(operator: str, sizes: str) -> None:
    learns = "backward" not in operator and "epilogue" not in operator
    if "over channels" in operator and "ties" not in operator:
        learns = False  # which its gradient needs
    torch.library.opcheck(function(operator), arguments(operator, SIZES[sizes], learns))


@every_operator
def test_fakes_say_the_real_sizes_dtypes_and_strides(operator: str) -> None:
    for name, sizes in SIZES.items():
        args = arguments(operator, sizes)
        with FakeTensorMode() as mode:
            fakes = results(operator, tree_map_only(Tensor, mode.from_tensor, args))
        found, real = ([(t.shape, t.dtype, t.stride()) for t in some] for some in (fakes, results(operator, args)))
        assert found == real, name


@pytest.fixture
def _own_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("_own_threads")
@pytest.mark.parametrize(
    "sizes",
    [
        Sizes((3, 40, 19, 23), 50, Window((3, 3), padding=(1, 1))),
        Sizes((7, 4, 19, 12), 6, Window((3, 3), (2, 1), (1, 1)), 2, True),
    ],
    ids=["many channels", "many images"],
)
@every_operator
def test_any_number_of_threads_computes_the_same_and_repeats_every_bit(operator: str, sizes: Sizes) -> None:
    args = arguments(operator, sizes)
    torch.set_num_threads(1)
    alone = results(operator, args)
    for threads in (1, 2, 3, 5):
        torch.set_num_threads(threads)
        found, again = results(operator, args), results(operator, args)
        for one, two, wanted in zip(found, again, alone, strict=True):
            assert torch.equal(one, two)
            assert (one - wanted).abs().amax() <= 1e-5 * wanted.abs().amax() if one.numel() else not wanted.numel()


def step(layer: Any, x: Tensor) -> dict[str, Tensor]:
    """The output, the buffers afterwards, and every gradient of one forward and backward pass."""
    x = x.detach().clone().requires_grad_()
    out = layer(x)
    out.sin().sum().backward()
    grads = {f"grad of {name}": tensor.grad for name, tensor in (("input", x), *layer.named_parameters())}
    return {"out": out.detach(), **dict(layer.named_buffers()), **grads}


def same_compiled(layer: nn.Module, x: Tensor, backend: str) -> None:
    """Assert that a compiled step finds what an eager one does."""
    twin = copy.deepcopy(layer)
    torch._dynamo.reset()
    twin.compile(fullgraph=True, backend=backend)
    torch.testing.assert_close(step(twin, x), step(layer, x), rtol=1e-3, atol=1e-4)


@in_both_modes
@every_layer
def test_compiles_as_one_graph_forward_and_backward(name: str, training: bool) -> None:
    layer = create_conv(name, 8, 6, 3, 2, act_layer="relu").train(training)
    same_compiled(layer, torch.randn(4, 8, 12, 12), "aot_eager")


def test_inductor_agrees() -> None:
    x = torch.randn(4, 8, 12, 12).contiguous(memory_format=torch.channels_last)
    same_compiled(nn.Sequential(create_conv("rfa", 8, 6, bias=False), nn.BatchNorm2d(6), nn.ReLU()), x, "inductor")


@pytest.mark.parametrize("grad", [True, False], ids=["with gradients", "for inference"])
@pytest.mark.parametrize("stride", [1, 2, 3])
@every_layer
def test_exports_with_any_batch_and_size(name: str, stride: int, grad: bool) -> None:
    layer = create_conv(name, 8, 6, 3, stride, norm_layer="batchnorm2d", act_layer="silu").eval()
    height, width = (torch.export.Dim(side, min=8) for side in ("height", "width"))
    with torch.set_grad_enabled(grad):
        program = torch.export.export(
            layer, (torch.randn(2, 8, 12, 12),), dynamic_shapes=({0: torch.export.Dim("batch"), 2: height, 3: width},)
        )
        x = torch.randn(3, 8, 21, 16)
        torch.testing.assert_close(program.module()(x), layer(x))
    operators = {str(node.target) for node in program.graph.nodes}
    assert "rfaconv.rf_conv2d.default" in operators


def flops(layer: Any, backend: str, x: Tensor) -> tuple[int, int]:
    """Of the forward and of the backward pass."""
    with use_backend(backend), FlopCounterMode(display=False) as counter:
        out = layer(x)
        forward = counter.get_total_flops()
        out.sum().backward()
    return forward, counter.get_total_flops() - forward


@in_both_modes
@every_layer
def test_flops_are_those_of_the_formula(name: str, training: bool) -> None:
    layer, x = create_conv(name, 8, 6, 3, 2).train(training), torch.randn(4, 8, 12, 12, requires_grad=True)
    assert flops(layer, "cpu", x)[0] == flops(layer, "reference", x)[0]


def test_backward_flops_are_two_forward_passes_and_the_features_once_more() -> None:
    # torch's formula for the backward pass of a grouped convolution, which the reference has, is not right.
    layer, x = create_conv("rfa", 8, 6, 3, 2), torch.randn(4, 8, 12, 12, requires_grad=True)
    layer(x)
    forward, backward = flops(layer, "cpu", x)
    assert backward == 2 * forward + 2 * 4 * 6 * 6 * 8 * 81


def test_flops_are_counted_from_the_first_call_on() -> None:
    code = """
import torch
from torch.utils.flop_counter import FlopCounterMode
from rfaconv import RFAConv
with FlopCounterMode(display=False) as counter:
    RFAConv(8, 6)(torch.randn(2, 8, 6, 6))
print(counter.get_total_flops())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) == 2 * 72 * (8 * 81 + 8 * 9 + 6 * 8 * 9)


def rfa_step(tensors: dict[str, Tensor], backend: str, training: bool) -> dict[str, Tensor]:
    """The output, the running statistics afterwards and every gradient; under the autocast around it."""
    running = {name: tensor.clone() for name, tensor in tensors.items() if name.startswith("running")}
    leaves = {name: tensor.detach().requires_grad_() for name, tensor in tensors.items() if name not in running}
    out = rfa_conv2d(**leaves, **running, training=training, padding=1, backend=backend)  # type: ignore[arg-type]
    grads = torch.autograd.grad(out.double().sin().sum(), list(leaves.values()))
    return {"out": out, **running, **{f"grad of {name}": grad for name, grad in zip(leaves, grads, strict=True)}}


def rfa_tensors(dtype: torch.dtype) -> dict[str, Tensor]:
    shapes = {
        "input": (4, 8, 9, 9),
        "feature_weight": (72, 1, 3, 3),
        "attention_weight": (8, 9),
        "weight": (6, 8, 3, 3),
        "bias": (6,),
        "norm_weight": (72,),
        "norm_bias": (72,),
        "running_mean": (72,),
        "running_var": (72,),
    }
    tensors = {name: torch.randn(shape) / 3 for name, shape in shapes.items()}
    return {name: (value.abs() + 0.1 if name == "running_var" else value).to(dtype) for name, value in tensors.items()}


def assert_twice_as_good(truth: dict[str, Tensor], ours: dict[str, Tensor], plain: dict[str, Tensor]) -> None:
    """Assert that ours are at most twice as far from the truth as the plain ones, and of the same dtype."""
    for name, value in truth.items():
        value = value.double()
        error, allowed = ((found[name].double() - value).norm() for found in (ours, plain))
        assert error <= 2 * allowed + 1e-6 * value.norm(), name
        assert ours[name].dtype == plain[name].dtype, name


@in_both_modes
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_autocast_is_as_good_as_the_references(dtype: torch.dtype, training: bool) -> None:
    tensors = rfa_tensors(torch.float32)
    truth = rfa_step({name: tensor.double() for name, tensor in tensors.items()}, "reference", training)
    with torch.autocast("cpu", dtype=dtype):
        ours, plain = (rfa_step(tensors, backend, training) for backend in ("cpu", "reference"))
    assert ours["out"].dtype == dtype
    assert_twice_as_good(truth, ours, plain)


@in_both_modes
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_low_precision_is_as_good_as_the_references(dtype: torch.dtype, training: bool) -> None:
    tensors = rfa_tensors(dtype)
    truth = rfa_step({name: tensor.double() for name, tensor in tensors.items()}, "reference", training)
    assert_twice_as_good(truth, *(rfa_step(tensors, backend, training) for backend in ("cpu", "reference")))


def gated_step(layer: nn.Module, x: Tensor, backend: str) -> dict[str, Tensor]:
    """As `step`, by a backend; without the bias that a norm follows: what is found of its gradient is rounding."""
    with use_backend(backend):
        found = step(copy.deepcopy(layer), x)
    return {name: value for name, value in found.items() if name != "grad of attention.reduce.bias"}


@in_both_modes
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", ["rfcbam", "rfca"])
def test_gated_layers_in_low_precision_are_as_good_as_their_composition(
    name: str, dtype: torch.dtype, training: bool
) -> None:
    layer, x = create_conv(name, 8, 6, act_layer="silu").train(training), torch.randn(4, 8, 9, 9)
    truth = gated_step(copy.deepcopy(layer).double(), x.double(), "reference")
    with torch.autocast("cpu", dtype=dtype):
        ours, plain = (gated_step(layer, x, backend) for backend in ("cpu", "torch"))
    assert ours["out"].dtype == dtype
    assert_twice_as_good(truth, ours, plain)
    layer, x = layer.to(dtype), x.to(dtype)
    truth = gated_step(copy.deepcopy(layer).double(), x.double(), "reference")
    assert_twice_as_good(truth, *(gated_step(layer, x, backend) for backend in ("cpu", "torch")))


@in_both_modes
@pytest.mark.parametrize("wanted", [None, "weight", "norm_bias"])
def test_gradients_of_gradients_equal_the_references(wanted: str | None, training: bool) -> None:
    """Of all arguments, or of the input and one more."""

    def second(backend: str, dtype: torch.dtype) -> list[Tensor]:
        tensors = {name: tensor.to(dtype) for name, tensor in rfa_tensors(torch.float64).items()}
        leaves = [tensors[name] for name in ("input", wanted) if name] if wanted else list(tensors.values())[:7]
        for leaf in leaves:
            leaf.requires_grad_()
        out = rfa_conv2d(**tensors, training=training, padding=1, backend=backend)  # type: ignore[arg-type]
        grads = torch.autograd.grad(out.sin().sum(), leaves, create_graph=True)
        return [*torch.autograd.grad(sum((grad**2).sum() for grad in grads), leaves)]  # type: ignore[arg-type]

    torch.manual_seed(0)
    ours = second("cpu", torch.float32)
    torch.manual_seed(0)
    for found, truth in zip(ours, second("reference", torch.float64), strict=True):
        assert (found - truth).norm() <= 1e-4 * truth.norm()


@in_both_modes
@every_layer
def test_gradients_of_gradients_of_layers_equal_the_compositions(name: str, training: bool) -> None:
    layer = create_conv(name, 8, 6).train(training)

    def second(backend: str, dtype: torch.dtype) -> list[Tensor]:
        own = copy.deepcopy(layer).to(dtype)
        x = torch.linspace(-1, 1, 4 * 8 * 36).sin().view(4, 8, 6, 6).to(dtype).requires_grad_()
        leaves = [x, *own.parameters()]
        with use_backend(backend):
            out = own(x)
        grads = torch.autograd.grad(out.sin().sum(), leaves, create_graph=True)
        total = sum((grad**2).sum() for grad in grads)
        return [*torch.autograd.grad(total, leaves, allow_unused=True)]  # type: ignore[arg-type]

    pairs = zip(second("cpu", torch.float32), second("torch", torch.float64), strict=True)
    largest = max(float(truth.norm()) for truth in second("torch", torch.float64) if truth is not None)
    for found, truth in pairs:
        if truth is None:
            assert found is None or not found.any()
        else:
            assert (found - truth).norm() <= 1e-3 * truth.norm() + 1e-6 * largest


@every_layer
def test_forward_mode_derivatives_are_those_of_pytorchs_operators(name: str) -> None:
    layer, x = create_conv(name, 8, 6).eval(), torch.randn(4, 8, 6, 6)  # torch.func takes no batch norm in training
    with use_backend("torch"):
        wanted = torch.func.jvp(layer, (x,), (x.sin(),))[1]
    torch.testing.assert_close(torch.func.jvp(layer, (x,), (x.sin(),))[1], wanted, rtol=1e-4, atol=1e-5)


def test_an_epilogue_has_no_gradient_and_says_so() -> None:
    with pytest.raises(RuntimeError, match="no gradient with a scale, shift or activation"):
        function("rf_conv2d")(*arguments("rf_conv2d by taps, centred, with epilogue", SIZES["3x3"], learns=True))
