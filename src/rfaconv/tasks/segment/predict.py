"""What a trained segmentation model sees in image files of any size: masks with a palette, and overlays."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms.v2.functional import normalize, to_dtype

from rfaconv.data.decode import BrokenImageError, read_image
from rfaconv.data.segmentation import IGNORE
from rfaconv.data.transforms import MEAN_STD
from rfaconv.errors import UserError
from rfaconv.files import replacing
from rfaconv.tasks.segment.infer import Manner, colours, probabilities
from rfaconv.tasks.segment.record import SegmenterRecord

OVERLAY = 0.55
"""How much of an overlay is the class's colour; the background (class 0) stays as it is."""


@dataclass(frozen=True)
class Written:
    """One image: the files written for it and the classes' shares of its pixels, or why it could not be read."""

    path: Path
    mask: Path | None = None
    overlay: Path | None = None
    shares: tuple[tuple[str, float], ...] = ()
    """The classes in it with their shares, the largest first."""
    error: str | None = None


def predict_files(
    model: nn.Module,
    record: SegmenterRecord,
    paths: Sequence[Path],
    out: Path,
    *,
    manner: Manner | None = None,
    overlays: bool = True,
    device: torch.device | str = "cpu",
) -> Iterator[Written]:
    """Write for each image OUT/NAME.png, a mask with the palette, and OUT/NAME-overlay.png; yields each when done.

    A file that cannot be read yields its error and stops nothing. Images of the same name from several folders go into
    folders of OUT that tell them apart.

    Args:
        manner: scales, mirroring and windows; without a window it is twice the size the model was trained on, and 512
            px at least.

    Raises:
        UserError: a file would be written over one of the images.
    """
    manner = default_manner(record) if manner is None else replace(manner, window=manner.window or window_of(record))
    model = model.to(device).eval()
    for path, target in zip(paths, _targets(paths, out), strict=True):
        try:
            image = read_image(path, 3)
        except BrokenImageError as error:
            yield Written(path, error=str(error))
            continue
        found = segment_one(model, record, image, manner, device)
        mask = target.with_name(f"{target.name}.png")
        _save(mask_image(found, record), mask)
        overlay = target.with_name(f"{target.name}-overlay.png") if overlays else None
        if overlay is not None:
            _save(overlay_image(image, found, record), overlay)
        yield Written(path, mask, overlay, _shares(found, record.classes))


def default_manner(record: SegmenterRecord) -> Manner:
    """The whole image, or windows where it is much larger than what the model was trained on."""
    return Manner(window=window_of(record))


def window_of(record: SegmenterRecord) -> int:
    """Pixels of the windows that large images are looked at in."""
    return max(2 * record.image_size, 512)


def segment_one(
    model: nn.Module,
    record: SegmenterRecord,
    image: Tensor,
    manner: Manner | None = None,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Class numbers, uint8 [H, W], of one image, uint8 [3, H, W]."""
    mean, std = MEAN_STD[3]
    pixels = normalize(to_dtype(image, torch.float32, scale=True), list(mean), list(std))
    with torch.inference_mode():
        shares = probabilities(model, pixels[None].to(device), manner or default_manner(record))
    return shares[0].argmax(0).to(torch.uint8).cpu()


def mask_image(found: Tensor, record: SegmenterRecord) -> Image.Image:
    """Class numbers as an image with the classes' colours in its palette; the ids stay what they are."""
    made = Image.fromarray(found.numpy())
    made.putpalette(colours(record.palette).flatten().tolist())
    return made


def overlay_image(image: Tensor, found: Tensor, record: SegmenterRecord) -> Image.Image:
    """The image with the classes' colours over it."""
    table = colours(record.palette)
    paint = table[found.long()].permute(2, 0, 1).float()
    mixed = torch.where(found[None] == 0, image.float(), (1 - OVERLAY) * image.float() + OVERLAY * paint)
    return Image.fromarray(np.ascontiguousarray(mixed.round().to(torch.uint8).permute(1, 2, 0).numpy()))


def _shares(found: Tensor, classes: Sequence[str]) -> tuple[tuple[str, float], ...]:
    counts = torch.bincount(found.flatten().long(), minlength=IGNORE + 1)[: len(classes)]
    order = [int(number) for number in counts.argsort(descending=True, stable=True) if counts[number] > 0]
    return tuple((classes[number], counts[number].item() / found.numel()) for number in order)


def _targets(paths: Sequence[Path], out: Path) -> list[Path]:
    """For each image where its files go, without a suffix: its place below the folder that all of them share."""
    stems = [path.with_suffix("").name for path in paths]
    names = [Path(stem) for stem in stems]
    if len(set(stems)) < len(stems):
        resolved = [path.resolve() for path in paths]
        common = Path(*_common([path.parent.parts for path in resolved]))
        # With its suffix, where a.jpg and a.png lie in one folder.
        names = [path.relative_to(common) for path in resolved]
    targets = [out / name for name in names]
    # In a folder that images lie in, every file may be one, also of those that were not named.
    folders = {path.resolve().parent for path in paths}
    for target in targets:
        for made in (target.with_name(f"{target.name}{end}").resolve() for end in (".png", "-overlay.png")):
            if made.parent in folders and made.exists():
                raise UserError(f"A mask would be written over the image '{made}'; choose another --out.")
    return targets


def _common(parts: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    shared = []
    for level in zip(*parts, strict=False):
        if len(set(level)) > 1:
            break
        shared.append(level[0])
    return tuple(shared)


def _save(image: Image.Image, path: Path) -> None:
    with replacing(path) as file:
        image.save(file, format="PNG")
