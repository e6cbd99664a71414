"""The embedded images, and IDX files whole and damaged."""

from __future__ import annotations

import gzip
import struct
from collections import Counter

import numpy as np
import pytest
import torch

from rfaconv import UserError
from rfaconv.data import load_classification

PARTS = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def refusal(root) -> str:
    with pytest.raises(UserError) as caught:
        load_classification(root)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_embedded():
    data = load_classification()
    assert data.name == "Fashion-MNIST subset (embedded)"
    assert (data.channels, data.image_size, data.skipped) == (1, (28, 28), ())
    assert len(data.classes) == 10
    assert data.classes[9] == "Ankle boot"
    assert Counter(data.train.targets) == dict.fromkeys(range(10), 600)
    assert Counter(data.val.targets) == dict.fromkeys(range(10), 200)
    assert data.fingerprint == load_classification("embedded").fingerprint == "58bb959b561d10da"


def test_embedded_is_shuffled_and_looks_like_clothes():
    data = load_classification()
    assert len(set(data.train.targets[:100])) == 10
    trousers, bags = (
        torch.stack([data.val.image(i).float() for i in range(len(data.val)) if data.val.targets[i] == target]).mean(0)
        for target in (1, 8)
    )
    assert bags[0, 20, 2:26].mean() > 3 * trousers[0, 20, 2:6].mean()


def test_embedded_in_colour():
    grey, colour = load_classification(), load_classification(channels=3)
    assert colour.channels == 3
    assert torch.equal(colour.val.image(5), grey.val.image(5).expand(3, -1, -1))
    assert colour.val.name(5) == "t10k[5]"


def test_plain_digits(idx_folder):
    data = load_classification(idx_folder)
    assert (data.name, data.classes, data.channels, data.image_size) == ("digits", ("0", "1", "2"), 1, (5, 4))
    assert list(data.val.targets) == [0, 1, 2, 0]
    assert data.train.image(1).tolist() == [[[20 + 4 * y + x for x in range(4)] for y in range(5)]]


def test_gzip_and_torchvision_folders_are_the_same_data(idx_folder, tmp_path):
    plain = load_classification(idx_folder)
    raw = tmp_path / "root" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name in PARTS:
        (raw / f"{name}.gz").write_bytes(gzip.compress((idx_folder / name).read_bytes()))
    for root in (tmp_path / "root", tmp_path / "root/MNIST", raw):
        data = load_classification(root)
        assert data.fingerprint == plain.fingerprint
        assert data.name == "MNIST"


def test_two_torchvision_sets(idx_folder, tmp_path):
    for name in ("MNIST", "FashionMNIST"):
        (tmp_path / "both" / name).mkdir(parents=True)
        (tmp_path / "both" / name / "raw").symlink_to(idx_folder)
    assert "several data sets" in refusal(tmp_path / "both")


def test_fashion_by_folder_name(idx_folder, idx_bytes):
    folder = idx_folder.rename(idx_folder.parent / "fashion-mnist")
    assert load_classification(folder).classes == ("T-shirt/top", "Trouser", "Pullover")
    (folder / "train-labels-idx1-ubyte").write_bytes(idx_bytes(np.array([0, 1, 2, 3, 4, 10])))
    assert "label 10" in refusal(folder)


def test_labels_need_not_begin_at_nought(idx_folder, idx_bytes):
    (idx_folder / "train-labels-idx1-ubyte").write_bytes(idx_bytes(np.array([3, 7, 9, 3, 7, 9])))
    (idx_folder / "t10k-labels-idx1-ubyte").write_bytes(idx_bytes(np.array([9, 7, 9, 3])))
    data = load_classification(idx_folder)
    assert data.classes == ("3", "7", "9")
    assert list(data.val.targets) == [2, 1, 2, 0]


def test_colour_images(idx_folder, idx_bytes):
    for part, count in (("train", 6), ("t10k", 4)):
        (idx_folder / f"{part}-images-idx3-ubyte").write_bytes(idx_bytes(np.full((count, 3, 5, 4), 7)))
    assert load_classification(idx_folder).channels == 3
    assert load_classification(idx_folder, channels=1).train.image(0).shape == (1, 5, 4)


@pytest.mark.parametrize("missing", PARTS)
def test_missing_part(idx_folder, missing):
    (idx_folder / missing).unlink()
    message = refusal(idx_folder)
    assert missing[:10] in message
    assert ("training" if missing.startswith("train") else "validation") in message


@pytest.mark.parametrize(
    ("name", "array", "words"),
    [
        ("train-images-idx3-ubyte", np.zeros((5, 5, 4)), "5 images but"),
        ("train-images-idx3-ubyte", np.zeros((6, 4, 4)), "differ in size"),
        ("train-images-idx3-ubyte", np.zeros((6, 2, 5, 4)), "2 channels"),
        ("train-images-idx3-ubyte", np.zeros((6, 20)), "2 axes, expected 3 or 4"),
        ("train-images-idx3-ubyte", np.zeros((0, 5, 4)), "no data"),
        ("train-labels-idx1-ubyte", np.zeros((6, 1)), "2 axes, expected 1"),
        ("train-labels-idx1-ubyte", np.zeros(6), "the label 1, which does not occur"),
        ("t10k-labels-idx1-ubyte", np.array([0, 1, 2, 200]), "the label 200, which does not occur"),
    ],
)
def test_parts_that_do_not_fit(idx_folder, idx_bytes, name, array, words):
    (idx_folder / name).write_bytes(idx_bytes(array))
    assert words in refusal(idx_folder)


def test_single_class(idx_folder, idx_bytes):
    (idx_folder / "train-labels-idx1-ubyte").write_bytes(idx_bytes(np.zeros(6)))
    (idx_folder / "t10k-labels-idx1-ubyte").write_bytes(idx_bytes(np.zeros(4)))
    assert "single class" in refusal(idx_folder)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda data: b"", "not an IDX file"),
        (lambda data: b"\x89PNG" + data, "not an IDX file"),
        (lambda data: data[:2] + b"\x0d" + data[3:], "unsigned bytes"),
        (lambda data: data[:9], "within its header"),
        (lambda data: data[:-1], "is truncated: it holds 119 bytes, and its header says 120"),
        (lambda data: data + b"x", "goes on after its data"),
        (lambda data: data[:4] + struct.pack(">3I", *[2**32 - 1] * 3) + data[16:], "is truncated"),
    ],
)
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_damaged_file(idx_folder, change, words, suffix):
    path = idx_folder / "train-images-idx3-ubyte"
    data = change(path.read_bytes())
    path.unlink()
    (idx_folder / f"{path.name}{suffix}").write_bytes(gzip.compress(data) if suffix else data)
    message = refusal(idx_folder)
    assert words in message
    assert path.name + suffix in message


def test_damaged_gzip(idx_folder):
    path = idx_folder / "train-images-idx3-ubyte"
    packed = gzip.compress(path.read_bytes())
    path.unlink()
    for data in (packed[:-9], b"no gzip at all", b"", packed[:20] + b"\xff" * 20 + packed[40:]):
        (idx_folder / f"{path.name}.gz").write_bytes(data)
        assert f"{path.name}.gz" in refusal(idx_folder)


@pytest.mark.parametrize("packed", [False, True])
def test_random_damage_is_a_user_error_or_a_clean_read(idx_folder, packed):
    """Never another exception, and never a target that is no class."""
    rng = np.random.default_rng(0)
    refused = 0
    for name in PARTS:
        whole = (idx_folder / name).read_bytes()
        (idx_folder / name).unlink()
        path = idx_folder / (f"{name}.gz" if packed else name)
        whole = gzip.compress(whole) if packed else whole
        for _ in range(150):
            data = bytearray(whole[: rng.integers(0, len(whole) + 1)] if rng.random() < 0.5 else whole)
            for _ in range(rng.integers(0, 4) if data else 0):
                data[rng.integers(0, min(len(data), 40))] = rng.integers(256)
            path.write_bytes(data)
            try:
                found = load_classification(idx_folder)
            except UserError:
                refused += 1
            else:
                for source in (found.train, found.val):
                    assert len(source.targets) == len(source) > 0
                    assert max(source.targets) < len(found.classes)
        path.write_bytes(whole)
    assert 200 < refused < 600


def test_nothing_is_written_under_root(idx_folder):
    before = {path: path.stat().st_mtime_ns for path in [idx_folder, *idx_folder.rglob("*")]}
    load_classification(idx_folder)
    assert {path: path.stat().st_mtime_ns for path in [idx_folder, *idx_folder.rglob("*")]} == before
