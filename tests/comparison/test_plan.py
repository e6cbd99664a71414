"""Plans: what is compared, in which order, and what is refused."""

from __future__ import annotations

import pytest

from rfaconv.comparison.plan import make_plan
from rfaconv.data import load_classification
from rfaconv.errors import UserError
from rfaconv.tasks.classify.task import ClassifyTask
from rfaconv.tasks.recipe import load_recipe

TASK = ClassifyTask("resnet10s", load_classification(), load_recipe("small"))


def test_the_baseline_comes_first_and_seeds_go_round() -> None:
    plan = make_plan(TASK, ["rfa", "ca", "conv", "rfa"], [0, 1])
    assert plan.convs == ("conv", "rfa", "ca")
    assert plan.runs == [("conv", 0), ("rfa", 0), ("ca", 0), ("conv", 1), ("rfa", 1), ("ca", 1)]
    assert make_plan(TASK, ["rfa", "ca"], [0], baseline="ca").convs == ("ca", "rfa")


def test_each_plan_has_a_folder_of_its_own() -> None:
    folders = {
        make_plan(TASK, ["rfa"], [0]).default_folder(),
        make_plan(TASK, ["rfa"], [0, 1]).default_folder(),
        make_plan(TASK, ["rfca"], [0]).default_folder(),
        make_plan(ClassifyTask("resnet18", TASK.data, TASK.recipe), ["rfa"], [0]).default_folder(),
        make_plan(ClassifyTask("resnet10s", TASK.data, load_recipe("paper")), ["rfa"], [0]).default_folder(),
    }
    assert len(folders) == 5
    assert make_plan(TASK, ["rfa"], [0]).default_folder() in folders


@pytest.mark.parametrize(
    ("convs", "seeds", "words"),
    [
        (["rfaa"], [0], "Did you mean 'rfa'"),
        (["conv"], [0], "nothing to compare 'conv' to"),
        ([], [0], "nothing to compare"),
        (["rfa"], [], "at least one seed"),
        (["rfa"], [1, 1], "seed is named twice"),
    ],
)
def test_what_cannot_be_compared_is_refused(convs: list[str], seeds: list[int], words: str) -> None:
    with pytest.raises(UserError, match=words):
        make_plan(TASK, convs, seeds)
