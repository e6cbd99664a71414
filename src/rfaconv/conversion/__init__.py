"""Attention convolutions into existing models, and out of them again; needs torch alone.

Not called `convert`: that is the function, `rfaconv.convert`, and a module and a function cannot share a name.
"""

from rfaconv.conversion.converter import convert
from rfaconv.conversion.start import register_neutral
from rfaconv.conversion.summary import Replaced, Summary

__all__ = ["Replaced", "Summary", "convert", "register_neutral"]
