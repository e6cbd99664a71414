"""A classifier's pictures: the right numbers, readable sizes, nothing but text in what users name."""

from __future__ import annotations

import base64
import io
import re
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from PIL import Image

from rfaconv.figures import conv_style, shorten
from rfaconv.tasks.classify.pictures import choose_examples, confusion_matrix, examples

EVIL = '<script>alert("1")</script>'


def texts(svg: str) -> list[str]:
    """All text of an SVG, which must be well-formed XML."""
    found = ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")
    return ["".join(element.itertext()).strip() for element in found]


@pytest.mark.parametrize("count", [2, 10, 15, 16, 50])
def test_confusion_matrix_shows_numbers_as_long_as_they_fit(count: int) -> None:
    classes = [f"class {i}" for i in range(count)]
    matrix = torch.diag(torch.arange(101, 101 + count))
    matrix[0, 1] = 7
    found = texts(confusion_matrix(classes, matrix))
    assert [name for name in found if name.startswith("class")].count("class 0") == 2
    numbers = [text for text in found if text.isdigit()]
    expected = ["7", *(str(101 + i) for i in range(count))] if count <= 15 else []
    assert sorted(numbers) == sorted(expected)


def test_confusion_matrix_puts_truth_down_and_prediction_across() -> None:
    svg = confusion_matrix(["a", "b"], np.array([[0, 5], [0, 0]]))
    data = re.search(r"data:image/png;base64,([^\"]+)", svg)
    assert data is not None
    alpha = np.asarray(Image.open(io.BytesIO(base64.b64decode(data[1]))).convert("RGBA"))[..., 3]
    # The only filled cell is in the first row, second column.
    opaque = [
        alpha[: len(alpha) // 2, alpha.shape[1] // 2 :],
        alpha[: len(alpha) // 2, : alpha.shape[1] // 2],
        alpha[len(alpha) // 2 :],
    ]
    assert [int(part.max()) for part in opaque] == [255, 0, 0]


def test_many_classes_become_their_worst_pairs() -> None:
    classes = [f"n{i}" for i in range(60)]
    matrix = np.eye(60, dtype=int) * 50
    matrix[3, 7], matrix[9, 2] = 50, 10
    found = texts(confusion_matrix(classes, matrix))
    pairs = [text for text in found if "→" in text]
    assert pairs == ["n3 → n7", "n9 → n2"]
    assert "50 (50 %)" in found
    assert "10 (17 %)" in found
    matrix[:, 0] += 1
    assert sum("→" in text for text in texts(confusion_matrix(classes, matrix))) == 30


def test_many_classes_without_a_mistake() -> None:
    assert texts(confusion_matrix([str(i) for i in range(60)], np.eye(60, dtype=int))) == [
        "No image was taken for another class."
    ]


def test_confusion_matrix_refuses_another_number_of_classes() -> None:
    with pytest.raises(ValueError, match="2 classes"):
        confusion_matrix(["a", "b"], np.eye(3))


def test_class_names_are_text() -> None:
    svg = confusion_matrix([EVIL, "b\n\x00c", "$x_1$"], np.eye(3, dtype=int))
    assert "<script" not in svg
    assert shorten(EVIL, 18) in texts(svg)
    assert "b c" in texts(svg)
    assert "$x_1$" in texts(svg)
    page = examples([torch.zeros(1, 8, 8, dtype=torch.uint8)], [0], {EVIL: [0]}, [EVIL], [EVIL])
    assert "<script" not in page


def test_choose_examples_takes_each_kind() -> None:
    truth = [0] * 12
    base = [0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 0, 0]
    best = [0, 0, 1, 1, 0, 0, 0, 0, 1, 2, 0, 0]
    found = choose_examples(truth, base, best, 6)
    assert found == ([4, 7], [2, 3], [8, 9])
    assert found.indices == [4, 7, 2, 3, 8, 9]
    assert found.remarks("conv", "rfa")[1:3] == ["only rfa is right", "only conv is right"]
    assert len(found.remarks("conv", "rfa")) == 6
    assert sorted(choose_examples(truth, base, best, 100).indices) == list(range(2, 10))
    assert choose_examples(truth, truth, truth, 6).indices == []
    # Kinds with too few leave their places to the others.
    assert len(choose_examples(truth, truth, best, 3).lost) == 3


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 600, 300), (3, 7, 90)])
def test_examples_of_any_size(shape: tuple[int, int, int]) -> None:
    image = torch.full(shape, 200, dtype=torch.uint8)
    page = examples([image, image], [0, 1], {"conv": [0, 0], "rfa": [1, 1]}, ["cat", "dog"])
    assert re.findall(r'aria-label="(\w+)"', page) == ["right", "wrong", "wrong", "right"]
    assert page.count("✓") == page.count("✗") == 2
    stored = Image.open(io.BytesIO(base64.b64decode(re.findall(r"base64,([^\"]+)", page)[0])))
    assert max(stored.size) <= 224
    assert stored.size[0] / stored.size[1] == pytest.approx(shape[2] / shape[1], rel=0.05)
    assert stored.getpixel((0, 0)) in (200, (200, 200, 200))


def test_a_convolution_looks_the_same_in_all_pictures_and_unlike_the_others() -> None:
    names = ["conv", "rf", "rfa", "rfcbam", "rfca", "cam", "cbam", "ca"]
    assert len({(style.color, style.marker) for style in map(conv_style, names)}) == len(names)
    assert conv_style("ca").color == conv_style("rfca").color
    assert conv_style("mine").color == conv_style("rfmine").color
    assert conv_style("mine").marker != conv_style("rfmine").marker
