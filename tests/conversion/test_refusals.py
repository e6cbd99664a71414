"""What is left alone with a reason, and the models that are refused with a word on what to do instead."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from conversion_helpers import Net, X, deviation, outputs, realistic
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

import rfaconv
from rfaconv import UserError


def same(*modules: nn.Module) -> nn.Module:
    return nn.Sequential(nn.ReLU(), *modules, nn.ReLU(), nn.Conv2d(4, 4, 3))


class OwnForward(nn.Conv2d):
    def forward(self, input: Tensor) -> Tensor:
        return 2 * super().forward(input)


class OwnName(nn.Conv2d):
    """A subclass that computes the same."""


def patched() -> nn.Conv2d:
    conv = nn.Conv2d(4, 4, 3)
    conv.forward = lambda x: conv._conv_forward(x, conv.weight, None)  # type: ignore[method-assign]
    return conv


STAY: dict[str, tuple[Any, str]] = {
    "own forward": (lambda: OwnForward(4, 4, 3), "OwnForward computes something of its own in forward"),
    "patched": (patched, "Conv2d computes something of its own in forward"),
    "transposed": (lambda: nn.ConvTranspose2d(4, 4, 3), "ConvTranspose2d is no Conv2d"),
    "1d": (lambda: nn.Sequential(nn.Flatten(2), nn.Conv1d(4, 4, 3), nn.Unflatten(2, (-1, 7))), "Conv1d is no Conv2d"),
    "weight norm": (lambda: parametrizations.weight_norm(nn.Conv2d(4, 4, 3)), "computed from other parameters"),
    "old weight norm": (lambda: nn.utils.weight_norm(nn.Conv2d(4, 4, 3)), "computed from other parameters"),
    "spectral norm": (lambda: nn.utils.spectral_norm(nn.Conv2d(4, 4, 3)), "computed from other parameters"),
    "pruned": (lambda: prune.l1_unstructured(nn.Conv2d(4, 4, 3), "weight", 0.5), "computed from other parameters"),
    "1x1": (lambda: nn.Conv2d(4, 4, 1), "kernel 1x1"),
    "depthwise": (lambda: nn.Conv2d(4, 4, 3, groups=4), "depthwise"),
}


@pytest.mark.parametrize("what", STAY)
@pytest.mark.filterwarnings("ignore:.*weight_norm.*")
def test_what_cannot_be_converted_stays_with_a_reason(what: str) -> None:
    build, reason = STAY[what]
    model, x = same(build()).eval(), torch.randn(2, 4, 10, 10)
    before = outputs(model, x)
    summary = rfaconv.convert(model, "rfa", calibrate=x)
    assert [place.name for place in summary.replaced] == ["3"]
    assert len(summary.skipped) == 1
    assert reason in summary.skipped[0].reason
    assert f"stayed: {summary.skipped[0].name} (1): " in str(summary)
    assert deviation(before, outputs(model, x)) < 3e-6


def test_timms_same_padding_stays_and_a_plain_subclass_does_not() -> None:
    import timm

    model = realistic(timm.create_model("tf_efficientnet_b0", num_classes=3))
    with pytest.raises(UserError, match=r"'conv_stem': Conv2dSame computes something of its own in forward"):
        rfaconv.convert(model, where="conv_stem", calibrate=torch.randn(1, 3, 32, 32))
    plain = same(OwnName(4, 4, 3)).eval()
    assert len(rfaconv.convert(plain, calibrate=torch.randn(2, 4, 10, 10)).replaced) == 2


def test_lazy_convolutions_need_an_input_first() -> None:
    model = nn.Sequential(nn.ReLU(), nn.LazyConv2d(4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3)).eval()
    with pytest.raises(UserError, match="LazyConv2d has no weights yet: run the model once first"):
        rfaconv.convert(model, where="1")
    x = torch.randn(2, 4, 9, 9)
    model(x)
    assert len(rfaconv.convert(model, calibrate=x).replaced) == 2


def test_weights_on_meta_and_quantised_ones_are_named() -> None:
    with torch.device("meta"):
        model = Net()
    with pytest.raises(UserError, match="on the meta device: load the model's weights first"):
        rfaconv.convert(model)


WRAPPED: dict[str, tuple[Any, str]] = {
    "compiled": (torch.compile, r"compiled: convert the module inside it \(model\._orig_mod\)"),
    "parallel": (nn.DataParallel, r"wrapped in DataParallel: convert the model inside it \(model\.module\)"),
    "scripted": (torch.jit.script, "scripted"),
    "conv": (lambda model: model.stem, "itself a Conv2d"),
    "nothing": (lambda model: [model], "takes a torch module, got list"),
}


@pytest.mark.parametrize("how", WRAPPED)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_wrapped_models_are_told_what_to_do(how: str) -> None:
    wrap, words = WRAPPED[how]
    with pytest.raises(UserError, match=words):
        rfaconv.convert(wrap(Net()))


def test_a_compiled_part_is_named() -> None:
    model: Any = Net()
    model.first = torch.compile(model.first)
    with pytest.raises(UserError, match="compiled at 'first'"):
        rfaconv.convert(model)
    model = Net()
    model.first.compile()
    with pytest.raises(UserError, match=r"compiled at 'first' \(module\.compile\(\)\)"):
        rfaconv.convert(model)


def test_in_several_processes(tmp_path: Any) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        wrapped = nn.parallel.DistributedDataParallel(Net())
        with pytest.raises(UserError, match=r"in DistributedDataParallel: .* \(model\.module\) in every process"):
            rfaconv.convert(wrapped)
    finally:
        torch.distributed.destroy_process_group()


def test_a_branch_the_data_never_reaches() -> None:
    class Two(Net):
        def __init__(self) -> None:
            super().__init__()
            self.spare = nn.Conv2d(8, 8, 3)

    model = Two().eval()
    summary = rfaconv.convert(model, calibrate=X)
    assert {skip.name: skip.reason for skip in summary.skipped}["spare"].startswith("the calibration batches never")
    assert type(model.spare) is nn.Conv2d


class Listed(nn.Module):
    """Holds its convolution outside its attributes as well, and uses it there."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.other = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)
        self.held = [self.conv]

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.other(self.held[0](x).relu())
        return out


class Functional(nn.Module):
    """Uses a convolution's weight without calling it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.other = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.other(nn.functional.conv2d(x, self.conv.weight).relu())
        return out


def test_a_convolution_used_behind_its_own_back() -> None:
    model = Listed().eval()
    with pytest.raises(UserError, match="uses 'conv' in another way than through its attribute"):
        rfaconv.convert(model, "rfa", calibrate=X)
    assert type(model.other) is nn.Conv2d
    for name in ("rfa", "cam"):
        for data in (None, X):
            functional = Functional().eval()
            before = outputs(functional, X)
            summary = rfaconv.convert(functional, name, calibrate=data)
            assert [place.name for place in summary.replaced] == ["other"]
            assert "never reach" in summary.skipped[0].reason
            assert deviation(before, outputs(functional, X)) < 3e-6


def test_twice_is_refused_and_inner_convolutions_are_left_alone() -> None:
    model = Net().eval()
    rfaconv.convert(model, "rfca", calibrate=X)
    names = [type(module).__name__ for module in model.modules()]
    with pytest.raises(UserError, match=r"No convolution of this Net can become 'rfa' here, e\.g\. the model has none"):
        rfaconv.convert(model, "rfa", calibrate=X)
    assert names == [type(module).__name__ for module in model.modules()]
