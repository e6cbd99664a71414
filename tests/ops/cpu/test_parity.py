"""The C++ kernels against the float64 reference over random configurations: outputs, statistics and all gradients."""

from __future__ import annotations

import pytest
from parity import doubt, worst_violation
from parity_cases import draw, violations


@pytest.mark.parametrize("first", range(0, 2000, 250))
def test_kernel_is_as_exact_as_the_reference(first: int) -> None:
    bad = []
    for seed in range(first, first + 250):
        case = draw(seed)
        violation, name = worst_violation(case, "cpu")
        if not violation <= 1:
            bad.append(f"{name} is {violation:.2f} times the allowed error off at {case.says}")
    assert not bad, "\n".join(bad)


def test_few_cases_are_in_doubt() -> None:
    cases = [draw(seed) for seed in range(400)]
    doubts = [doubt(case) for case in cases]
    assert sum(case.training for case in cases) > 100
    assert sum(one.flips for one in doubts) < 80
    assert sum(one.blows_up for one in doubts) < 8


@pytest.mark.parametrize("name", ["rfcbam", "rfca"])
@pytest.mark.parametrize("first", range(0, 750, 250))
def test_gated_layers_are_as_exact_as_their_composition(name: str, first: int) -> None:
    bad = [line for case in map(draw, range(first, first + 250)) for line in violations(case, name)]
    assert not bad, "\n".join(bad)
