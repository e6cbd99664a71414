"""Make the photographs behind the scenes: parts of scikit-image's, scaled down, as PNG.

pip download --no-deps scikit-image && unzip scikit_image-*.whl 'skimage/data/*'
python scripts/make_scene_photos.py --source skimage/data
"""

from __future__ import annotations

import argparse
from pathlib import Path

from PIL import Image

from rfaconv.errors import UserError

OUT = Path(__file__).resolve().parents[1] / "src/rfaconv/data/scenes/photos"
SIDE = 208
"""Pixels of the shorter side; the longer one is cut to at most one and a half times that, from the middle."""
PHOTOS = {
    "train": ("brick.png", "chelsea.png", "clock_motion.png", "coffee.png", "grass.png", "hubble_deep_field.jpg"),
    "test": ("camera.png", "gravel.png", "retina.jpg", "rocket.jpg"),
}


def main() -> None:
    """Read the photographs from --source, write them scaled down to --out/train and --out/test."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--source", type=Path, required=True, help="skimage/data of an unpacked wheel")
    parser.add_argument("--out", type=Path, default=OUT, help="folder to write to")
    arguments = parser.parse_args()
    for part, names in PHOTOS.items():
        for name in names:
            path = arguments.source / name
            if not path.is_file():
                parser.error(f"there is no '{path}': unpack scikit-image's wheel (the first line of this script)")
            target = arguments.out / part / f"{path.stem}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            _scaled(Image.open(path)).save(target, optimize=True)


def _scaled(photo: Image.Image) -> Image.Image:
    if photo.mode not in ("L", "RGB"):
        raise UserError(f"A photograph of mode {photo.mode}: grey or RGB is expected.")
    scale = SIDE / min(photo.size)
    small = photo.resize((round(photo.width * scale), round(photo.height * scale)), Image.Resampling.LANCZOS)
    width, height = (min(length, SIDE * 3 // 2) for length in small.size)
    left, top = (small.width - width) // 2, (small.height - height) // 2
    return small.crop((left, top, left + width, top + height))


if __name__ == "__main__":
    main()
