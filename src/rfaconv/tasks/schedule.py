"""The learning rate over a run, as a factor of the recipe's."""

from __future__ import annotations

import math

from rfaconv.tasks.recipe import Recipe

POLY_POWER = 0.9
"""DeepLab's."""


def learning_rate_factor(recipe: Recipe, step: int, steps_per_epoch: int) -> float:
    """The factor for optimizer step number `step`, counted from 0."""
    epoch = step / steps_per_epoch
    if epoch < recipe.warmup_epochs:
        return (step + 1) / (recipe.warmup_epochs * steps_per_epoch)
    if recipe.schedule == "step":
        return float(0.1 ** sum(epoch >= milestone for milestone in recipe.milestones))
    if recipe.schedule == "cosine":
        progress = (epoch - recipe.warmup_epochs) / max(recipe.epochs - recipe.warmup_epochs, 1e-9)
        return 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
    if recipe.schedule == "poly":
        return float(max(0.0, 1 - epoch / recipe.epochs) ** POLY_POWER)
    return 1.0
