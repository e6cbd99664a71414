"""The backend "triton" and its operators: what they decline and refuse, and as citizens of PyTorch."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from calls import call, cast, rfa_conv2d
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._pytree import tree_leaves, tree_map_only

from rfaconv import UserError, create_conv
from rfaconv.ops import dispatch, use_backend
from rfaconv.ops.backend import Call
from rfaconv.ops.triton import library
from rfaconv.ops.triton.backend import TritonBackend
from rfaconv.ops.window import Window

# ---- Declining -----------------------------------------------------------------------------------------------------


def test_another_device_is_declined_without_loading_the_kernels() -> None:
    # triton itself may be there: torch.utils.flop_counter imports it.
    code = """
import sys, torch, rfaconv
layer = rfaconv.create_conv("rfa", 4, 6)
layer(torch.randn(4, 4, 8, 8)).sum().backward()
with rfaconv.ops.use_backend("triton"):
    try:
        layer(torch.randn(4, 4, 8, 8))
    except rfaconv.UserError as error:
        print(error)
assert "rfaconv.ops.triton.backend" in sys.modules
assert "rfaconv.ops.triton.kernels" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "Backend 'triton' declines this call: it runs on CUDA devices, not on 'cpu'"


def a_call(x: Tensor, kernel: tuple[int, int] = (3, 3), by_batch: bool = False) -> Call:
    """A call of a layer on x."""
    weight = torch.randn(6, x.shape[1], *kernel, device=x.device, dtype=torch.promote_types(x.dtype, torch.float32))
    return Call(x, weight, weight, Window(kernel, padding=(6, 6) if max(kernel) > 3 else (0, 0)), by_batch)


DECLINED = [
    ("it computes in float32, bfloat16 and float16, not in torch.float64", a_call(torch.randn(3, 4, 8, 8).double())),
    ("input is torch.bfloat16 and weight torch.float32", a_call(torch.randn(3, 4, 8, 8).bfloat16())),
    ("it takes strided tensors, not torch.sparse_coo", a_call(torch.randn(3, 4, 8, 8).to_sparse())),
    ("it takes at most 64 taps", a_call(torch.randn(3, 4, 8, 8), (5, 13))),
    ("the input or the output is empty", a_call(torch.randn(0, 3, 6, 7))),
    ("batch statistics of fewer than 32 values a channel", a_call(torch.randn(1, 3, 6, 7), by_batch=True)),
]


@pytest.mark.parametrize(("reason", "declined"), DECLINED)
def test_what_it_declines(reason: str, declined: Call, device: str) -> None:
    given = declined._replace(**{name: getattr(declined, name).to(device) for name in ("input", "weight")})
    assert str(dispatch._backends["triton"].unsupported_reason(given)).startswith(reason)


@pytest.mark.filterwarnings("ignore:.*torch.jit.trace")
def test_tracing_and_transforms_are_declined(device: str) -> None:
    arguments = cast(call(), device)
    with pytest.raises(UserError, match="neither forward-mode derivatives nor the transforms"):
        torch.func.vmap(lambda x: rfa_conv2d(**{**arguments, "input": x}, backend="triton"))(arguments["input"][None])
    layer = create_conv("rfa", 4, 4).to(device)
    with use_backend("triton"), pytest.raises(UserError, match="a TorchScript program runs where rfaconv is not"):
        torch.jit.trace(layer, arguments["input"])


@pytest.mark.parametrize(
    ("version", "hip", "why"),
    [
        (None, None, "triton is not installed"),
        ("3.2.0", None, "it needs triton 3.3 or later, here is 3.2.0"),
        ("3.9.0", "7.0", "it was written for NVIDIA's GPUs"),
        ("3.9.0", None, None),
    ],
)
def test_what_is_missing_is_said(
    version: str | None, hip: str | None, why: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def installed(name: str) -> str:
        if version is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return version

    monkeypatch.setattr(importlib.metadata, "version", installed)
    monkeypatch.setattr(torch.version, "hip", hip)
    monkeypatch.setattr(library, "MISSING", library._missing())
    assert (library.MISSING is None) if why is None else str(library.MISSING).startswith(why)
    assert TritonBackend().description().startswith("Triton kernels" if why is None else f"not here: {why}")


@pytest.mark.parametrize("training", [False, True], ids=["eval", "training"])
def test_compiles_as_one_graph_forward_and_backward(training: bool, device: str) -> None:
    layer, x = create_conv("rfa", 2, 3).train(training).to(device), torch.randn(2, 2, 5, 6, device=device)

    def step(module: Any) -> list[Tensor]:
        out = module(x)
        return [out.detach(), *torch.autograd.grad(out.sin().sum(), [*layer.parameters()])]

    with use_backend("triton"):
        compiled = step(torch.compile(layer, backend="aot_eager", fullgraph=True))
        torch.testing.assert_close(compiled, step(layer), rtol=1e-4, atol=1e-5)


# ---- The operators -------------------------------------------------------------------------------------------------

WINDOWS = {"3x3": Window((3, 3), padding=(1, 1)), "asymmetric": Window((3, 2), (2, 1), (1, 1), (1, 2))}
OPERATORS = [
    "patch_moments",
    "patch_moments_backward",
    "fold_norm",
    "fold_norm by moments",
    "fold_norm_backward",
    "fold_norm_backward by moments",
    "pool_features",
    "rf_conv2d",
    "rf_conv2d centred",
    "rf_conv2d_backward",
    "rf_conv2d_backward centred",
]


def function(operator: str) -> Any:
    return getattr(torch.ops.rfaconv, operator.partition(" ")[0])


def named(operator: str, window: Window, device: str, batch: int = 2, learns: bool = False) -> dict[str, Any]:
    """The operator's arguments by name, random; with `learns`, what it is differentiated by requires gradients."""
    (kh, kw), channels, outputs = window.kernel_size, 2, 4
    taps, features = kh * kw, channels * kh * kw
    x = torch.randn(batch, channels, 5, 6, device=device)
    if window.stride != (1, 1):
        x = x.contiguous(memory_format=torch.channels_last)
    height, width = torch.nn.functional.conv2d(x, torch.ones(1, 2, kh, kw, device=device), None, *window[1:]).shape[2:]
    name, _, special = operator.partition(" ")
    dtype = torch.float32 if name == "fold_norm" else torch.float64

    def draw(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.randn(shape, device=device, dtype=dtype)

    kernel = (features, 1, kh, kw) if name.startswith("fold") else (outputs, channels, kh, kw)
    centred = channels if special else 0
    given: dict[str, Any] = {
        "input": x,
        "feature_weight": draw(features, 1, kh, kw, dtype=dtype),
        "feature_bias": draw(features, dtype=dtype),
        "center": draw(centred, taps, dtype=torch.float64),
        "tap_weight": draw(channels, taps),
        "weight": draw(*kernel),
        "bias": draw(outputs),
        "norm_weight": draw(features),
        "norm_bias": draw(features),
    }
    if learns:
        given = {name: tensor.requires_grad_() for name, tensor in given.items()}
    moments = None
    if special == "by moments":
        image = torch.randn(1, channels, 5, 6, device=device)
        moments = torch.ops.rfaconv.patch_moments(image, *window)
    given |= {
        "mean": None if moments is not None else draw(features),
        "var": None if moments is not None else draw(features).abs() + 0.1,
        "moments": moments,
        "eps": 1e-5,
        **window._asdict(),
        "groups": 1,
        "scale": None,
        "shift": None,
        "act": 0,
        "over_channels": True,
        "count_ties": False,
        "grad": draw(channels, 1 + taps + taps * taps, dtype=torch.float64),
        "grad_out": draw(batch, outputs, height, width),
        "grad_weight": draw(features, 1, kh, kw, dtype=torch.float64),
        "grad_bias": draw(features, dtype=torch.float64),
        "grad_center": draw(centred, taps, dtype=torch.float64),
        "input_too": True,
    }
    names = [argument.name for argument in function(operator).default._schema.arguments]
    return {name: given.get(name) for name in names}


@pytest.mark.parametrize("operator", OPERATORS)
def test_opcheck(operator: str, device: str) -> None:
    learns = operator in ("patch_moments", "rf_conv2d", "rf_conv2d centred", "fold_norm", "fold_norm by moments")
    arguments = named(operator, WINDOWS["3x3"], device, learns=learns)
    torch.library.opcheck(function(operator), tuple(arguments.values()))


@pytest.mark.parametrize("batch", [2, 0])
@pytest.mark.parametrize("operator", OPERATORS)
def test_fakes_say_the_real_sizes_dtypes_and_strides(operator: str, batch: int, device: str) -> None:
    for window in WINDOWS.values():
        arguments = named(operator, window, device, batch)
        with FakeTensorMode() as mode:
            fakes = tree_leaves(function(operator)(**tree_map_only(Tensor, mode.from_tensor, arguments)))
        real = tree_leaves(function(operator)(**arguments))
        found, wanted = ([(t.shape, t.dtype, t.stride()) for t in some] for some in (fakes, real))
        assert found == wanted


@pytest.mark.parametrize("operator", OPERATORS)
def test_wrong_tensors_are_refused_before_a_kernel_reads_them(operator: str, device: str) -> None:
    arguments = named(operator, WINDOWS["3x3"], device)
    for name, value in arguments.items():
        # Any map is an input, of its own size, where nothing else has the batch or the channels.
        if not isinstance(value, Tensor) or operator == "patch_moments" or operator.startswith("fold"):
            continue
        if name == "center" and not value.numel():
            continue
        grown = torch.zeros([size + 1 for size in value.shape], dtype=value.dtype, device=device)
        for wrong in (grown, value.to(torch.int64), value[None]):
            with pytest.raises((ValueError, RuntimeError)):
                function(operator)(**{**arguments, name: wrong})


@pytest.mark.parametrize(
    "window",
    [
        ([], [1, 1], [0, 0], [1, 1]),
        ([3, 3], [1, 1], [0, 0], [1]),
        ([0, 3], [1, 1], [0, 0], [1, 1]),
        ([3, 3], [1, 0], [0, 0], [1, 1]),
        ([9, 9], [1, 1], [0, 0], [1, 1]),
    ],
)
def test_wrong_windows_are_refused(window: tuple[list[int], ...], device: str) -> None:
    with pytest.raises((ValueError, RuntimeError)):
        torch.ops.rfaconv.patch_moments(torch.randn(2, 2, 20, 20, device=device), *window)


@pytest.fixture
def _autocast() -> Iterator[None]:
    """As `torch.autocast("cuda", torch.bfloat16)`, which refuses to be switched on without a GPU."""
    before = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
    torch.set_autocast_enabled("cuda", True)
    torch.set_autocast_dtype("cuda", torch.bfloat16)
    yield
    torch.set_autocast_enabled("cuda", before[0])
    torch.set_autocast_dtype("cuda", before[1])


@pytest.mark.usefixtures("_autocast")
@pytest.mark.parametrize("training", [False, True], ids=["eval", "training"])
def test_autocast_computes_in_its_dtype(training: bool, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from rfaconv.ops.triton import operators

    arguments, seen, real = cast(call(training=training), device), [], operators.rf_conv2d
    monkeypatch.setattr(operators, "rf_conv2d", lambda *given: seen.append(given) or real(*given))
    assert rfa_conv2d(**arguments, backend="triton").dtype == torch.bfloat16
    assert (seen[0][0].dtype, seen[0][9].dtype) == (torch.bfloat16, torch.bfloat16)
    assert (seen[0][1].dtype, seen[0][4].dtype) == (torch.float64, torch.float32)


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
def test_memory_layout_of_the_input_changes_nothing(backward: bool, device: str) -> None:
    arguments = cast(call(training=True), device)
    views = {
        "channels last": lambda x: x.contiguous(memory_format=torch.channels_last),
        "every other column": lambda x: torch.stack([x, x + 1], -1).flatten(3)[..., ::2],
        "channels first of all": lambda x: x.transpose(0, 1).contiguous().transpose(0, 1),
        "negated when read": lambda x: torch.complex(x, -x).conj().imag,
    }

    def found(x: Tensor) -> Tensor:
        x = x.detach().requires_grad_()
        running = {name: arguments[name].clone() for name in ("running_mean", "running_var")}
        out = rfa_conv2d(**{**arguments, **running, "input": x}, padding=1, backend="triton")
        return torch.autograd.grad(out.sin().sum(), x)[0] if backward else out.detach()

    plain = found(arguments["input"])
    for name, view in views.items():
        torch.testing.assert_close(found(view(arguments["input"])), plain, rtol=1e-4, atol=1e-5, msg=name)


def test_nan_and_inf_come_out_where_the_reference_has_them(device: str) -> None:
    for name, value in (("input", torch.inf), ("input", torch.nan), ("feature_weight", torch.nan)):
        broken = call()
        broken[name].flatten()[5] = value
        ours, plain = (rfa_conv2d(**cast(broken, device), backend=backend) for backend in ("triton", "reference"))
        torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-4, equal_nan=True)
