"""The trivial baseline of segmentation: each pixel by its own colour, measured on the embedded scenes.

python benchmarks/colour_classifier.py

Counts how often each class has each of 16 x 16 x 16 colours in the training scenes, and gives each pixel of the test
scenes the class that is likeliest for its colour: once as often as the classes are, once as if all were equally often.
"""

from __future__ import annotations

import torch

from rfaconv.data.segmentation import SegmentationData, load_segmentation
from rfaconv.tasks.segment.scores import Scores

LEVELS = 16


def main() -> None:
    """Print mean IoU and pixel accuracy of both classifiers, and of background everywhere."""
    data = load_segmentation()
    counts = count_colours(data)
    smoothed = counts + 0.5
    tables = {
        "likeliest class": smoothed.argmax(0),
        "likeliest class, all equally often": (smoothed / smoothed.sum(1, keepdim=True)).argmax(0),
        "background everywhere": torch.zeros(LEVELS**3, dtype=torch.long),
    }
    for name, table in tables.items():
        scores = Scores(len(data.classes))
        for i in range(len(data.val)):
            scores.update(table[codes(data.val.image(i))][None], data.val.mask(i).long()[None])
        figures, _ = scores.compute()
        print(f"{name:<36} mean IoU {figures['miou']:.4f}, pixel accuracy {figures['pixel_accuracy']:.4f}")


def count_colours(data: SegmentationData) -> torch.Tensor:
    """[classes, colours]: pixels of the training scenes."""
    counts = torch.zeros(len(data.classes), LEVELS**3)
    for i in range(len(data.train)):
        where = data.train.mask(i).long().flatten() * LEVELS**3 + codes(data.train.image(i)).flatten()
        counts += torch.bincount(where, minlength=counts.numel()).reshape(counts.shape)
    return counts


def codes(image: torch.Tensor) -> torch.Tensor:
    """The number of each pixel's colour, int64 [H, W]."""
    red, green, blue = image.long() * LEVELS // 256
    return (red * LEVELS + green) * LEVELS + blue


if __name__ == "__main__":
    main()
