"""MNIST's IDX files (yann.lecun.com/exdb/mnist): a small reader that trusts nothing it reads."""

from __future__ import annotations

import gzip
import math
import re
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import torch
from torch import Tensor

from rfaconv.data.files import few, files_in, quoted, subfolders
from rfaconv.errors import UserError

FASHION_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
_FILE = re.compile(r"(train|t10k)-(images|labels)[-.]idx\d-ubyte(\.gz)?")
_UINT8 = 8
_CHUNK = 1 << 20


@dataclass(frozen=True)
class IdxData:
    """The four files of an IDX data set. Images are uint8 [N, C, H, W], labels the classes' indices."""

    classes: tuple[str, ...]
    train_images: Tensor
    train_labels: list[int]
    val_images: Tensor
    val_labels: list[int]


def find_idx(root: Path) -> Path | None:
    """The folder with IDX files: `root`, or torchvision's `raw` or `<name>/raw` below it; None if there is none."""
    if _idx_files(root):
        return root
    candidates = [root / "raw", *(root / name / "raw" for name in subfolders(root))]
    found = [folder for folder in candidates if folder.is_dir() and _idx_files(folder)]
    if len(found) > 1:
        raise UserError(f"{quoted(root)} holds several data sets: give one of {few(map(str, found))}.")
    return found[0] if found else None


def load_idx(folder: Path) -> IdxData:
    """Read train-* and t10k-* images and labels, plain or gzipped.

    The classes are the labels that occur in train. They are called by Fashion-MNIST's names if the folder's name or
    its parent's has "fashion" in it, else by their digits.

    Raises:
        UserError: a file is missing, damaged, or does not match the others; the message names it.
    """
    train_images, train_numbers = _read_part(folder, "train")
    val_images, val_numbers = _read_part(folder, "t10k")
    if train_images.shape[1:] != val_images.shape[1:]:
        raise UserError(
            f"The images of train-* and t10k-* in {quoted(folder)} differ in size: "
            f"{_shape(train_images)} and {_shape(val_images)} (channels x height x width)."
        )
    numbers = sorted(set(train_numbers))
    unseen = sorted(set(val_numbers) - set(numbers))
    if unseen:
        raise UserError(
            f"{quoted(_find(folder, 't10k', 'labels'))} has the label {unseen[0]}, "
            "which does not occur among the training labels: the two files do not belong together."
        )
    fashion = any("fashion" in part.lower() for part in folder.resolve().parts[-2:])
    if fashion and numbers[-1] >= len(FASHION_CLASSES):
        raise UserError(
            f"{quoted(_find(folder, 'train', 'labels'))} has the label {numbers[-1]}, "
            f"but Fashion-MNIST has classes 0 to {len(FASHION_CLASSES) - 1}."
        )
    if len(numbers) < 2:
        raise UserError(f"{quoted(folder)} has a single class, {numbers[0]}: a classifier needs two or more.")
    targets = {number: target for target, number in enumerate(numbers)}
    return IdxData(
        tuple(FASHION_CLASSES[number] if fashion else str(number) for number in numbers),
        train_images,
        [targets[number] for number in train_numbers],
        val_images,
        [targets[number] for number in val_numbers],
    )


def read_idx(path: Path, ranks: tuple[int, ...]) -> Tensor:
    """The uint8 tensor in an IDX file, gzipped if its name ends in .gz; its number of axes must be one of `ranks`.

    Raises:
        UserError: not an IDX file of bytes, another number of axes, an empty axis, or more or fewer bytes than it says.
    """
    try:
        with cast("BinaryIO", gzip.open(path)) if path.suffix == ".gz" else path.open("rb") as file:
            return _read(file, path, ranks)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{quoted(path)} cannot be read ({error}): fetch it again.") from error


def _read(file: BinaryIO, path: Path, ranks: tuple[int, ...]) -> Tensor:
    magic = file.read(4)
    if len(magic) < 4 or magic[:3] != bytes((0, 0, _UINT8)):
        raise UserError(f"{quoted(path)} is not an IDX file of unsigned bytes: its first bytes are {magic.hex()!r}.")
    rank = magic[3]
    if rank not in ranks:
        raise UserError(f"{quoted(path)} has {rank} axes, expected {' or '.join(map(str, ranks))}.")
    header = file.read(4 * rank)
    if len(header) < 4 * rank:
        raise UserError(f"{quoted(path)} is truncated: it ends within its header.")
    shape = struct.unpack(f">{rank}I", header)
    if 0 in shape:
        raise UserError(f"{quoted(path)} has no data: its shape is {' x '.join(map(str, shape))}.")
    size = math.prod(shape)
    # Read in pieces: a header may promise more than any memory holds.
    data = bytearray()
    while len(data) <= size and (piece := file.read(min(_CHUNK, size + 1 - len(data)))):
        data += piece
    if len(data) != size:
        what = "is truncated: it holds" if len(data) < size else "goes on after its data: it should hold"
        raise UserError(f"{quoted(path)} {what} {min(len(data), size)} bytes, and its header says {size}.")
    return torch.frombuffer(data, dtype=torch.uint8).reshape(shape)


def _read_part(folder: Path, part: str) -> tuple[Tensor, list[int]]:
    image_path, label_path = _find(folder, part, "images"), _find(folder, part, "labels")
    images, labels = read_idx(image_path, (3, 4)), read_idx(label_path, (1,))
    if images.dim() == 3:
        images = images.unsqueeze(1)
    if images.shape[1] not in (1, 3):
        raise UserError(f"{quoted(image_path)} has images of {images.shape[1]} channels, expected 1 or 3.")
    if len(images) != len(labels):
        raise UserError(
            f"{quoted(image_path)} has {len(images)} images but {quoted(label_path)} has {len(labels)} labels."
        )
    return images, labels.tolist()


def _find(folder: Path, part: str, what: str) -> Path:
    for name in _idx_files(folder):
        if name.startswith(f"{part}-{what}"):
            return folder / name
    split = "training" if part == "train" else "validation"
    raise UserError(f"The {split} split is missing: {quoted(folder)} has no {part}-{what}-idx*-ubyte or .gz of it.")


def _idx_files(folder: Path) -> list[str]:
    """IDX files in `folder`; plain ones come before their gzipped copies."""
    return [name for name in files_in(folder) if _FILE.fullmatch(name)]


def _shape(images: Tensor) -> str:
    return " x ".join(map(str, images.shape[1:]))
