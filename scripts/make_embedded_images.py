"""Make the embedded images: a balanced subset of Fashion-MNIST, the same bytes on every run.

apt-get install dataset-fashion-mnist
python scripts/make_embedded_images.py
"""

from __future__ import annotations

import argparse
import gzip
import struct
from pathlib import Path

import torch
from torch import Tensor

from rfaconv.data.idx import read_idx
from rfaconv.errors import UserError

SEED = 2017
PER_CLASS = {"train": 600, "t10k": 200}
SOURCE = Path("/usr/share/datasets/fashion-mnist")
OUT = Path(__file__).resolve().parents[1] / "src/rfaconv/data/fashion_mnist"


def main() -> None:
    """Read the two parts from --source, write their subsets to --out."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--source", type=Path, default=SOURCE, help="folder of the Debian package's files")
    parser.add_argument("--out", type=Path, default=OUT, help="folder to write to")
    arguments = parser.parse_args()
    if not arguments.source.is_dir():
        parser.exit(2, f"{arguments.source} does not exist: apt-get install dataset-fashion-mnist, or give --source.\n")
    arguments.out.mkdir(parents=True, exist_ok=True)
    for part in PER_CLASS:
        try:
            make_part(arguments.source, arguments.out, part)
        except UserError as error:
            parser.exit(2, f"{error}\n")


def make_part(source: Path, out: Path, part: str) -> None:
    """Write PER_CLASS[part] images a class, shuffled."""
    names = f"{part}-images-idx3-ubyte.gz", f"{part}-labels-idx1-ubyte.gz"
    images, labels = read_idx(source / names[0], (3,)), read_idx(source / names[1], (1,))
    chosen = choose(labels, PER_CLASS[part])
    write_idx(out / names[0], images[chosen])
    write_idx(out / names[1], labels[chosen])


def choose(labels: Tensor, per_class: int) -> Tensor:
    """Indices of `per_class` images of each class, in a random order that SEED fixes."""
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(SEED))
    picked = [order[labels[order] == label][:per_class] for label in labels.unique()]
    # The first of each class within `order`; sorting by place in `order` shuffles the classes into each other.
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order))
    chosen = torch.cat(picked)
    return chosen[place[chosen].argsort()]


def write_idx(path: Path, data: Tensor) -> None:
    """A gzipped IDX file of bytes, without name or time in it."""
    header = struct.pack(f">4B{data.dim()}I", 0, 0, 8, data.dim(), *data.shape)
    # gzip.compress would write a header that depends on Python's version.
    with path.open("wb") as file, gzip.GzipFile("", "wb", 9, file, mtime=0) as packed:
        packed.write(header + data.contiguous().numpy().tobytes())


if __name__ == "__main__":
    main()
