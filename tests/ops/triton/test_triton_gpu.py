"""What only a GPU can show of the backend "triton": graphs, memory, determinism, mixed precision in training.

Run it with `make test-gpu`, which runs the other tests of this folder there too. For errors of memory and races:

    compute-sanitizer --tool memcheck .venv/bin/python -m pytest -m gpu tests/ops/triton/test_triton_parity.py
    compute-sanitizer --tool racecheck .venv/bin/python -m pytest -m gpu tests/ops/triton/test_triton_parity.py
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from rfaconv import create_conv
from rfaconv.ops import use_backend
from rfaconv.profiling.memory import peak_memory

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device that torch can use"),
]


@pytest.fixture(autouse=True)
def _by_the_kernels() -> Iterator[None]:
    with use_backend("triton"):
        yield


def block(channels: int, outputs: int, conv: str = "rfa") -> nn.Module:
    """A convolution as a network uses it, on the GPU."""
    layer = nn.Conv2d(channels, outputs, 3, padding=1) if conv == "conv" else create_conv(conv, channels, outputs)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs), nn.ReLU()).cuda()


def step(model: nn.Module, x: Tensor) -> list[Tensor]:
    """The output and the gradients of the input and all parameters."""
    x = x.detach().requires_grad_()
    out = model(x)
    return [out.detach(), *torch.autograd.grad(out.float().square().mean(), [x, *model.parameters()])]


@pytest.mark.parametrize("outputs", [64, 256], ids=["fused", "by chunks"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_the_same_bits_every_time(dtype: torch.dtype, outputs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it torch refuses its own products
    model, x = block(64, outputs).to(dtype), torch.randn(8, 64, 28, 28, device="cuda", dtype=dtype)
    torch.use_deterministic_algorithms(True)
    try:
        first, second = (step(copy.deepcopy(model), x) for _ in range(2))
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(map(torch.equal, first, second))


@pytest.mark.parametrize("outputs", [64, 256], ids=["fused", "by chunks"])
def test_a_graph_replays_inference(outputs: int) -> None:
    model, x = block(64, outputs).eval(), torch.randn(4, 64, 28, 28, device="cuda")
    with torch.no_grad():
        model(x)  # compiles
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            out = model(x)
        x.copy_(torch.randn_like(x))
        graph.replay()
        torch.testing.assert_close(out, model(x))


def test_a_graph_replays_a_training_step() -> None:
    model, x = block(32, 48).train(), torch.randn(4, 32, 28, 28, device="cuda")
    graphed = torch.cuda.make_graphed_callables(copy.deepcopy(model), (x.clone().requires_grad_(),))
    # Running statistics move at every warm-up; what the batch gives does not depend on them.
    for ours, plain in zip(step(graphed, x), step(model, x), strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("training", [False, True], ids=["eval", "training"])
def test_compiles_as_one_graph(training: bool) -> None:
    model, x = block(32, 48).train(training), torch.randn(4, 32, 14, 14, device="cuda")
    compiled = torch.compile(copy.deepcopy(model), fullgraph=True)
    for ours, plain in zip(step(compiled, x), step(model, x), strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_mixed_precision_learns_as_the_reference_does(dtype: torch.dtype) -> None:
    start, x = block(16, 32), torch.randn(8, 16, 16, 16, device="cuda")
    target = torch.randn(8, 32, 16, 16, device="cuda").relu()

    def losses(backend: str) -> list[float]:
        model, scaler = copy.deepcopy(start), torch.amp.GradScaler(enabled=dtype == torch.float16)
        optimizer, found = torch.optim.SGD(model.parameters(), lr=0.1), []
        for _ in range(20):
            with use_backend(backend), torch.autocast("cuda", dtype):
                loss = nn.functional.mse_loss(model(x).float(), target)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
            found.append(loss.item())
        return found

    ours, plain = losses("triton"), losses("reference")
    assert ours[-1] < 0.9 * ours[0]
    assert ours == pytest.approx(plain, rel=0.02)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("channels", "size"), [(64, 56), (128, 28), (256, 14), (512, 7)])
def test_a_training_step_needs_little_more_memory_than_conv2ds(channels: int, size: int, dtype: torch.dtype) -> None:
    x = torch.randn(64, channels, size, size, device="cuda", dtype=dtype)
    models = {conv: block(channels, channels, conv).to(dtype) for conv in ("rfa", "conv")}
    ours, plain = (peak_memory(lambda model=model: step(model, x), "cuda") for model in models.values())
    assert ours <= 1.15 * plain


def test_a_layer_on_another_device_than_the_current_one() -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("this machine has one GPU")
    model, x = block(8, 8).to("cuda:1"), torch.randn(2, 8, 9, 9, device="cuda:1")
    found = step(model, x)
    with use_backend("reference"):
        torch.testing.assert_close(found[0], step(model, x)[0], rtol=1e-3, atol=1e-3)
