"""The layers with the C++ kernels: the same values, gradients and hooks as without; fusion, and little memory."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from rfaconv import create_conv
from rfaconv.ops import use_backend
from rfaconv.ops.cpu import library
from rfaconv.profiling import peak_memory

LAYERS = ["rfa", "rfcbam", "rfca"]
every_layer = pytest.mark.parametrize("name", LAYERS)
in_both_modes = pytest.mark.parametrize("training", [False, True], ids=["eval", "training"])


@pytest.fixture(autouse=True)
def _kernels() -> None:
    assert library.MISSING is None, library.MISSING


def make(name: str, *arguments: Any, **options: Any) -> Any:
    """The layer of that name, with attributes of any type."""
    return create_conv(name, *arguments, **options)


class Recorder(TorchDispatchMode):
    """The names of the operators that are called inside."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        self.names.append(func._overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


def scrambled(layer: Any) -> Any:
    """`layer` with statistics and affine parts of its norms that do something."""
    for module in layer.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            if module.affine:
                nn.init.normal_(module.weight)
                nn.init.normal_(module.bias)
    return layer


# ---- Values and gradients ------------------------------------------------------------------------------------------


def step(layer: nn.Module, x: Tensor, backend: str) -> dict[str, Tensor]:
    """The output, all gradients and the buffers afterwards."""
    layer, x = copy.deepcopy(layer), x.detach().clone().requires_grad_()
    with use_backend(backend):
        out = layer(x)
    out.sin().sum().backward()
    wanted = {"input": x, **dict(layer.named_parameters())}
    grads = {f"grad of {name}": tensor.grad for name, tensor in wanted.items() if tensor.grad is not None}
    return {"out": out.detach(), **grads, **dict(layer.named_buffers())}


def assert_same_step(layer: nn.Module, x: Tensor, rtol: float = 2e-5) -> None:
    """Assert that the kernels find what PyTorch's operators do."""
    ours, plain = (step(layer, x, backend) for backend in ("cpu", "torch"))
    assert ours.keys() == plain.keys()
    for name, value in plain.items():
        # A norm follows this bias: its gradient is zero, and what is found is rounding.
        if name != "grad of attention.reduce.bias":
            assert (ours[name] - value).abs().max() <= rtol * value.abs().max(), name


@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 3},
        {"kernel_size": 3, "stride": 2, "groups": 2, "bias": False},
        {"kernel_size": (2, 5), "dilation": (1, 2), "stride": (1, 3), "padding": (2, 3)},
        {"kernel_size": 1, "stride": (2, 1)},
    ],
    ids=str,
)
@in_both_modes
@every_layer
def test_a_step_equals_that_of_pytorchs_operators(name: str, training: bool, options: dict[str, Any]) -> None:
    layer = scrambled(make(name, 20, 6, **options, act_layer="silu")).train(training)
    assert_same_step(layer, torch.randn(3, 20, 13, 11))
    assert_same_step(layer, torch.randn(3, 20, 13, 11).contiguous(memory_format=torch.channels_last))


@pytest.mark.parametrize("name", ["rfcbam", "rfca"])
def test_few_values_and_one_channel(name: str) -> None:
    assert_same_step(make(name, 1, 6).eval(), torch.randn(2, 1, 3, 2))
    assert_same_step(make(name, 3, 6).eval(), torch.randn(1, 3, 2, 4))
    assert_same_step(make(name, 1, 6), torch.randn(6, 1, 3, 2), rtol=1e-4)  # FEWEST_VALUES, with batch statistics
    assert_same_step(make(name, 3, 6), torch.randn(4, 3, 2, 4), rtol=1e-4)


@in_both_modes
def test_channels_that_tie_for_the_largest_share_its_gradient(training: bool) -> None:
    layer, x = make("rfcbam", 12, 6).train(training), torch.randn(2, 12, 7, 7)
    filters = layer.features.weight.data.view(12, -1)
    filters[5], filters[11], x[:, 5], x[:, 11] = filters[0], filters[0], x[:, 0], x[:, 0]
    assert_same_step(layer, x)


@in_both_modes
@every_layer
def test_features_that_are_all_dead_have_no_gradient(name: str, training: bool) -> None:
    layer = make(name, 6, 4).train(training)
    nn.init.constant_(layer.features.norm.bias, -100.0)
    found = step(layer, torch.randn(2, 6, 7, 7), "cpu")
    assert not found["grad of input"].any()
    assert not found["grad of features.weight"].any()
    torch.testing.assert_close(found["out"], layer.bias.detach().view(-1, 1, 1).expand_as(found["out"]))


@every_layer
def test_training_without_gradients_updates_the_statistics(name: str) -> None:
    layer, x = make(name, 6, 4), torch.randn(4, 6, 7, 7)
    with torch.no_grad():
        layer(x)
    assert layer.features.norm.num_batches_tracked == 1
    torch.testing.assert_close(dict(layer.named_buffers())["features.norm.running_var"], _running_var(layer, x))


def _running_var(layer: Any, x: Tensor) -> Tensor:
    features = nn.functional.conv2d(x, layer.features.weight, padding=1, groups=6)
    return 0.9 + 0.1 * features.detach().var((0, 2, 3))


@in_both_modes
@every_layer
def test_the_kernels_compute_it(name: str, training: bool) -> None:
    layer, x = make(name, 6, 4).train(training), torch.randn(4, 6, 7, 7, requires_grad=True)
    with Recorder() as recorder:
        layer(x).sum().backward()
    assert {"fold_norm", "rf_conv2d", "rf_conv2d_backward"} <= set(recorder.names)
    assert ("pool_features" in recorder.names) == (name != "rfa")
    assert "convolution_backward" not in recorder.names or name != "rfa"
    assert ("patch_moments" in recorder.names) == training


# ---- Fusion with what follows --------------------------------------------------------------------------------------


def followed(name: str, norm: Any, act: Any, **options: Any) -> tuple[Any, Callable[[Tensor], Tensor]]:
    """A layer in eval with its norm and activation, and the same computed one after the other."""
    layer = scrambled(make(name, 20, 7, **options, norm_layer=norm, act_layer=act)).eval()
    plain = make(name, 20, 7, **options).eval()
    plain.load_state_dict(layer.state_dict(), strict=False)

    def unfused(x: Tensor) -> Tensor:
        out = plain(x)
        out = out if layer.norm is None else layer.norm(out)
        return out if layer.act is None else layer.act(out)

    return layer, unfused


@pytest.mark.parametrize("act", [None, "relu", "silu", lambda: nn.ReLU(inplace=True)])
@pytest.mark.parametrize("norm", [None, "batchnorm2d", lambda channels: nn.BatchNorm2d(channels, affine=False)])
@every_layer
def test_what_follows_is_computed_together(name: str, norm: Any, act: Any) -> None:
    layer, unfused = followed(name, norm, act, bias=act is None)
    x = torch.randn(2, 20, 12, 9)
    with torch.no_grad(), Recorder() as recorder:
        found = layer(x)
    with torch.no_grad():
        wanted = unfused(x)
    assert (found - wanted).abs().max() <= 1e-6 * wanted.abs().max()
    norms = sum("batch_norm" in name for name in recorder.names)
    assert norms == (name == "rfca")  # that of its attention


@pytest.mark.parametrize(
    ("norm", "act"),
    [("batchnorm2d", "gelu"), (lambda channels: nn.GroupNorm(7, channels), "relu"), ("instancenorm2d", None)],
    ids=["another activation", "another norm", "a norm of each image"],
)
@every_layer
def test_what_cannot_be_computed_together_is_computed_after_it(name: str, norm: Any, act: Any) -> None:
    layer, unfused = followed(name, norm, act)
    x = torch.randn(2, 20, 12, 9)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), unfused(x), rtol=1e-6, atol=1e-6)


@every_layer
def test_a_norm_in_training_is_not_folded(name: str) -> None:
    layer, unfused = followed(name, "batchnorm2d", "relu")
    layer.norm.train()
    x = torch.randn(2, 20, 12, 9)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), unfused(x), rtol=1e-6, atol=1e-6)
    assert layer.norm.num_batches_tracked == 2


@pytest.mark.filterwarnings("ignore:.*torch.jit", "ignore::torch.jit.TracerWarning")
@every_layer
def test_traces_with_gradients_as_without(name: str) -> None:
    layer, x = followed(name, "batchnorm2d", "relu")[0], torch.randn(2, 20, 12, 9)
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            torch.testing.assert_close(torch.jit.trace(layer, x)(x), layer(x))


# ---- Hooks ---------------------------------------------------------------------------------------------------------


@in_both_modes
@pytest.mark.parametrize(
    ("name", "part"),
    [(name, part) for name in LAYERS for part in ("", "features", "features.norm", "attention", "norm", "act")]
    + [("rfcbam", "attention.channel"), ("rfcbam", "attention.spatial"), ("rfcbam", "attention.spatial.conv")]
    + [
        ("rfca", "attention.reduce"),
        ("rfca", "attention.norm"),
        ("cbam", "attention.channel"),
        ("cbam", "attention.spatial"),
    ],
)
def test_hooks_fire_and_change_no_value(name: str, part: str, training: bool) -> None:
    layer, x = scrambled(make(name, 6, 4, norm_layer="batchnorm2d", act_layer="relu")), torch.randn(4, 6, 7, 7)
    hooked, calls = copy.deepcopy(layer), []
    hooked.get_submodule(part).register_forward_hook(lambda *_: calls.append("after"))
    hooked.get_submodule(part).register_forward_pre_hook(lambda *_: calls.append("before"))
    with torch.no_grad():
        torch.testing.assert_close(hooked.train(training)(x), layer.train(training)(x), rtol=1e-4, atol=1e-5)
    assert calls == ["before", "after"]


@every_layer
def test_a_hook_that_changes_the_features_is_heeded(name: str) -> None:
    layer, x = make(name, 6, 4).eval(), torch.randn(2, 6, 7, 7)
    layer.features.register_forward_hook(lambda module, inputs, out: out * 0)
    torch.testing.assert_close(layer(x), layer.bias.view(-1, 1, 1).expand(2, 4, 7, 7))


@every_layer
def test_a_backward_hook_on_the_features_fires(name: str) -> None:
    seen: list[Any] = []
    layer = make(name, 6, 4)
    layer.features.register_full_backward_hook(lambda module, inputs, outputs: seen.append(outputs[0].shape))
    layer(torch.randn(2, 6, 7, 7, requires_grad=True)).sum().backward()
    assert seen == [(2, 6, 3, 3, 7, 7)]


# ---- Memory --------------------------------------------------------------------------------------------------------


def training_peak(layer: nn.Module, x: Tensor) -> int:
    """Of a step of the layer, a batch norm and a ReLU, with the gradients of input and parameters."""
    block = nn.Sequential(layer, nn.BatchNorm2d(64), nn.ReLU())
    wanted = [x, *block.parameters()]
    gradient = torch.randn_like(block(x))
    return peak_memory(lambda: torch.autograd.grad(block(x), wanted, gradient))


@pytest.mark.parametrize(("name", "most"), [("rfa", 1.10), ("rfcbam", 2.0), ("rfca", 2.0)])
def test_a_block_takes_little_more_memory_in_training_than_with_conv2d(name: str, most: float) -> None:
    x = torch.randn(8, 64, 56, 56, requires_grad=True)
    plain = training_peak(nn.Conv2d(64, 64, 3, padding=1), x)
    assert training_peak(make(name, 64, 64), x) <= most * plain


@pytest.mark.parametrize("part", ["features.norm", "attention.norm"])
def test_inference_in_parts_never_splits_a_batch_that_a_norm_looks_at(
    part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without kernels, some images are computed at a time; a norm in training sees all of them together."""
    layer, x = make("rfca", 6, 4).eval(), torch.randn(5, 6, 7, 7)
    layer.get_submodule(part).train()
    with torch.no_grad(), use_backend("torch"):
        whole = copy.deepcopy(layer)(x)
        monkeypatch.setattr("rfaconv.layers.receptive_field.PART", 1)
        torch.testing.assert_close(layer(x), whole)
        assert not torch.equal(layer(x[:1]), whole[:1])


@every_layer
def test_inference_in_parts_equals_the_whole(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    layer, x = scrambled(make(name, 6, 4)).eval(), torch.randn(5, 6, 7, 7)
    with torch.no_grad(), use_backend("torch"):
        whole = layer(x)
        monkeypatch.setattr("rfaconv.layers.receptive_field.PART", 1)
        torch.testing.assert_close(layer(x), whole)
