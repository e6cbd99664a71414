"""What a trained segmentation model is saved with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from rfaconv.models import create_segmenter


@dataclass(frozen=True)
class SegmenterRecord:
    """What it takes to rebuild a trained segmentation model and to feed it."""

    architecture: str
    model: str
    """The encoder."""
    conv: str
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    """(red, green, blue) of each class."""
    image_size: int
    """Side in pixels of what it was trained on; larger images are looked at in windows of that size."""
    output_stride: int | None = None
    where: str = "encoder"
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """The architecture's own, e.g. {"decoder_channels": 64}."""
    task: str = "segment"

    def build(self, weights: str | None = None) -> nn.Module:
        """The model, freshly initialised; `weights` as in `create_segmenter`."""
        return create_segmenter(
            self.architecture,
            self.model,
            self.conv,
            output_stride=self.output_stride,
            classes=len(self.classes),
            where=self.where,
            weights=weights,
            **self.arguments,
        )

    @classmethod
    def read(cls, found: dict[str, Any]) -> SegmenterRecord:
        """From what JSON made of it."""
        palette = tuple((int(red), int(green), int(blue)) for red, green, blue in found["palette"])
        return cls(**{**found, "classes": tuple(found["classes"]), "palette": palette})
