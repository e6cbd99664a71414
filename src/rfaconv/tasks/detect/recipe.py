"""How a detector is trained: the recipe, and how Ultralytics is told."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, ClassVar

from rfaconv.errors import UserError
from rfaconv.tasks.recipe import Recipe

_LIGHT = {"mosaic": 0.0, "erasing": 0.0}
_NONE = {**_LIGHT, "hsv_h": 0.0, "hsv_s": 0.0, "hsv_v": 0.0, "translate": 0.0, "scale": 0.0, "fliplr": 0.0}
_AUGMENTATIONS: dict[str, dict[str, float]] = {
    "mosaic": {},
    "light": _LIGHT,
    "hues": {**_LIGHT, "hsv_h": 0.5, "scale": 0.2},
    "flip": {**_NONE, "fliplr": 0.5},
    "none": _NONE,
}


@dataclass(frozen=True)
class DetectRecipe(Recipe):
    """Everything about a training but the model, the data and the seed; see `Recipe` for the fields they share.

    An exponential moving average of the weights is what is evaluated; gradients are clipped, losses weighed and boxes
    assigned as Ultralytics does.

    Attributes:
        image_size: side in pixels the images are brought to, a multiple of 32; None is the data's own size, else 640.
        augment: mosaic (Ultralytics' own: mosaics, shifts, scales, flips and colours), light (the same without
            mosaics), hues (light, with any hue and smaller changes of scale), flip (flips alone) or none.
        eval_transform: "letterbox": images keep their shape.
        schedule: cosine, linear (both to `final_lr`) or constant.
        optimizer: SGD (with Nesterov's momentum) or AdamW.
        final_lr: the last learning rate, as a fraction of `lr`.
        plain_epochs: so many last epochs are without mosaics.
        warmup_epochs: of at least 100 steps, where there is a warm-up at all.
    """

    nesterov: bool = True
    optimizer: str = "SGD"
    final_lr: float = 0.01
    plain_epochs: int = 10

    folder: ClassVar[str] = "detect"
    presets: ClassVar[dict[str, tuple[str, ...]]] = {
        "augment": tuple(_AUGMENTATIONS),
        "eval_transform": ("letterbox",),
        "schedule": ("cosine", "linear", "constant"),
        "optimizer": ("SGD", "AdamW"),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        fixed = ("label_smoothing", "gradient_clip", "ema_decay", "milestones", "nesterov")
        for name, default in ((field.name, field.default) for field in fields(self)):
            if name in fixed and getattr(self, name) != default:
                raise UserError(f"The recipe's {name} is Ultralytics' own in detection: leave it out.")
        if not 0 <= self.final_lr <= 1 or self.plain_epochs < 0:
            raise UserError("The recipe's final_lr must lie between 0 and 1, and plain_epochs must be at least 0.")
        if self.image_size is not None and (self.image_size < 32 or self.image_size % 32):
            raise UserError(f"The recipe's image_size must be a multiple of 32 in detection, got {self.image_size}.")

    def settings(self) -> dict[str, Any]:
        """The same in Ultralytics' words."""
        mixed = {"32-true": False, "16-mixed": True, "bf16-mixed": "bf16"}[self.precision]
        return {
            "epochs": self.epochs,
            "batch": self.batch_size,
            "nbs": self.batch_size,  # a step of the optimizer for each batch
            "optimizer": self.optimizer,
            "lr0": self.lr,
            "lrf": 1.0 if self.schedule == "constant" else self.final_lr,
            "cos_lr": self.schedule == "cosine",
            "momentum": self.momentum,
            "weight_decay": self.weight_decay,
            "warmup_epochs": self.warmup_epochs,
            "warmup_bias_lr": self.lr,
            "close_mosaic": self.plain_epochs,
            "amp": mixed,
            "patience": 0,
            **_AUGMENTATIONS[self.augment],
        }
