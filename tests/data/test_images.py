"""Decoding, channels, broken files and the cache of the check."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from rfaconv import UserError
from rfaconv.data import LabelledImages, load_classification


@pytest.fixture
def broken(two_classes) -> Path:
    """two_classes with a truncated JPEG, a text file and an empty file among the images."""
    data = (two_classes / "dog/0.jpg").read_bytes()
    (two_classes / "dog/cut.jpg").write_bytes(data[:-20])
    (two_classes / "dog/text.png").write_text("hello")
    (two_classes / "dog/empty.png").touch()
    return two_classes


def snapshot(root: Path) -> dict[str, tuple[int, int]]:
    return {str(p): (p.stat().st_size, p.stat().st_mtime_ns) for p in [root, *root.rglob("*")]}


def only(root: Path, name: str, channels: int | None = None) -> torch.Tensor:
    """The image `name` as the loader gives it."""
    data = load_classification(root, channels=channels)
    for source in (data.train, data.val):
        for i in range(len(source)):
            if source.name(i) == name:
                return source.image(i)
    raise AssertionError(name)


def test_broken_files_are_named_and_counted(broken):
    with pytest.raises(UserError) as caught:
        load_classification(broken)
    message = str(caught.value)
    assert "3 of 18 images" in message
    assert all(
        name in message for name in ("dog/cut.jpg", "dog/text.png", "dog/empty.png", "truncated", "not an image")
    )
    assert message.endswith("--skip-broken leaves such files out.")
    assert "\n" not in message


def test_only_the_first_broken_files_are_named(two_classes):
    for i in range(5):
        (two_classes / f"cat/bad{i}.png").touch()
    with pytest.raises(UserError, match=r"5 of 20 images.* and 2 more; --skip-broken"):
        load_classification(two_classes)


def test_skip_broken(broken):
    data = load_classification(broken, skip_broken=True)
    assert data.skipped == ("dog/cut.jpg", "dog/empty.png", "dog/text.png")
    assert len(data.train) + len(data.val) == 15
    for i in range(len(data.train)):
        assert data.train.image(i).dtype == torch.uint8


def test_skipping_must_not_empty_a_class(two_classes):
    for path in (two_classes / "cat").iterdir():
        path.write_bytes(b"x")
    with pytest.raises(UserError, match="No image of class 'cat' in the readable images"):
        load_classification(two_classes, skip_broken=True)


def test_without_verification_the_file_is_named_on_access(broken):
    data = load_classification(broken, verify=False)
    assert data.skipped == ()
    refused = []
    for source in (data.train, data.val):
        for i in range(len(source)):
            if source.name(i) in ("dog/cut.jpg", "dog/text.png", "dog/empty.png"):
                with pytest.raises(UserError, match=f"{source.name(i)}' cannot be read") as caught:
                    source.image(i)
                refused.append(str(caught.value))
    assert len(refused) == 3
    assert "\n" not in "".join(refused)


def test_dangling_link_is_missing(two_classes):
    (two_classes / "cat/gone.png").symlink_to(two_classes / "nowhere.png")
    with pytest.raises(UserError, match=r"'cat/gone.png' \(missing\)"):
        load_classification(two_classes, verify=False)


def test_decompression_bomb_is_broken(two_classes, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 8 * 6)
    Image.new("RGB", (50, 50)).save(two_classes / "cat/bomb.png")
    assert load_classification(two_classes, skip_broken=True).skipped == ("cat/bomb.png",)


def test_progress_and_cache(two_classes, cache):
    calls: list[tuple[int, int]] = []
    load_classification(two_classes, progress=lambda done, total: calls.append((done, total)))
    assert calls[-1] == (15, 15)
    assert len(list(cache.rglob("*.json"))) == 2  # what is broken, and what is small
    calls.clear()
    load_classification(two_classes, progress=lambda done, total: calls.append((done, total)))
    assert calls == []
    os.utime(two_classes / "cat/0.png", ns=(1, 1))
    load_classification(two_classes, progress=lambda done, total: calls.append((done, total)))
    assert calls


def test_cache_remembers_what_is_broken_until_it_is_mended(broken):
    for _ in range(2):
        with pytest.raises(UserError, match="3 of 18"):
            load_classification(broken)
    for name in ("dog/cut.jpg", "dog/text.png", "dog/empty.png"):
        Image.new("RGB", (4, 4)).save(broken / name)
    assert len(load_classification(broken).skipped) == 0


@pytest.mark.parametrize("text", ["", "[]", '{"broken": 3}', "{}"])
def test_damaged_cache_is_computed_again(broken, cache, text):
    with pytest.raises(UserError):
        load_classification(broken)
    (stored,) = cache.rglob("*.json")
    stored.write_text(text)
    with pytest.raises(UserError, match="3 of 18"):
        load_classification(broken)


def test_unwritable_cache_is_ignored(two_classes, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert len(load_classification(two_classes).train) == 12


def test_nothing_is_written_under_root(broken, monkeypatch):
    before = snapshot(broken)
    load_classification(broken, skip_broken=True)
    monkeypatch.setenv("XDG_CACHE_HOME", str(broken / "cache"))
    load_classification(broken, skip_broken=True)
    with pytest.raises(UserError):
        load_classification(broken)
    assert snapshot(broken) == before


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"])
@pytest.mark.parametrize("channels", [1, 3, None])
def test_modes_become_channels(two_classes, mode, channels):
    suffix = "tif" if mode == "CMYK" else "png"
    image = Image.fromarray(np.full((6, 8), 51 * 257, np.uint16)) if mode == "I;16" else Image.new("RGB", (8, 6))
    (image if mode == "I;16" else image.convert(mode)).save(two_classes / f"cat/x.{suffix}")
    read = only(two_classes, f"cat/x.{suffix}", channels)
    assert read.shape == (channels or 3, 6, 8)
    assert read.dtype == torch.uint8
    assert read.unique().tolist() == [51 if mode == "I;16" else 0]


def test_alpha_is_dropped(two_classes):
    Image.new("RGBA", (4, 4), (10, 20, 30, 0)).save(two_classes / "cat/x.png")
    assert only(two_classes, "cat/x.png")[:, 0, 0].tolist() == [10, 20, 30]


def test_palette_with_transparency(two_classes, recwarn):
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    image.save(two_classes / "cat/x.png", transparency=b"\xff\x00")
    assert only(two_classes, "cat/x.png")[:, 0, 0].tolist() == [10, 20, 30]
    assert not recwarn.list


def test_exif_orientation_is_applied(two_classes):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    Image.new("RGB", (8, 4)).save(two_classes / "cat/x.jpg", exif=exif)
    assert only(two_classes, "cat/x.jpg").shape == (3, 8, 4)


def test_damaged_exif_does_no_harm(two_classes):
    Image.new("RGB", (8, 4)).save(two_classes / "cat/x.jpg", exif=b"Exif\x00\x00junk of no meaning")
    assert only(two_classes, "cat/x.jpg").shape == (3, 4, 8)


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (Image.new("F", (4, 4)), "floating-point"),
        (Image.new("LAB", (4, 4)), "mode LAB cannot be turned into 1 channel\\(s\\)"),
        (Image.fromarray(np.full((4, 4), 70000, np.int32)), "more than 16 bits"),
    ],
)
def test_modes_without_a_conversion_are_refused(two_classes, image, words):
    image.save(two_classes / "cat/x.tif")
    with pytest.raises(UserError, match=words):
        load_classification(two_classes, channels=1)


def test_random_damage_is_a_user_error(two_classes):
    rng = np.random.default_rng(0)
    for name in ("cat/0.png", "dog/0.jpg"):
        whole = (two_classes / name).read_bytes()
        for _ in range(60):
            data = bytearray(whole[: rng.integers(1, len(whole) + 1)])
            for place in rng.integers(0, len(data), 3):
                data[place] = rng.integers(256)
            (two_classes / name).write_bytes(data)
            source = LabelledImages(load_classification(two_classes, verify=False).train, lambda image: image)
            for i in range(len(source)):
                with contextlib.suppress(UserError):
                    assert source[i][0].shape[0] == 3
        (two_classes / name).write_bytes(whole)
