"""One image file to one tensor."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torchvision.transforms.v2.functional import pil_to_tensor

from rfaconv.data.files import special
from rfaconv.errors import UserError

_TRANSPOSED = (5, 6, 7, 8)
"""EXIF orientations that exchange width and height."""


class BrokenImageError(UserError):
    """An image file that cannot be read."""


def read_image(path: Path, channels: int) -> Tensor:
    """Decode a file to uint8 [channels, H, W], channels being 1 or 3.

    EXIF's orientation is applied. Alpha is dropped, not composited, as torchvision and timm do. Greys of 16 bits are
    scaled to 8; CMYK and palettes are converted. Of a file of several images the first is taken.

    Raises:
        BrokenImageError: missing, damaged, too large to be honest (PIL's decompression bomb), or in a mode without a
            conversion (floating point, more than 16 bits, LAB where PIL has none). The message is the reason alone, on
            one line.
    """
    try:
        with open_image(path) as file:
            file.load()
            return pil_to_tensor(_convert(_upright(file), channels))
    # Decoders raise nearly anything on damaged data: OSError, SyntaxError, struct.error, IndexError, ...
    except Exception as error:
        raise BrokenImageError(reason(error)) from error


def open_image(path: Path) -> Image.Image:
    """PIL's Image.open, of regular files alone: opening a fifo would wait for ever."""
    if kind := special(path):
        raise ValueError(f"it is {kind}, not a file")
    return Image.open(path)


def image_size(path: Path) -> tuple[int, int]:
    """Width and height as a viewer shows the image (EXIF's orientation applied), from its header.

    Raises:
        BrokenImageError: it cannot be read; the message is the reason alone.
    """
    try:
        with open_image(path) as file:
            width, height = file.size
            orientation = file.getexif().get(0x0112) if file.format in ("JPEG", "MPO") else None
    except Exception as error:  # decoders raise nearly anything on damaged data
        raise BrokenImageError(reason(error)) from error
    return (height, width) if orientation in _TRANSPOSED else (width, height)


def reason(error: Exception) -> str:
    """Why PIL could not open or decode a file, on one line."""
    # Ultralytics, where someone has imported it, looks for a package then and raises that it is not there.
    if isinstance(error, UnidentifiedImageError) or isinstance(error.__context__, UnidentifiedImageError):
        return "not an image that PIL knows"
    return one_line(error)


def one_line(error: Exception) -> str:
    """What a decoder's error says, without the file's name, on one line."""
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join((reason or type(error).__name__).split())


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # damaged EXIF does not make the pixels worse
        return image


def _convert(image: Image.Image, channels: int) -> Image.Image:
    mode = "L" if channels == 1 else "RGB"
    if image.mode == "I" or image.mode.startswith("I;16"):
        image = _eight_bits(image)
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers, of which white is unknown")
    if image.mode in ("La", "RGBa"):  # premultiplied alpha
        image = image.convert("LA" if image.mode == "La" else "RGBA")
    if "transparency" in image.info and image.mode == "P":
        image = image.convert("RGBA")
    try:
        return image if image.mode == mode else image.convert(mode)
    except ValueError as error:
        raise ValueError(f"its mode {image.mode} cannot be turned into {channels} channel(s)") from error


def _eight_bits(image: Image.Image) -> Image.Image:
    """PIL's own conversion clips or keeps the high byte, depending on its version."""
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise ValueError("its pixels are of more than 16 bits")
    return Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8))
