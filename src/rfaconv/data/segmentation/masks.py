"""One mask file to one tensor of class numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from rfaconv.data.decode import BrokenImageError, open_image, reason
from rfaconv.data.files import special

IGNORE = 255
"""The id of pixels that count for nothing."""
_LOSSY = ("JPEG", "MPO", "JPEG2000")
_COLOURS = ("RGB", "RGBA", "RGBX", "RGBa")


@dataclass(frozen=True)
class MaskRule:
    """How the pixels of masks become class numbers.

    Attributes:
        classes: how many there are; None while that is being found out, so that every id is right.
        colours: (red, green, blue) of each class, for masks in colour; None where only ids are expected.
        lookup: 256 class numbers, for files whose ids are not those of the classes; None where they are.
    """

    classes: int | None = None
    colours: Sequence[tuple[int, int, int]] | None = None
    lookup: tuple[int, ...] | None = None


def read_mask(path: Path, rule: MaskRule) -> Tensor:
    """Decode a mask to uint8 [H, W]: class numbers, and 255 where a pixel counts for nothing.

    Greys, palettes and 16 bits are read as the ids they are; colours need `rule.colours`.

    Raises:
        BrokenImageError: unreadable, lossy, in colours without a palette or of an unknown one, floating point, or an id
            beyond the classes. The message is the reason alone, on one line.
    """
    try:
        if path.suffix == ".mat":
            return torch.from_numpy(_checked(_sbd_ids(path), rule))
        with open_image(path) as file:
            if file.format in _LOSSY:
                raise ValueError(f"a mask in {file.format}, whose ids are not exact: save it as PNG")
            file.load()
            ids = _ids(file, rule)
    # Decoders raise nearly anything on damaged data: OSError, SyntaxError, struct.error, IndexError, ...
    except Exception as error:
        raise BrokenImageError(reason(error)) from error
    return torch.from_numpy(ids)


def _sbd_ids(path: Path) -> NDArray[Any]:
    """The ids of SBD's .mat files, which hold GTcls.Segmentation."""
    from scipy.io import loadmat

    if kind := special(path):
        raise ValueError(f"it is {kind}, not a file")
    return np.asarray(loadmat(path)["GTcls"]["Segmentation"][0, 0])


def _ids(file: Image.Image, rule: MaskRule) -> NDArray[np.uint8]:
    if file.mode in _COLOURS:
        pixels = np.asarray(file.convert("RGB"))
        if rule.colours is not None:
            return _checked(_from_colours(pixels, rule.colours), rule)
        if (pixels != pixels[..., :1]).any():
            raise ValueError(
                "a colour mask without a palette: add classes.txt with a line 'name red green blue' for each class"
            )
        return _checked(pixels[..., 0], rule)
    if file.mode in ("LA", "La", "PA"):
        pixels = np.asarray(file)[..., 0]
    elif file.mode in ("1", "L", "P", "I") or file.mode.startswith("I;16"):
        pixels = np.asarray(file)
    else:
        raise ValueError(f"a mask of mode {file.mode}: ids are expected, as greys or by a palette")
    return _checked(pixels, rule)


def _from_colours(pixels: NDArray[np.uint8], colours: Sequence[tuple[int, int, int]]) -> NDArray[np.int64]:
    codes = _code(pixels.astype(np.int64))
    ids = np.full(codes.shape, -1, np.int64)
    for number, colour in enumerate(colours):
        ids[codes == _code(np.array(colour))] = number
    # VOC's border colour, which no class has.
    ids[(codes == _code(np.array((224, 224, 192)))) & (ids < 0)] = IGNORE
    if (ids < 0).any():
        row, column = (int(place) for place in np.argwhere(ids < 0)[0])
        found = tuple(int(value) for value in pixels[row, column])
        raise ValueError(f"the colour {found} at row {row}, column {column} is no class's")
    return ids


def _code(colour: NDArray[np.int64]) -> Any:
    return (colour[..., 0] << 16) | (colour[..., 1] << 8) | colour[..., 2]


def _checked(ids: NDArray[Any], rule: MaskRule) -> NDArray[np.uint8]:
    if ids.dtype != bool and (ids.min(initial=0) < 0 or ids.max(initial=0) > IGNORE):
        raise ValueError(f"the id {int(ids.max() if ids.max() > IGNORE else ids.min())}, and ids are 0 to 255")
    found = ids.astype(np.uint8)
    if rule.lookup is not None:
        found = np.array(rule.lookup, np.uint8)[found]
    if rule.classes is not None:
        wrong = (found >= rule.classes) & (found != IGNORE)
        if wrong.any():
            row, column = (int(place) for place in np.argwhere(wrong)[0])
            raise ValueError(
                f"the id {int(found[row, column])} at row {row}, column {column}, and there are {rule.classes} classes"
            )
    return found


def voc_palette(classes: int) -> tuple[tuple[int, int, int], ...]:
    """PASCAL VOC's colours: bit k of a channel comes from bits 3 (7 - k), 3 (7 - k) + 1 and 3 (7 - k) + 2 of the id."""
    return tuple((_channel(number, 0), _channel(number, 1), _channel(number, 2)) for number in range(classes))


def _channel(number: int, channel: int) -> int:
    return sum(((number >> (3 * place + channel)) & 1) << (7 - place) for place in range(8))
