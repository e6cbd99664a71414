"""The backend "cpu" and its operators at their limits: what they decline, refuse, and take though it is odd."""

from __future__ import annotations

import copy
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from calls import call, rfa_conv2d
from test_operator import OPERATORS, SIZES, arguments, function
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import rfaconv
from rfaconv import UserError, create_conv
from rfaconv.ops import use_backend
from rfaconv.ops.cpu import library
from rfaconv.ops.operators.definition import fingerprint

LAYERS = ["rfa", "rfcbam", "rfca"]
every_layer = pytest.mark.parametrize("name", LAYERS)
in_both_modes = pytest.mark.parametrize("training", [False, True], ids=["eval", "training"])


class Recorder(TorchDispatchMode):
    """The names of the operators that are called inside."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(func._overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


# ---- Declining -----------------------------------------------------------------------------------------------------


DECLINED: list[tuple[str, dict[str, Any], tuple[int, ...]]] = [
    ("it computes in float32, not in torch.float64", {"dtype": torch.float64}, (3, 4, 8, 8)),
    ("it takes at most 128 taps", {"kernel_size": (12, 11)}, (3, 4, 12, 12)),
    ("it takes a stride of 32 at most", {"stride": (1, 33)}, (3, 4, 8, 70)),
    ("the input or the output is empty", {}, (0, 4, 8, 8)),
    ("batch statistics of fewer than 32 values a channel", {}, (1, 4, 5, 6)),
]


@pytest.mark.parametrize(("reason", "options", "shape"), DECLINED)
@every_layer
def test_what_it_declines_is_composed_unless_it_is_named(
    name: str, reason: str, options: dict[str, Any], shape: tuple[int, ...]
) -> None:
    layer: Any = create_conv(name, 4, 6, **options)
    x = torch.randn(shape, dtype=options.get("dtype"))
    layer.train("fewer" in reason)
    with use_backend("cpu"), pytest.raises(UserError, match=f"Backend 'cpu' declines this call: {reason}"):
        layer(x)
    named = copy.deepcopy(layer)
    named.backend = "cpu"
    with use_backend("torch"), pytest.raises(UserError, match=f"Backend 'cpu' declines this call: {reason}"):
        named(x)
    with use_backend("torch"):
        wanted = copy.deepcopy(layer)(x)
    assert torch.equal(layer(x), wanted)


@every_layer
def test_the_layers_own_backend_goes_before_that_of_the_process(name: str) -> None:
    layer: Any = create_conv(name, 4, 6).eval()
    layer.backend = "torch"
    x = torch.randn(3, 4, 8, 8)
    with Recorder() as recorder, use_backend("cpu"):
        layer(x)
    assert "rf_conv2d" not in recorder.names
    layer.backend = None
    with Recorder() as recorder, use_backend("cpu"):
        layer(x)
    assert "rf_conv2d" in recorder.names


@every_layer
def test_another_device_or_two_dtypes_are_declined(name: str) -> None:
    layer = create_conv(name, 4, 6).eval()
    with use_backend("cpu"), pytest.raises(UserError, match="it runs on the CPU, not on 'meta'"):
        copy.deepcopy(layer).to("meta")(torch.randn(3, 4, 8, 8, device="meta"))
    with use_backend("cpu"), pytest.raises(UserError, match=r"input is torch.bfloat16 and weight torch.float32"):
        layer(torch.randn(3, 4, 8, 8).bfloat16())
    with use_backend("cpu"), pytest.raises(UserError, match=r"it takes strided tensors, not torch.sparse_coo"):
        layer(torch.randn(3, 4, 8, 8).to_sparse())


def test_the_kernel_and_a_wide_stride_within_the_limits_are_taken() -> None:
    for limits in (call((2, 2, 20, 20), (8, 16)), call((2, 2, 9, 70), stride=(40, 32))):
        ours, plain = (rfa_conv2d(**limits, backend=backend) for backend in ("cpu", "reference"))
        torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-4)


@every_layer
def test_onnx_gets_pytorchs_operators_and_computes_the_same(name: str, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    layer = create_conv(name, 8, 6, 3, 2, norm_layer="batchnorm2d", act_layer="silu").eval()
    height, width = (torch.export.Dim(side, min=8) for side in ("height", "width"))
    shapes = ({0: torch.export.Dim("batch"), 2: height, 3: width},)
    program = torch.onnx.export(layer, (torch.randn(2, 8, 12, 12),), dynamo=True, dynamic_shapes=shapes, verbose=False)
    assert program is not None
    program.save(tmp_path / "layer.onnx")
    session, x = onnxruntime.InferenceSession(tmp_path / "layer.onnx"), torch.randn(3, 8, 21, 16)
    (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), layer(x).detach(), rtol=1e-5, atol=1e-6)


@every_layer
def test_an_input_smaller_than_the_kernel_raises_as_in_the_reference(name: str) -> None:
    layer = create_conv(name, 4, 6, 5, padding=1).eval()
    for backend in ("auto", "reference"):
        with use_backend(backend), pytest.raises(RuntimeError, match="Kernel size can't be greater than"):
            layer(torch.randn(2, 4, 2, 8))


# ---- The library that is not there ---------------------------------------------------------------------------------

WITHOUT = """
import sys, warnings
import torch
import rfaconv
assert rfaconv.__file__.startswith(sys.argv[1]), rfaconv.__file__
with warnings.catch_warnings(record=True) as found:
    warnings.simplefilter("always")
    for name in sys.argv[2].split():
        layer = rfaconv.create_conv(name, 4, 6)
        layer(torch.randn(4, 4, 8, 8)).sum().backward()
        layer.eval()(torch.randn(4, 4, 8, 8))
print(*(warning.message for warning in found if "rfaconv" in str(warning.message)), sep="\\n")
try:
    with rfaconv.ops.use_backend("cpu"):
        layer(torch.randn(4, 4, 8, 8))
except rfaconv.UserError as error:
    print(error)
print(next(backend.description() for backend in rfaconv.ops.backends() if backend.name == "cpu"))
"""


@pytest.mark.parametrize("names", ["rfa rfa rfcbam rfca", "rfcbam", "rfca"])
@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "it was not built when rfaconv was installed"),
        (fingerprint(), f"_kernels.so does not load with torch {torch.__version__}: "),
        ("rfaconv operators of another day", "_kernels.so was built from other sources than these"),
    ],
    ids=["not built", "broken", "stale"],
)
def test_a_missing_library_warns_once_and_says_why(content: str | None, why: str, names: str, tmp_path: Path) -> None:
    source = Path(rfaconv.__file__).parent
    shutil.copytree(source, tmp_path / "rfaconv", ignore=shutil.ignore_patterns("*.so", "*.gz", "__pycache__"))
    if content is not None:
        (tmp_path / "rfaconv/ops/cpu/_kernels.so").write_text(content)
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, str(tmp_path), names],
        capture_output=True, text=True, check=False, env={"PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    warning, declined, says = done.stdout.splitlines()
    assert warning.startswith(f"rfaconv's CPU kernel is not used: {why}")
    assert "To build it: pip install" in warning
    assert declined.startswith(f"Backend 'cpu' declines this call: {why}")
    assert says.startswith(f"not here: {why}")


def test_info_names_the_instruction_set_and_the_backends(capsys: pytest.CaptureFixture[str]) -> None:
    from rfaconv.cli.app import app

    app(["info"], standalone_mode=False)
    lines = capsys.readouterr().out.partition("backends")[2].splitlines()[1:]
    assert [line.split()[0] for line in lines] == ["cpu", "torch", "reference", "triton"]
    assert library.instruction_set() in lines[0]


# ---- Odd inputs ----------------------------------------------------------------------------------------------------


@in_both_modes
@every_layer
def test_nan_and_inf_come_out_where_the_reference_has_them(name: str, training: bool, instruction_set: str) -> None:
    layer = create_conv(name, 8, 6, 3, norm_layer="batchnorm2d", act_layer="relu").train(training)
    for value in (torch.nan, torch.inf, -torch.inf):
        x = torch.randn(2, 8, 9, 37)
        x[0, 1, 2, 3] = x[0, 7, 8, 36] = x[1, 0, 0, 20] = value
        with torch.no_grad(), use_backend("cpu"):
            ours = copy.deepcopy(layer)(x)
        with torch.no_grad(), use_backend("reference"):
            plain = copy.deepcopy(layer)(x)
        torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-5, equal_nan=True)


@pytest.mark.parametrize("name", ["feature_weight", "attention_weight", "weight", "running_mean", "running_var"])
def test_nan_and_inf_in_parameters_come_out_where_the_reference_has_them(name: str, instruction_set: str) -> None:
    for value in (torch.nan, torch.inf, -torch.inf):
        broken = call()
        broken[name].flatten()[5] = value
        ours, plain = (rfa_conv2d(**broken, backend=backend) for backend in ("cpu", "reference"))
        torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-4, equal_nan=True)


VIEWS: dict[str, Callable[[Tensor], Tensor]] = {
    "expanded over the batch": lambda x: x[:1].expand_as(x),
    "expanded over the channels": lambda x: x[:, :1].expand_as(x),
    "expanded over the plane": lambda x: x[:, :, :1, :1].expand_as(x),
    "channels last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "every other column": lambda x: torch.stack([x, x + 1], -1).flatten(3)[..., ::2],
    "part of a larger map": lambda x: torch.nn.functional.pad(x, (1, 2, 3, 1))[:, :, 3:-1, 1:-2],
    "part of the channels": lambda x: torch.cat([x, x, x], 1)[:, 2 : 2 + x.shape[1]],
    "transposed plane": lambda x: x.mT.contiguous().mT,
    "channels first of all": lambda x: x.transpose(0, 1).contiguous().transpose(0, 1),
    "at an odd address": lambda x: torch.cat([x.new_zeros(1), x.flatten()])[1:].view_as(x),
    "negated when read": lambda x: torch.complex(x, -x).conj().imag,
}


def gradients(layer: nn.Module, x: Tensor, grad: Tensor) -> list[Tensor]:
    """The output and the gradients of the input and of all parameters."""
    layer = copy.deepcopy(layer)
    x = x.detach().requires_grad_()
    out = layer(x)
    return [out.detach(), *torch.autograd.grad(out, [x, *layer.parameters()], grad)]


@pytest.mark.parametrize("view", VIEWS)
@in_both_modes
@every_layer
def test_memory_layout_of_input_and_gradient_changes_nothing(name: str, training: bool, view: str) -> None:
    layer = create_conv(name, 4, 5, 3, (2, 1)).train(training)
    x, grad = VIEWS[view](torch.randn(3, 4, 9, 11)), VIEWS[view](torch.randn(3, 5, 5, 11))
    plain = gradients(layer, x.clone(memory_format=torch.contiguous_format), grad.contiguous())
    torch.testing.assert_close(gradients(layer, x, grad), plain, rtol=1e-4, atol=1e-4)


def test_memory_layout_of_parameters_changes_nothing() -> None:
    odd = call()
    odd["feature_weight"] = torch.randn(9, 1, 3, 3).mT.repeat(4, 1, 1, 1)
    odd["attention_weight"] = torch.randn(1, 9).expand(4, 9)
    odd["weight"] = odd["weight"].contiguous(memory_format=torch.channels_last)
    odd["running_var"] = torch.rand(72)[::2] + 0.1
    plain: Any = {
        name: value.clone().contiguous() if isinstance(value, Tensor) else value for name, value in odd.items()
    }
    assert torch.equal(rfa_conv2d(**odd, backend="cpu"), rfa_conv2d(**plain, backend="cpu"))


@in_both_modes
@every_layer
def test_each_gradient_alone_is_the_same_as_with_all_others(name: str, training: bool) -> None:
    layer, x = create_conv(name, 4, 5).train(training), torch.randn(4, 4, 6, 6, requires_grad=True)
    wanted = {"input": x, **dict(layer.named_parameters())}

    def found(names: list[str]) -> list[Tensor]:
        for key, tensor in wanted.items():
            tensor.requires_grad_(key in names)
        return [*torch.autograd.grad(layer(x).sin().sum(), [wanted[key] for key in names])]

    together = found(list(wanted))
    for key, grad in zip(wanted, together, strict=True):
        torch.testing.assert_close(found([key])[0], grad, rtol=1e-5, atol=1e-6, msg=key)


# ---- Statistics ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options", [{}, {"momentum": 0.3}, {"momentum": None}, {"affine": False}, {"track_running_stats": False}], ids=str
)
@every_layer
def test_training_freezing_and_switching_leave_the_statistics_of_the_reference(
    name: str, options: dict[str, Any]
) -> None:
    layer: Any = create_conv(name, 4, 5, 3, 2)
    layer.features.norm = nn.BatchNorm2d(36, **options)
    images = [torch.randn(5, 4, 9, 9) * scale + scale for scale in (1.0, 2.0, 0.5, 3.0, 1.0)]

    def steps(backend: str) -> dict[str, Tensor]:
        twin: Any = copy.deepcopy(layer)
        optimizer, outputs = torch.optim.SGD(twin.parameters(), lr=0.01), {}
        for number, (mode, x) in enumerate(
            zip(("training", "training", "eval", "frozen", "training"), images, strict=True)
        ):
            twin.train(mode != "eval")
            twin.features.norm.train(mode == "training")
            with use_backend(backend):
                outputs[f"out {number}"] = twin(x)
            outputs[f"out {number}"].sin().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
        return outputs | twin.state_dict()

    ours, plain = steps("cpu"), steps("reference")
    if options.get("track_running_stats", True):
        assert ours["features.norm.num_batches_tracked"] == 3
    torch.testing.assert_close(ours, plain, rtol=1e-3, atol=1e-4)


# ---- Misuse of the operators themselves ----------------------------------------------------------------------------


def named(operator: str, **changes: Any) -> dict[str, Any]:
    """The operator's arguments by name, some changed."""
    names = [argument.name for argument in function(operator).default._schema.arguments]
    return dict(zip(names, arguments(operator, SIZES["asymmetric"]), strict=True)) | changes


WRONG = {
    "kernel_size": (0, 100, -1, 2**20, 2**31 - 1, 2**62),
    "stride": (0, -1, 2**20, 2**31 - 1, 2**62),
    "padding": (-1, 2**20, 2**31 - 1, 2**62),
    "dilation": (0, 100, -1, 2**20, 2**31 - 1, 2**62),
}


def wrong_windows(right: dict[str, Any]) -> list[dict[str, Any]]:
    """Parts of a window that no kernel takes."""
    changes: list[dict[str, Any]] = []
    for name, numbers in WRONG.items():
        if name in right:
            first, second = right[name]
            changes += [{name: pair} for wrong in numbers for pair in ([wrong, second], [first, wrong])]
            changes += [{name: []}, {name: [first, second, 1]}]
    return changes


def wrong_tensors(name: str, tensor: Tensor) -> list[Tensor]:
    """Of another dtype, with a dimension too few or many or none, and of another size."""
    place = 1 if name == "input" else 0
    grown = list(tensor.shape)
    grown[place] += 1
    return [
        tensor.to(torch.float16),
        tensor.to(torch.int64),
        *([tensor[0]] if tensor.shape[0] else []),
        tensor[None],
        torch.zeros((), dtype=tensor.dtype),
        torch.zeros(grown, dtype=tensor.dtype),
    ]


def misuses(operator: str) -> list[dict[str, Any]]:
    """All arguments but the window wrong one at a time."""
    right = named(operator)
    wrong: list[dict[str, Any]] = []
    for name, value in right.items():
        if isinstance(value, Tensor) and not (name == "largest" and "lines" in operator):  # which that does not read
            tensors = wrong_tensors(name, value)
            if name == "input" and operator == "patch_moments":
                tensors.pop()  # any number of channels will do
            if name.endswith("center") and value.shape[0] == 0:
                tensors = tensors[:2]  # it is none
            wrong += [{name: tensor} for tensor in tensors]
    for name, values in {"groups": (0, -1, 3, 2**40), "act": (-1, 3, 2**40)}.items():
        wrong += [{name: value} for value in values if name in right]
    if right.get("moments") is not None:
        wrong += [{"moments": None}, {"moments": torch.zeros_like(right["moments"])}]
    if right.get("mean") is not None:
        wrong += [{"mean": None}, {"var": None}]
    given = [
        name
        for name in ("tap_weight", "channel_gate", "spatial_gate", "row_gate", "col_gate")
        if right.get(name) is not None
    ]
    wrong += [{name: None} for name in given]
    if "tap_weight" in right:
        other = "channel_gate" if "channel_gate" not in given else "row_gate"
        wrong.append({other: torch.zeros(2, 4)})
    return wrong


def takes(operator: str, change: dict[str, Any]) -> bool:
    """Whether the operator runs with this change."""
    try:
        function(operator)(**named(operator, **change))
    except RuntimeError:
        return False
    return True


@pytest.mark.parametrize("operator", OPERATORS)
def test_wrong_arguments_raise(operator: str) -> None:
    assert takes(operator, {})
    assert [change for change in misuses(operator) if takes(operator, change)] == []


HUGE = """
import resource, sys
sys.path[:0] = sys.argv[1:]
import torch
from test_backend import OPERATORS, named, takes, wrong_windows

def huge(*shape, dtype=torch.float32):
    return torch.ones(1, dtype=dtype).expand(shape)

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

inputs = [(2**30, 4, 2**16, 2**14), (1, 4, 2**40, 1), (1, 4, 1, 2**31 - 1)]
for operator in OPERATORS:
    changes = wrong_windows(named(operator))
    changes += [{"input": huge(*shape)} for shape in inputs if "input" in named(operator)]
    for name, value in named(operator).items():
        small = ("input", "weight", "largest", "norm_weight", "norm_bias", "mean", "var")
        if isinstance(value, torch.Tensor) and name not in small:
            changes.append({name: huge(2**28, *value.shape[1:], dtype=value.dtype)})
    for change in changes:
        start = peak()
        assert not takes(operator, change), (operator, change)
        assert peak() < start + 100, (operator, list(change), peak() - start)
"""


def test_wrong_windows_and_huge_sizes_neither_crash_nor_take_memory() -> None:
    # In a process of its own: a crash is to be one failure.
    folders = [str(folder) for folder in Path(__file__).parents[:2]]  # this file's and that of what the backends share
    done = subprocess.run([sys.executable, "-c", HUGE, *folders], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
