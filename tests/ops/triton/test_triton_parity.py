"""The Triton kernels against the float64 reference: outputs, statistics, all gradients, by both ways of contracting."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from calls import rfa_conv2d
from parity import Case, compute, doubt, worst_violation
from torch import Tensor

from rfaconv.ops import Operands, fold_norm, rf_conv2d
from rfaconv.ops.epilogue import ACTS, Epilogue
from rfaconv.ops.window import Window


class Sizes(NamedTuple):
    """A call: x's shape, outputs, window."""

    shape: tuple[int, int, int, int]
    outputs: int
    window: Window
    groups: int = 1
    training: bool = True
    last: bool = False
    bare: bool = False
    """Without bias and affine norm."""


CASES = {
    "3x3": Sizes((2, 3, 7, 9), 5, Window((3, 3), padding=(1, 1))),
    "3x3 inference": Sizes((2, 3, 7, 9), 5, Window((3, 3), padding=(1, 1)), training=False),
    "3x3 channels last": Sizes((2, 5, 6, 7), 18, Window((3, 3), padding=(1, 1)), last=True),
    "more channels and outputs than a tile": Sizes((1, 18, 6, 7), 17, Window((3, 3), (1, 1), (1, 1)), training=False),
    "more pixels than a tile": Sizes((2, 2, 13, 9), 2, Window((3, 3), padding=(1, 1)), bare=True),
    "stride and groups": Sizes((2, 4, 11, 9), 6, Window((3, 3), (2, 2), (1, 1)), 2, bare=True),
    "1x1": Sizes((2, 3, 5, 4), 4, Window((1, 1))),
    "2x2 dilated": Sizes((2, 4, 7, 8), 3, Window((2, 2), (1, 1), (1, 0), (2, 3)), last=True, training=False),
    "asymmetric": Sizes((3, 4, 9, 8), 6, Window((3, 2), (2, 3), (1, 2), (1, 2)), 2, last=True),
    "one output": Sizes((2, 2, 6, 6), 1, Window((3, 1)), last=True),
    "one channel": Sizes((2, 1, 6, 6), 3, Window((2, 3), padding=(1, 1))),
    "4x5": Sizes((2, 1, 6, 5), 3, Window((4, 5), padding=(2, 2))),
}
every_case = pytest.mark.parametrize("name", CASES)
both_ways = pytest.mark.parametrize("way", ["fused", "by chunks"], indirect=True)


@pytest.fixture
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How the operand meets the weight: in one kernel, or chunk by chunk; the chunks are one image or tile each.

    By chunks, sums are made of short segments too, several by each program.
    """
    pytest.importorskip("triton")
    from rfaconv.ops.triton import launch, operators

    fused = request.param == "fused"
    monkeypatch.setattr(operators, "fuses", lambda problem, dtype: fused)
    if not fused:
        monkeypatch.setattr(operators, "OPERAND_BYTES", 1)
        monkeypatch.setattr(operators, "gradient_bytes", lambda x: 1)
        monkeypatch.setattr(launch, "LONGEST_EXACT", 6)
        monkeypatch.setattr(launch, "MOST_SPLITS", 2)
    return str(request.param)


def draw(sizes: Sizes) -> Case:
    """The call's tensors, random."""
    generator = torch.Generator().manual_seed(1)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    (kh, kw), (batch, channels, *size) = sizes.window.kernel_size, sizes.shape
    features, layout = channels * kh * kw, torch.channels_last if sizes.last else torch.contiguous_format
    height, width = ((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in zip(size, *sizes.window, strict=True))
    tensors: dict[str, Tensor | None] = {
        "input": (normal(*sizes.shape) + 0.5).contiguous(memory_format=layout),
        "feature_weight": normal(features, 1, kh, kw) / (kh * kw) ** 0.5,
        "attention_weight": normal(channels, kh * kw),
        "weight": normal(sizes.outputs, channels // sizes.groups, kh, kw) / features**0.5,
        "bias": None if sizes.bare else normal(sizes.outputs),
        "norm_weight": None if sizes.bare else normal(features),
        "norm_bias": None if sizes.bare else normal(features),
    }
    running = (normal(features), normal(features).abs() + 0.1)
    grad_out = normal(batch, sizes.outputs, height, width).contiguous(memory_format=layout)
    return Case(tensors, running, sizes.training, sizes.window, sizes.groups, grad_out, str(sizes))


@every_case
@both_ways
def test_as_exact_as_the_reference(name: str, way: str, device: str) -> None:
    case = draw(CASES[name])
    assert not doubt(case).blows_up
    violation, worst = worst_violation(case, "triton", device)
    assert violation <= 1, f"{worst} is {violation:.2f} times the allowed error off"


def test_the_cases_gradients_are_not_in_doubt() -> None:
    assert [name for name, sizes in CASES.items() if doubt(draw(sizes)).flips] == []


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", ["3x3", "asymmetric", "more channels and outputs than a tile"])
@both_ways
def test_half_precision_is_as_good_as_the_references(name: str, way: str, dtype: torch.dtype, device: str) -> None:
    """At most twice as far from the truth, of the rounded arguments, as the reference in the same dtype."""
    case = draw(CASES[name])
    rounded = {key: None if value is None else value.to(dtype).double() for key, value in case.tensors.items()}
    mean, var = (value.to(dtype).double() for value in case.running)
    case = case._replace(tensors=rounded, running=(mean, var), grad_out=case.grad_out.to(dtype).double())
    truth, plain = compute(case, "reference", torch.float64), compute(case, "reference", dtype)
    for key, found in compute(case, "triton", dtype, device).items():
        error, allowed = ((one - truth[key]).norm() for one in (found, plain[key]))
        assert error <= 2 * allowed + 1e-6 * truth[key].norm(), key


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("last", [False, True], ids=["NCHW", "channels last"])
@both_ways
def test_what_follows_in_inference_is_computed_too(act: str, last: bool, way: str, device: str) -> None:
    case = draw(CASES["3x3 inference"]._replace(last=last))
    arguments: dict[str, Any] = {
        name: None if value is None else value.float().to(device) for name, value in case.tensors.items()
    }
    mean, var = (value.float().to(device) for value in case.running)
    epilogue = Epilogue(torch.randn(5, device=device), torch.randn(5, device=device), act)
    plain = epilogue.apply(rfa_conv2d(**arguments, running_mean=mean, running_var=var, padding=1, backend="reference"))
    norm = (arguments["feature_weight"], arguments["norm_weight"], arguments["norm_bias"])
    with torch.no_grad():
        features = fold_norm(*norm, running_mean=mean, running_var=var, backend="triton")[0]
        operands = Operands(tap_weight=arguments["attention_weight"])
        convolution = (arguments["weight"], arguments["bias"])
        ours = rf_conv2d(
            arguments["input"], features, operands, *convolution, padding=1, epilogue=epilogue, backend="triton"
        )
    torch.testing.assert_close(ours, plain, rtol=1e-5, atol=1e-5)
    assert ours.is_contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_moments_lose_nothing(dtype: torch.dtype, device: str) -> None:
    """Small whole numbers far from 0, whose variance a sum in float32 would not know; 131 rows are two segments."""
    x = 128 + torch.randint(0, 2, (4, 1, 131, 4)).to(dtype)
    found = torch.ops.rfaconv.patch_moments(x.to(device), *Window((3, 3), (2, 1), (1, 1)))
    patches = F.unfold(x.double(), (3, 3), padding=1, stride=(2, 1)).view(4, 1, 9, -1).permute(1, 2, 0, 3).flatten(2)
    count = torch.full((1, 1), patches.shape[2], dtype=torch.float64)
    wanted = torch.cat([count, patches.sum(2), (patches @ patches.mT).flatten(1)], 1)
    assert torch.equal(found.cpu(), wanted)
