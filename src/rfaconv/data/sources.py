"""Where images come from: memory or files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from torch import Tensor

from rfaconv.data.decode import BrokenImageError, read_image
from rfaconv.data.files import LabelledFile, printable, quoted
from rfaconv.errors import UserError


class ImageSource(Protocol):
    """Images with classes, by index."""

    @property
    def targets(self) -> Sequence[int]:
        """The classes' indices, one an image."""
        ...

    def __len__(self) -> int: ...

    def image(self, i: int) -> Tensor:
        """uint8 [C, H, W]."""
        ...

    def name(self, i: int) -> str:
        """For people: what to look for to find this image."""
        ...


class ArrayImages:
    """Images in memory: uint8 [N, C, H, W]; `label` begins their names."""

    def __init__(self, images: Tensor, targets: Sequence[int], label: str) -> None:
        self.images = images
        self.targets = targets
        self.label = label

    def __len__(self) -> int:
        return len(self.images)

    def image(self, i: int) -> Tensor:
        """uint8 [C, H, W], a view."""
        return self.images[i]

    def name(self, i: int) -> str:
        """e.g. "t10k[17]"."""
        return f"{self.label}[{i}]"


class FileImages:
    """Image files under a root, decoded whenever they are asked for, to 1 or 3 channels."""

    def __init__(self, root: Path, files: Sequence[LabelledFile], channels: int) -> None:
        self.root = root
        self.names = [file.name for file in files]
        self.targets = [file.target for file in files]
        self.channels = channels

    def __len__(self) -> int:
        return len(self.names)

    def image(self, i: int) -> Tensor:
        """uint8 [C, H, W], as `rfaconv.data.decode.read_image` reads it.

        Raises:
            UserError: the file is missing or broken; the message names it.
        """
        path = self.root / self.names[i]
        try:
            return read_image(path, self.channels)
        except BrokenImageError as error:
            raise UserError(f"Image {quoted(path)} cannot be read ({error}): mend it or remove it.") from error

    def name(self, i: int) -> str:
        """Relative to the root."""
        return printable(self.names[i])
