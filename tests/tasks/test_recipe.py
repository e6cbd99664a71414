"""Recipes: readable files, checked; and the learning rate they give."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rfaconv.errors import UserError
from rfaconv.tasks.recipe import load_recipe, parse_recipe, parse_setting, recipe_names
from rfaconv.tasks.schedule import learning_rate_factor

MINIMAL = "epochs: 2\nbatch_size: 8\naugment: none\neval_transform: resize\nlr: 0.1\n"


def test_the_paper_recipe_is_the_published_one() -> None:
    recipe = load_recipe("paper")
    assert (recipe.lr, recipe.momentum, recipe.weight_decay, recipe.batch_size) == (0.1, 0.9, 1e-4, 128)
    assert (recipe.epochs, recipe.milestones, recipe.image_size) == (100, (30, 60, 90), 224)
    assert (recipe.augment, recipe.eval_transform) == ("imagenet", "resize")


def test_every_shipped_recipe_loads_and_says_what_it_is() -> None:
    assert recipe_names() == ["paper", "small"]
    for name in recipe_names():
        assert load_recipe(name).changed({}) == load_recipe(name)


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(MINIMAL + "weight_decay: 1e-4\nmilestones: [1]\nschedule: step\nema_decay: 0.99\n")
    recipe = load_recipe(str(path))
    assert (recipe.weight_decay, recipe.milestones, recipe.ema_decay) == (1e-4, (1,), 0.99)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (MINIMAL + "learning_rate: 0.1", r"Unknown field of the recipe 'learning_rate'"),
        (MINIMAL + "epoch: 3", r"Did you mean 'epochs'\?"),
        (MINIMAL + "schedule: cosin", r"Unknown schedule of the recipe 'cosin'\. Did you mean 'cosine'\?"),
        (MINIMAL + "nesterov: 3", "nesterov must be bool, got 3"),
        (MINIMAL + "weight_decay: small", "weight_decay must be float, got 'small'"),
        (MINIMAL + "milestones: 30", "milestones must be a list of int, got 30"),
        (MINIMAL.replace("lr: 0.1", "lr: .nan"), "lr must be finite and at least 0, got nan"),
        (MINIMAL.replace("lr: 0.1", "lr: .inf"), "lr must be finite and at least 0, got inf"),
        (MINIMAL + "ema_decay: 2", "ema_decay must lie between 0 and 1"),
        (MINIMAL + "momentum: -5", "momentum must lie between 0 and 1, got -5"),
        (MINIMAL + "label_smoothing: 7", "label_smoothing must lie between 0 and 1, got 7"),
        (MINIMAL + "gradient_clip: -1", "gradient_clip must be finite and at least 0, got -1"),
        (MINIMAL + "milestones: [-1]", r"milestones are epochs, 1 or later, got \[-1\]"),
        (MINIMAL + "image_size: 0", "image_size must be finite and at least 1, got 0"),
        (MINIMAL.replace("epochs: 2", "epochs: 0"), "epochs must be finite and at least 1, got 0"),
        (MINIMAL.replace("epochs: 2", "epochs: 2.5"), "epochs must be int, got 2.5"),
        ("epochs: 2", "lacks batch_size, augment, eval_transform, lr"),
        ("- epochs", "must be a list of 'name: value' lines"),
        ("epochs: [", "is no valid YAML"),
    ],
)
def test_mistakes_are_named_in_one_line(text: str, words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        parse_recipe(text, "mine.yaml")
    assert "\n" not in str(caught.value)


def test_settings() -> None:
    assert parse_setting("lr=1e-2") == ("lr", 0.01)
    assert parse_setting("milestones=[3, 5]") == ("milestones", (3, 5))
    assert parse_setting("gradient_clip=null") == ("gradient_clip", None)
    for wrong in ("lr", "lr=fast", "nothing=1", "lr=["):
        with pytest.raises(UserError):
            parse_setting(wrong)


def test_unreadable_recipes_are_named(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes(b"epochs: 2 # \xe9\n")
    with pytest.raises(UserError, match="cannot be read as text"):
        load_recipe(str(tmp_path / "latin.yaml"))


def test_missing_recipes_are_named() -> None:
    with pytest.raises(UserError, match=r"no recipe file 'none\.yaml'"):
        load_recipe("none.yaml")
    with pytest.raises(UserError, match=r"Unknown recipe 'papr'. Did you mean 'paper'"):
        load_recipe("papr")


def test_step_schedule_equals_torchs() -> None:
    recipe = load_recipe("paper").changed({"epochs": 6, "milestones": [2, 4]})
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=recipe.lr)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [2, 4], 0.1)
    for epoch in range(6):
        rates = [recipe.lr * learning_rate_factor(recipe, epoch * 10 + step, 10) for step in range(10)]
        assert rates == pytest.approx([scheduler.get_last_lr()[0]] * 10)
        optimizer.step()
        scheduler.step()


def test_cosine_schedule_equals_torchs_after_a_linear_warmup() -> None:
    recipe = load_recipe("small").changed({"epochs": 5, "warmup_epochs": 1})
    factors = [learning_rate_factor(recipe, step, 10) for step in range(50)]
    assert factors[:10] == pytest.approx([0.1 * (step + 1) for step in range(10)])
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 40)
    for factor in factors[10:]:
        assert factor == pytest.approx(scheduler.get_last_lr()[0], abs=1e-9)
        optimizer.step()
        scheduler.step()
