"""Receptive-field attention convolutions (RFAConv, arXiv 2304.03198) for PyTorch.

The layers need torch alone; what needs more (models, training, comparison) is imported when first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rfaconv.errors import MissingExtraError, UserError, require
from rfaconv.layers import (
    AttentionConv2d,
    CAConv,
    CAMConv,
    CBAMConv,
    ReceptiveFieldConv2d,
    RFAConv,
    RFCAConv,
    RFCBAMConv,
    conv_names,
    create_conv,
    register_attention,
    register_conv,
)

if TYPE_CHECKING:
    from rfaconv.conversion import convert as convert
    from rfaconv.conversion import load as load
    from rfaconv.conversion import load_published as load_published
    from rfaconv.conversion import save as save
    from rfaconv.conversion import simplify as simplify
    from rfaconv.models import create_model as create_model
    from rfaconv.models import create_segmenter as create_segmenter
    from rfaconv.models.yolo import YOLO as YOLO

__version__ = "0.1.0"

__all__ = [
    "YOLO",
    "AttentionConv2d",
    "CAConv",
    "CAMConv",
    "CBAMConv",
    "MissingExtraError",
    "RFAConv",
    "RFCAConv",
    "RFCBAMConv",
    "ReceptiveFieldConv2d",
    "UserError",
    "conv_names",
    "convert",
    "create_conv",
    "create_model",
    "create_segmenter",
    "load",
    "load_published",
    "register_attention",
    "register_conv",
    "save",
    "simplify",
]

# name: (module, the extra it needs)
_LAZY = {
    "YOLO": ("rfaconv.models.yolo", "detect"),
    "create_model": ("rfaconv.models", "classify"),
    "create_segmenter": ("rfaconv.models", "segment"),
    **dict.fromkeys(("convert", "load", "load_published", "save", "simplify"), ("rfaconv.conversion", "classify")),
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(require(*_LAZY[name]), name)
    raise AttributeError(f"module 'rfaconv' has no attribute '{name}'")
