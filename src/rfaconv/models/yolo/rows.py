"""Model configurations in Ultralytics' form: which rows name our layers, and where the paper puts them.

A configuration is a mapping with `backbone` and `head`, lists of rows [from, repeats, module, arguments]. Our layers
go by their short names, or by their classes', and take Ultralytics' arguments of a Conv: channels, kernel, stride,
padding, groups, dilation, activation.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, TypeAlias

from rfaconv.errors import UserError, unknown_name
from rfaconv.layers.registry import conv_factory, conv_names

Config: TypeAlias = dict[str, Any]
Where: TypeAlias = str | Sequence[int] | None
"""Numbers of layers; "backbone" or "neck", the paper's places there; None, all of the paper's places."""

ANCHOR_HEAD = "AnchorDetect"
"""The name in a YAML of the head with anchors."""
PLACES = "places"
"""Key of a configuration of ours that lists the paper's places, where they are not the strided convolutions."""


def rows(config: Config) -> list[list[Any]]:
    """All rows, in the order of their layers' numbers; changing one changes the configuration."""
    found: list[Any] = []
    for part in ("backbone", "head"):
        if not isinstance(config.get(part), list) or not config[part]:
            raise UserError("A model's YAML needs the lists 'backbone' and 'head'.")
        found += config[part]
    for row in found:
        if not isinstance(row, list) or len(row) != 4 or not isinstance(row[2], str) or not isinstance(row[3], list):
            raise UserError(f"A row of a model's YAML is [from, repeats, module, [arguments]], got {row!r:.80}.")
    return found


def ours(config: Config) -> dict[int, str]:
    """The short names of our layers by their numbers."""
    names = {getattr(conv_factory(name), "__name__", ""): name for name in conv_names() if name != "conv"}
    known = {**{name: name for name in conv_names()}, **{kind: name for kind, name in names.items() if kind}}
    return {number: known[row[2]] for number, row in enumerate(rows(config)) if row[2] in known}


def as_plain(config: Config) -> Config:
    """A copy in which our rows are Ultralytics' Conv, so that its parser knows what to do with them."""
    plain = copy.deepcopy(config)
    for number in ours(config):
        rows(plain)[number][2] = "Conv"
    if anchors_of(config) is not None:
        rows(plain)[-1][2:] = ["Detect", rows(plain)[-1][3][:1]]
    return plain


def anchors_of(config: Config) -> list[list[float]] | None:
    """The anchors, where the head is one with anchors: AnchorDetect with the arguments nc and a list a map."""
    _, _, module, arguments = rows(config)[-1]
    if module != ANCHOR_HEAD:
        return None
    if len(arguments) != 2 or not isinstance(arguments[1], list):
        raise UserError(f"{ANCHOR_HEAD} takes [nc, anchors], anchors being a list of widths and heights for each map.")
    found: list[list[float]] = arguments[1]
    return found


def with_anchors(config: Config, anchors: list[list[int]]) -> Config:
    """A copy with a head with anchors in the place of Ultralytics' own."""
    changed = copy.deepcopy(config)
    rows(changed)[-1][2:] = [ANCHOR_HEAD, ["nc", copy.deepcopy(anchors)]]
    return changed


def with_conv(config: Config, conv: str, where: Where = None) -> Config:
    """A copy in which the convolutions that `where` means are the layer `conv`.

    Raises:
        UserError: an unknown layer, or a place that is no convolution larger than 1x1.
    """
    conv_factory(conv)
    changed = copy.deepcopy(config)
    found = rows(changed)
    for number in chosen(config, where):
        if not 0 <= number < len(found):
            raise UserError(f"There is no layer {number}: the model's last one is {len(found) - 1}.")
        if not _is_conv(found[number]) or _argument(found[number], 1) == 1:
            strided = ", ".join(str(place) for place in _convolutions(found))
            raise UserError(
                f"Layer {number} is {found[number][2]} {found[number][3]}, no convolution larger than 1x1; those of "
                f"this model are {strided or 'none'}."
            )
        found[number][2] = "Conv" if conv == "conv" else conv
    return changed


def chosen(config: Config, where: Where) -> list[int]:
    """The numbers of the layers that `where` means."""
    if where is None or isinstance(where, str):
        if where not in (None, "backbone", "neck"):
            unknown_name("place in a YOLO", str(where), ["backbone", "neck"])
        split = len(config["backbone"])
        places = [int(place) for place in config[PLACES]] if PLACES in config else _strided(rows(config))
        if where is not None:
            places = [place for place in places if (place < split) == (where == "backbone")]
        if not places:
            possible = ", ".join(str(place) for place in _convolutions(rows(config)))
            raise UserError(
                "This model has no 3x3 convolution with stride 2 where the paper puts its layers; choose with "
                f"where=[...] among {possible or 'none'}."
            )
        return places
    return list(where)


def _strided(found: list[list[Any]]) -> list[int]:
    """The paper's places: 3x3 convolutions with stride 2, but for the stem."""
    return [
        number
        for number, row in enumerate(found)
        if number > 0 and _is_conv(row) and _argument(row, 1) == 3 and _argument(row, 2) == 2
    ]


def _convolutions(found: list[list[Any]]) -> list[int]:
    return [number for number, row in enumerate(found) if _is_conv(row) and _argument(row, 1) != 1]


def _is_conv(row: list[Any]) -> bool:
    return row[2] == "Conv" or row[2] in conv_names()


def _argument(row: list[Any], index: int) -> Any:
    """Kernel (1) or stride (2) of a Conv row, both 1 where it does not say."""
    return row[3][index] if len(row[3]) > index else 1
