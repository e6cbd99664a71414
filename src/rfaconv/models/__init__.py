"""Networks with the family's convolutions in the places the paper puts them; built on timm (extra: classify)."""

from rfaconv.models.create import create_model, model_names

__all__ = ["create_model", "model_names"]
