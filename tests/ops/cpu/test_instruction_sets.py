"""Each instruction set's kernels against the float64 reference, over random shapes, windows and layouts.

RFAConv by `parity_cases` and their measure; RFCBAMConv and RFCAConv as layers, on images of noise.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from parity import Case, doubt, worst_violation
from parity_cases import as_layer, draw, nearly_ties, violations

from rfaconv.ops.cpu import library


def noise_cases(seeds: range) -> Iterator[Case]:
    """`parity_cases` on images of noise; without 1x1 kernels in training, whose filters have no gradient."""
    for seed in seeds:
        case, generator = draw(seed), torch.Generator().manual_seed(seed)
        image, (mean, var) = case.tensors["input"], case.running
        assert image is not None
        x = torch.empty_like(image).normal_(0.5, generator=generator)
        running = (torch.randn(mean.shape, generator=generator).double(), torch.rand_like(var) + 0.5)
        if case.window.taps > 1 or not case.training:
            yield case._replace(tensors={**case.tensors, "input": x}, running=running)


def test_rfa_equals_the_reference(instruction_set: str) -> None:
    found = [(*worst_violation(case, "cpu"), case.says) for case in map(draw, range(5000, 5060))]
    assert [one for one in found if not one[0] <= 1] == []


@pytest.mark.parametrize("name", ["rfcbam", "rfca"])
def test_gated_layers_equal_the_reference(name: str, instruction_set: str) -> None:
    bad = [line for case in noise_cases(range(80)) for line in violations(case, name)]
    assert not bad, "\n".join(bad)


def test_few_cases_are_in_doubt() -> None:
    cases = list(noise_cases(range(80)))
    assert len(cases) > 70
    assert sum(case.training for case in cases) > 20
    assert sum(doubt(case).flips or nearly_ties(as_layer(case, "rfcbam"), case) for case in cases) < 20


def test_the_widest_set_is_chosen_and_an_unknown_one_refused() -> None:
    before = library.instruction_set()
    assert before == next(name for name in ("AVX-512", "AVX2", "baseline") if library.use_instruction_set(name))
    assert not library.use_instruction_set("AVX-1024")
    assert library.instruction_set() == before
