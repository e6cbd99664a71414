"""What the layers cost beside Conv2d, and beside the paper's formula computed step by step."""

from __future__ import annotations

import copy
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias, cast

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from rfaconv.errors import UserError
from rfaconv.layers.registry import conv_factory, create_conv
from rfaconv.ops import use_backend
from rfaconv.profiling.memory import measurable, peak_memory
from rfaconv.profiling.models import MIB
from rfaconv.profiling.shapes import SHAPES, LayerShape
from rfaconv.profiling.timing import Ratio, alternate, ratio


@dataclass(frozen=True)
class LayerCost:
    """What one layer costs at one shape; ratios are to `nn.Conv2d` of that shape.

    The plain ones are of the same layer with the backend "reference"; None where that computes the same way.
    """

    conv: str
    shape: LayerShape
    conv2d_inference_ms: float
    """Median time of Conv2d's forward pass."""
    conv2d_training_ms: float
    """Median time of Conv2d's forward and backward pass."""
    conv2d_memory_mb: float
    """Peak memory of Conv2d's forward and backward pass, in MiB, above parameters and input."""
    conv2d_block_memory_mb: float
    """The same of Conv2d, BatchNorm2d and ReLU, one after the other."""
    inference: Ratio
    training: Ratio
    """Forward and backward pass, with gradients of the input and all parameters."""
    memory: float
    """Peak memory of the forward and backward pass."""
    block_memory: float
    """The same of the layer, BatchNorm2d and ReLU, to that of Conv2d, BatchNorm2d and ReLU: what a network pays."""
    plain_inference: Ratio | None
    plain_training: Ratio | None
    plain_memory: float | None
    plain_block_memory: float | None


class LayerMean(NamedTuple):
    """Geometric means over the shapes of one layer's ratios; None where no shape has the ratio."""

    inference: float
    training: float
    memory: float
    block_memory: float
    plain_inference: float | None
    plain_training: float | None
    plain_memory: float | None
    plain_block_memory: float | None


def layer_costs(
    convs: Sequence[str],
    shapes: Sequence[LayerShape | tuple[int, ...]] = SHAPES,
    *,
    rounds: int = 15,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    layouts: Sequence[torch.memory_format] | None = None,
    compiled: bool | None = None,
    progress: Callable[[str], None] | None = None,
) -> list[LayerCost]:
    """Measure the layers against Conv2d, shape by shape, all layers of a shape in alternation in this process.

    Weights and inputs are random normal and the same on every call; the random numbers that follow stay as they are.

    Args:
        convs: short names, e.g. "rfa".
        shapes: (batch, in_channels, out_channels, size[, stride[, kernel_size]]) each.
        rounds: timed calls of each layer and kind.
        device: "cpu" or a CUDA device.
        dtype: of parameters and input.
        layouts: of input and weights; each layer, Conv2d too, is timed in all of them and the fastest counts. Default:
            NCHW, and on CUDA channels_last too. Memory is measured in the first.
        compiled: whether the plain formula through torch.compile is measured too, as a layer "NAME compiled" after the
            others of its shape. Default: on CUDA.
        progress: called with a few words at each shape.

    Returns:
        The costs shape by shape, within a shape in the order of `convs`.

    Raises:
        UserError: no layers or shapes, an unknown name, a shape no layer can be trained at, rounds below 1, or a
            device whose memory cannot be measured.
    """
    if not convs or not shapes:
        raise UserError("There are no layers or no shapes to measure.")
    for conv in convs:
        conv_factory(conv)
    if rounds < 1:
        raise UserError(f"rounds must be at least 1, got {rounds}.")
    wanted = [LayerShape(*shape) for shape in shapes]
    for shape in wanted:
        shape.check()
    device = measurable(device)
    on_gpu = device.type == "cuda"
    layouts = layouts or ((torch.contiguous_format, torch.channels_last) if on_gpu else (torch.contiguous_format,))
    compiled = on_gpu if compiled is None else compiled
    costs: list[LayerCost] = []
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(0)
        for shape in wanted:
            if progress is not None:
                progress(str(shape))
            costs += _costs_at(shape, convs, rounds, device, dtype, layouts, compiled)
    return costs


def geometric_means(costs: Iterable[LayerCost]) -> dict[str, LayerMean]:
    """The geometric means over the shapes of each layer's (median) ratios, in the order the layers appear."""
    costs = list(costs)

    def mean(conv: str, kind: str) -> Any:
        values = [getattr(cost, kind) for cost in costs if cost.conv == conv]
        numbers = [value.median if isinstance(value, Ratio) else value for value in values if value is not None]
        return statistics.geometric_mean(numbers) if numbers else None

    names = dict.fromkeys(cost.conv for cost in costs)
    return {conv: LayerMean(*(mean(conv, kind) for kind in LayerMean._fields)) for conv in names}


_Maker: TypeAlias = Callable[[nn.Module, Tensor], Callable[[], object]]

_CONV2D = "Conv2d"  # no short name has a capital letter
_LAST = "channels_last "


def _costs_at(
    shape: LayerShape,
    convs: Sequence[str],
    rounds: int,
    device: torch.device,
    dtype: torch.dtype,
    layouts: Sequence[torch.memory_format],
    compiled: bool,
) -> list[LayerCost]:
    place: dict[str, Any] = {"device": device, "dtype": dtype}
    arguments = (shape.in_channels, shape.out_channels, shape.kernel_size, shape.stride)
    layers: dict[str, nn.Module] = {_CONV2D: nn.Conv2d(*arguments, padding=shape.padding, **place)}
    layers |= {conv: create_conv(conv, *arguments, padding=shape.padding, **place) for conv in convs}
    x = torch.randn(shape.batch, shape.in_channels, shape.size, shape.size, **place)

    inference = _fastest(alternate(_calls(_inference_call, layers, x, layouts, compiled), rounds=rounds, device=device))
    steps = _calls(_training_call, layers, x, layouts, compiled)
    training = _fastest(alternate(steps, rounds=rounds, device=device))
    memory = {name: peak_memory(step, device) for name, step in steps.items() if not name.startswith(_LAST)}
    also = [conv for conv in convs if _compiled(conv) in steps]
    modules = {name: _block(layer, shape, **place) for name, layer in layers.items()}
    blocks = {name: _training_call(module, x) for name, module in modules.items()}
    blocks |= {_plain(name): _plainly(block) for name, block in blocks.items() if _plain(name) in steps}
    blocks |= {_compiled(conv): _compiled_plainly(_training_call, modules[conv], x) for conv in also}
    block_memory = {name: peak_memory(block, device) for name, block in blocks.items()}
    return [_cost(conv, shape, inference, training, memory, block_memory) for conv in (*convs, *map(_compiled, also))]


def _calls(
    make: _Maker,
    layers: Mapping[str, nn.Module],
    x: Tensor,
    layouts: Sequence[torch.memory_format],
    compiled: bool,
) -> dict[str, Callable[[], object]]:
    """What is timed, by name: each layer in each layout, with the plain formula where that computes another way."""
    calls: dict[str, Callable[[], object]] = {}
    for layout in layouts:
        mark = _LAST if layout == torch.channels_last else ""
        moved = {name: copy.deepcopy(layer).to(memory_format=layout) for name, layer in layers.items()}
        laid_out = x.contiguous(memory_format=layout)
        here = _with_plain({name: make(layer, laid_out) for name, layer in moved.items()})
        if compiled:
            plain = [name for name in moved if _plain(name) in here]
            here |= {_compiled(name): _compiled_plainly(make, moved[name], laid_out) for name in plain}
        calls |= {mark + name: call for name, call in here.items()}
    return calls


def _fastest(times: Mapping[str, Sequence[float]]) -> dict[str, Sequence[float]]:
    """Of the layouts in which something was timed, the times of the one with the lowest median, by its name."""
    found: dict[str, Sequence[float]] = {}
    for marked, some in times.items():
        name = marked.removeprefix(_LAST)
        if name not in found or statistics.median(some) < statistics.median(found[name]):
            found[name] = some
    return found


def _compiled_plainly(make: _Maker, layer: nn.Module, x: Tensor) -> Callable[[], object]:
    """The call of a copy that torch.compile makes of the plain formula."""
    with use_backend("reference"):  # `make` may call it
        return _plainly(make(cast("nn.Module", torch.compile(copy.deepcopy(layer))), x))


def _compiled(conv: str) -> str:
    return f"{conv} compiled"


def _cost(
    conv: str,
    shape: LayerShape,
    inference: Mapping[str, Sequence[float]],
    training: Mapping[str, Sequence[float]],
    memory: Mapping[str, int],
    block_memory: Mapping[str, int],
) -> LayerCost:
    """The layer's cost from the seconds and bytes by name, the plain formula's where they are there."""
    plain = _plain(conv)
    return LayerCost(
        conv,
        shape,
        1000 * statistics.median(inference[_CONV2D]),
        1000 * statistics.median(training[_CONV2D]),
        memory[_CONV2D] / MIB,
        block_memory[_CONV2D] / MIB,
        ratio(inference[conv], inference[_CONV2D]),
        ratio(training[conv], training[_CONV2D]),
        memory[conv] / memory[_CONV2D],
        block_memory[conv] / block_memory[_CONV2D],
        ratio(inference[plain], inference[_CONV2D]) if plain in inference else None,
        ratio(training[plain], training[_CONV2D]) if plain in training else None,
        memory[plain] / memory[_CONV2D] if plain in memory else None,
        block_memory[plain] / block_memory[_CONV2D] if plain in block_memory else None,
    )


def _block(layer: nn.Module, shape: LayerShape, **place: Any) -> nn.Module:
    """The layer as a network uses it: what follows keeps tensors for the backward pass too, its output among them."""
    return nn.Sequential(layer, nn.BatchNorm2d(shape.out_channels, **place), nn.ReLU())


def _plain(conv: str) -> str:
    return f"{conv} plain"


def _inference_call(layer: nn.Module, x: Tensor) -> Callable[[], object]:
    layer.eval()

    def forward() -> Tensor:
        with torch.inference_mode():
            return layer(x)

    return forward


def _training_call(layer: nn.Module, x: Tensor) -> Callable[[], object]:
    layer.train()
    x = x.clone().requires_grad_()
    wanted = [x, *layer.parameters()]
    gradient = torch.randn_like(layer(x))

    def step() -> object:
        return torch.autograd.grad(layer(x), wanted, gradient, allow_unused=True)

    return step


def _with_plain(calls: Mapping[str, Callable[[], object]]) -> dict[str, Callable[[], object]]:
    """`calls`, and each of them with the plain formula where that computes another way."""
    both = dict(calls)
    for name, call in calls.items():
        plain = _plainly(call)
        if _operators(plain) != _operators(call):
            both[_plain(name)] = plain
    return both


def _plainly(call: Callable[[], object]) -> Callable[[], object]:
    def plain() -> object:
        with use_backend("reference"):
            return call()

    return plain


def _operators(call: Callable[[], object]) -> list[str]:
    """What a call computes: the names of the operators it comes down to, in order."""
    with _Recorder() as recorder:
        call()
    return recorder.names


class _Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))
