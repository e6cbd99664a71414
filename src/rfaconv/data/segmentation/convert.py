"""`convert_masks`: images with masks in any layout, as images/ and masks/ with classes.txt."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from rfaconv.data.annotations.issues import issues_csv
from rfaconv.data.files import existing_folder
from rfaconv.data.newfolder import free_folder, new_folder, place_images
from rfaconv.data.segmentation.data import SegmentationData, load_segmentation
from rfaconv.data.segmentation.masks import voc_palette


@dataclass(frozen=True)
class ConvertedMasks:
    """A data set that was converted: the folder that was written, and what it was made of."""

    path: Path
    data: SegmentationData


def convert_masks(
    root: str | Path,
    out: str | Path,
    *,
    lenient: bool = False,
    crowds: str | None = None,
    copy: bool = False,
    val_fraction: float = 0.2,
    seed: int = 0,
) -> ConvertedMasks:
    """Write `root` as images/, masks/ (PNGs of class numbers with a palette) and classes.txt into the new folder `out`.

    Args:
        root: a data set in one of the layouts of `load_segmentation`, or an archive of one.
        out: a folder that does not exist yet, or is empty.
        lenient: leave out and count what is wrong instead of refusing it.
        crowds: see `load_segmentation`.
        copy: copy the images; else they are hard links where the file system can, which take no room.
        val_fraction: images to hold out for validation where the data set has no such part.
        seed: of that choice.

    Raises:
        UserError: no known layout, something is wrong (and not `lenient`), or `out` is taken.
    """
    root, out = existing_folder(root), free_folder(out)
    data = load_segmentation(
        root, seed=seed, val_fraction=val_fraction, skip_broken=lenient, lenient=lenient, crowds=crowds
    )
    palette = [value for colour in voc_palette(256) for value in colour]
    with new_folder(out) as made:
        for part, source in (("train", data.train), ("val", data.val), ("test", data.test)):
            if source is None:
                continue
            files = [root / source.files(i)[0] for i in range(len(source))]
            (made / "masks" / part).mkdir(parents=True)
            for i, stem in enumerate(place_images(made / "images" / part, files, copy)):
                mask = Image.fromarray(source.mask(i).numpy().astype(np.uint8))
                mask.putpalette(palette)
                mask.save(made / "masks" / part / f"{stem}.png")
        (made / "classes.txt").write_text("".join(f"{name}\n" for name in data.classes), "utf-8")
        if data.issues.items:
            (made / "issues.csv").write_text(issues_csv(data.issues), "utf-8")
    return ConvertedMasks(out, data)
