"""Detection on real photographs: trees from the air, learnt on one photo and looked for in another.

python benchmarks/aerial_trees.py CACHE --convs conv,rfa

The wheel of deepforest 2.1.0 (PyPI, MIT licence; 21 MB) carries annotated aerial photos. pip downloads it into CACHE,
where two files are unzipped; it is never installed. One photo of Yellowstone (574 trees) is trained on and another (279
trees) is tested on, both cut into tiles; `rfaconv compare --task detect --data CACHE/tiles-256` takes the tiles too.
"""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from PIL import Image

from rfaconv.data.annotations.issues import Issues
from rfaconv.data.annotations.voc import read_voc
from rfaconv.data.detection import load_detection
from rfaconv.data.detection.boxes import Box, BoxedImage, settle
from rfaconv.data.detection.write import write_all
from rfaconv.tasks.detect import DetectJob, fit
from rfaconv.tasks.detect.recipe import DetectRecipe
from rfaconv.tasks.recipe import load_recipe

WHEEL = "deepforest==2.1.0"
FOLDER = "deepforest/data"
TRAIN, TEST = "2019_YELL_2_528000_4978000_image_crop2", "2019_YELL_2_541000_4977000_image_crop"
CLASSES = ("Tree",)
LEAST_INSIDE = 0.5
"""A tree belongs to a tile that has this part of its box; a box is cut at the tile's edge."""


def main() -> None:
    """Make the tiles, train each convolution on them and print what it finds in the other photo."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("cache", type=Path, help="folder for the wheel, the tiles and the runs")
    words.add_argument("--convs", default="conv,rfa")
    words.add_argument("--model", default="yolov8n")
    words.add_argument("--tile", type=int, default=256, help="side in pixels, a multiple of 32")
    words.add_argument("--epochs", type=int, default=30)
    words.add_argument("--seeds", type=int, default=1)
    given = words.parse_args()
    given.cache.mkdir(parents=True, exist_ok=True)
    data = load_detection(tiles(given.cache, given.tile))
    trees = [sum(len(image.boxes) for image in images) for images in (data.train, data.val)]
    print(f"{len(data.train)} tiles with {trees[0]} boxes for training, {len(data.val)} with {trees[1]} for the test")
    recipe = load_recipe("small", DetectRecipe).changed(
        {"epochs": given.epochs, "batch_size": 8, "image_size": given.tile}
    )
    for conv in given.convs.split(","):
        for seed in range(given.seeds):
            start = time.perf_counter()
            job = DetectJob(given.model, conv, data, recipe, seed)
            run = given.cache / f"{given.model}-{conv}-{given.tile}px-{given.epochs}-seed{seed}"
            metrics = fit(job, run).metrics
            figures = ", ".join(f"{name} {value:.3f}" for name, value in metrics.items())
            print(f"{conv:<7} seed {seed}: {figures}; {time.perf_counter() - start:.0f} s", flush=True)


def tiles(cache: Path, side: int) -> Path:
    """The folder of the tiles, as a data set in Ultralytics' form; those to train on overlap by half."""
    out = cache / f"tiles-{side}"
    if not out.exists():
        photos = unzipped(cache)
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            issues = Issues()
            parts = {
                "train": list(cut(photo(photos, TRAIN, issues), side, True, Path(folder))),
                "val": list(cut(photo(photos, TEST, issues), side, False, Path(folder))),
            }
            issues.refuse(photos)
            write_all(out, parts, CLASSES, issues, copy=False)
    return out


def unzipped(cache: Path) -> Path:
    """The folder of the photos and their annotations, out of the wheel."""
    if not list(cache.glob("deepforest-*.whl")):
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(cache), WHEEL]
        subprocess.run(command, check=True)
    with zipfile.ZipFile(next(cache.glob("deepforest-*.whl"))) as wheel:
        for name in (TRAIN, TEST):
            for suffix in (".png", ".xml"):
                wheel.extract(f"{FOLDER}/{name}{suffix}", cache)
    return cache / FOLDER


def photo(folder: Path, name: str, issues: Issues) -> BoxedImage:
    """A photo with its boxes, read and checked as any other PASCAL VOC annotation."""
    found = read_voc(folder, f"{name}.xml", {name: folder / f"{name}.png"}, issues)
    boxed = None if found is None else settle(found, {"Tree": 0}, issues)
    issues.refuse(folder)
    assert boxed is not None
    print(f"{name}: {boxed.width} x {boxed.height} pixels, {len(boxed.boxes)} trees")
    return boxed


def cut(whole: BoxedImage, side: int, overlap: bool, folder: Path) -> Iterator[BoxedImage]:
    """Tiles of `side` pixels that overlap by about half; or tiles of at most that side, every pixel in one of them."""
    with Image.open(whole.path) as file:
        pixels = file.convert("RGB")
    for top, bottom in windows(whole.height, side, overlap):
        for left, right in windows(whole.width, side, overlap):
            path = folder / f"{whole.path.stem}-{top}-{left}.png"
            pixels.crop((left, top, right, bottom)).save(path)
            inside = (within(box, left, top, right, bottom) for box in whole.boxes)
            yield BoxedImage(path, right - left, bottom - top, tuple(box for box in inside if box is not None))


def windows(extent: int, side: int, overlap: bool) -> list[tuple[int, int]]:
    """Where tiles begin and end."""
    if overlap:
        steps = max(1, math.ceil((extent - side) / (side / 2)))
        return [(start, start + side) for start in (round((extent - side) * i / steps) for i in range(steps + 1))]
    count = math.ceil(extent / side)
    edges = [round(extent * i / count) for i in range(count + 1)]
    return list(pairwise(edges))


def within(box: Box, left: int, top: int, right: int, bottom: int) -> Box | None:
    """The box in a tile's pixels, cut at its edges; None where too little of it is inside."""
    low, high = (max(box.left, left), max(box.top, top)), (min(box.right, right), min(box.bottom, bottom))
    width, height = high[0] - low[0], high[1] - low[1]
    whole = (box.right - box.left) * (box.bottom - box.top)
    if min(width, height) <= 0 or width * height < LEAST_INSIDE * whole:
        return None
    return Box(box.target, low[0] - left, low[1] - top, high[0] - left, high[1] - top)


if __name__ == "__main__":
    main()
