"""Attention convolutions into existing models, and out of them again; needs torch alone.

Not called `convert`: that is the function, `rfaconv.convert`, and a module and a function cannot share a name.
"""

from rfaconv.conversion.converter import convert
from rfaconv.conversion.plain import simplify
from rfaconv.conversion.published import load_published
from rfaconv.conversion.saving import load, save
from rfaconv.conversion.start import register_neutral
from rfaconv.conversion.summary import Replaced, Summary

__all__ = ["Replaced", "Summary", "convert", "load", "load_published", "register_neutral", "save", "simplify"]
