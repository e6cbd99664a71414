"""How a segmentation model is trained: the recipe, and what it has beyond a classifier's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from rfaconv.errors import UserError
from rfaconv.tasks.recipe import Recipe


@dataclass(frozen=True)
class SegmentRecipe(Recipe):
    """Everything about a training but the model, the data and the seed; see `Recipe` for the fields they share.

    Attributes:
        image_size: side in pixels of the parts that are trained on; None is the data's own size.
        augment: preset of `rfaconv.data.segmentation.build_mask_transform`: scale, crop or none.
        eval_transform: "whole": images are evaluated in their own size.
        dice: weight of the Dice loss beside the cross-entropy, whose weight is 1.
        freeze_norm: keep batch norms' statistics as they are: for batches too small for statistics of their own.
    """

    dice: float = 0.0
    freeze_norm: bool = False

    folder: ClassVar[str] = "segment"
    presets: ClassVar[dict[str, tuple[str, ...]]] = {
        "augment": ("scale", "crop", "none"),
        "eval_transform": ("whole",),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.dice < float("inf"):
            raise UserError(f"The recipe's dice must be finite and at least 0, got {self.dice}.")
