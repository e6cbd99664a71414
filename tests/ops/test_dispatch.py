"""Backends of one's own, and which one is chosen."""

from __future__ import annotations

import copy
import threading
from typing import Any

import pytest
import torch
from torch import Tensor

from rfaconv import UserError, create_conv
from rfaconv.ops import Backend, backends, dispatch, register_backend, use_backend
from rfaconv.ops.backend import Call

LAYERS = ["rfa", "rfcbam", "rfca"]


class ToyBackend(Backend):
    """All that it takes to compute the three layers another way: here the last step, in float64."""

    name = "toy"

    def __init__(self) -> None:
        self.calls = 0

    def description(self) -> str:
        return "a test's: in float64"

    def unsupported_reason(self, call: Call) -> str | None:
        return "it takes square inputs only" if call.input.shape[2] != call.input.shape[3] else None

    def rf_conv2d(self, x: Tensor, features: Any, operands: Any, weight: Tensor, bias: Any, *rest: Any) -> Tensor:
        self.calls += 1
        operands = type(operands)(*(None if part is None else part.double() for part in operands))
        out = super().rf_conv2d(x.double(), features, operands, weight.double(), bias.double(), *rest)
        return out.to(x.dtype)


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> ToyBackend:
    monkeypatch.setattr(dispatch, "_backends", dict(dispatch._backends))
    backend = ToyBackend()
    register_backend(backend)
    return backend


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", LAYERS)
def test_one_backend_serves_all_three_layers(name: str, training: bool, toy: ToyBackend) -> None:
    layer, x = create_conv(name, 6, 4, 3, 2).train(training), torch.randn(5, 6, 8, 8)
    found: dict[str, list[Tensor]] = {}
    for backend in ("auto", "torch"):
        own, at = copy.deepcopy(layer), x.clone().requires_grad_()
        with use_backend(backend):
            out = own(at)
        out.sin().sum().backward()
        assert at.grad is not None
        found[backend] = [out.detach(), at.grad, *own.buffers()]
    assert toy.calls == 1
    torch.testing.assert_close(found["auto"], found["torch"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", LAYERS)
def test_a_backend_that_cannot_is_passed_over_and_raises_where_it_is_named(name: str, toy: ToyBackend) -> None:
    layer, x = create_conv(name, 6, 4).eval(), torch.randn(5, 6, 8, 7)
    layer(x)
    assert toy.calls == 0
    declined = "Backend 'toy' declines this call: it takes square inputs only"
    with use_backend("toy"), pytest.raises(UserError, match=declined):
        layer(x)


def test_a_backend_that_is_only_asked_by_its_name(toy: ToyBackend) -> None:
    toy.auto = False
    assert [backend.name for backend in backends()] == ["cpu", "torch", "reference", "triton", "toy"]
    layer, x = create_conv("rfa", 6, 4).eval(), torch.randn(5, 6, 8, 8)
    layer(x)
    assert toy.calls == 0
    with use_backend("toy"):
        layer(x)
    assert toy.calls == 1


def test_overlapping_blocks_of_two_threads_leave_nothing_behind() -> None:
    entered, leave = threading.Event(), threading.Event()

    def other() -> None:
        with use_backend("torch"):
            entered.set()
            leave.wait(10)

    with use_backend("reference"):
        thread = threading.Thread(target=other)
        thread.start()
        assert entered.wait(10)
        assert dispatch.preferred_backend() == "torch"
    assert dispatch.preferred_backend() == "torch"
    leave.set()
    thread.join()
    assert dispatch.preferred_backend() == "auto"
