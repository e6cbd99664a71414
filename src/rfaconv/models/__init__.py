"""Networks with the family's convolutions in the places the paper puts them; built on timm (extra: classify)."""

from rfaconv.models.create import create_model, model_names
from rfaconv.models.segmenter import architecture_names, create_segmenter, encoder_names

__all__ = ["architecture_names", "create_model", "create_segmenter", "encoder_names", "model_names"]
