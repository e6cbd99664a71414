"""A segmentation report's pictures: what they choose and what their colours say."""

from __future__ import annotations

import base64
import io
import math
import re

import numpy as np
import torch
from PIL import Image

from rfaconv.data.segmentation import IGNORE, voc_palette
from rfaconv.tasks.segment.pictures import choose_examples, class_bars, differences, example


def test_examples_are_the_largest_gains_the_largest_losses_and_others_evenly() -> None:
    baseline = [0.5] * 30
    variant = [0.5] * 30
    variant[4], variant[11], variant[20], variant[29] = 0.9, 0.8, 0.1, 0.2
    chosen = choose_examples(baseline, variant, 6)
    assert chosen[:2] == [4, 11]
    assert set(chosen[2:4]) == {20, 29}
    assert len(set(chosen)) == 6
    assert choose_examples([0.1, math.nan], [0.2, math.nan], 6) == [0, 1]
    assert choose_examples([0.1], [0.2], 6) == [0]


def test_colours_of_the_differences() -> None:
    truth = torch.tensor([[0, 1, 1, 2, IGNORE]])
    baseline = torch.tensor([[0, 1, 0, 0, 0]])
    variant = torch.tensor([[0, 0, 1, 1, 1]])
    image = torch.full((3, 1, 5), 100, dtype=torch.uint8)
    found = differences(image, truth, baseline, variant)[0].tolist()
    assert found[1] == [0xD5, 0x5E, 0x00]  # only the baseline is right
    assert found[2] == [0x00, 0x72, 0xB2]  # only the variant
    assert found[3] == [140, 140, 140]  # both wrong, in different ways
    assert found[0] == found[4]  # the same, or does not count


def test_a_row_shows_image_truth_and_both_models() -> None:
    image = torch.randint(0, 256, (3, 20, 30), dtype=torch.uint8)
    truth = torch.randint(0, 3, (20, 30))
    truth[0] = IGNORE
    row = example(
        image, truth, truth.clamp(max=2), 1 - truth.clamp(max=1), voc_palette(3), "a <caption>", ("conv", "rfa")
    )
    assert re.findall(r'alt="([^"]*)"', row) == ["image", "truth", "conv", "rfa", "where they differ"]
    assert "a &lt;caption&gt;" in row
    pixels = [
        np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))) for data in re.findall(r"base64,([^\"]*)", row)
    ]
    assert np.array_equal(pixels[0], image.permute(1, 2, 0).numpy())
    assert (pixels[1][0] == 255).all()
    assert np.array_equal(pixels[1][1:], np.array(voc_palette(3), np.uint8)[truth[1:].numpy()])


def test_bars_leave_out_what_is_nowhere_and_hold_many_classes() -> None:
    bars = class_bars(["sky", "sea", "unicorn"], {"conv": [0.5, 0.25, math.nan], "rfa": [0.6, 0.2, math.nan]})
    assert "sky" in bars
    assert "60.0" in bars
    assert "unicorn" not in bars
    many = class_bars([f"class {i}" for i in range(150)], {"conv": [0.5] * 150, "rfa": [0.5] * 149 + [0.9]})
    assert "class 149" in many
    assert len(re.findall("class \\d", many)) == 40
