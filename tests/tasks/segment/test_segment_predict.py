"""Masks and overlays for files of any size and kind, and a clear answer for each that cannot be read."""

from __future__ import annotations

import io
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from rfaconv.data.scenes import render_scenes
from rfaconv.data.segmentation import voc_palette
from rfaconv.errors import UserError
from rfaconv.tasks.segment.infer import Manner
from rfaconv.tasks.segment.predict import predict_files, segment_one
from rfaconv.tasks.segment.record import SegmenterRecord

RECORD = SegmenterRecord(
    "deeplabv3plus", "resnet10", "rfa", ("none", "red", "green"), voc_palette(3), 64, 16,
    arguments={"decoder_channels": 16},
)  # fmt: skip


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    return RECORD.build().eval()


def photograph(width: int, height: int) -> Image.Image:
    return Image.fromarray(render_scenes("train", 1, 96, 4).images[0]).resize((width, height))


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


def odd_images() -> dict[str, bytes]:
    """Whole files of every kind that people have: all of them must give a mask."""
    photo = photograph(50, 40)
    found = {
        "grey.png": encoded(photo.convert("L"), "PNG"),
        "bits.png": encoded(photo.convert("1"), "PNG"),
        "palette.png": encoded(photo.convert("P"), "PNG"),
        "palette-clear.png": encoded(photo.convert("P"), "PNG", transparency=3),
        "palette-16.png": encoded(photo.quantize(16), "PNG", bits=4),
        "palette-2.png": encoded(photo.quantize(2), "PNG", bits=1),
        "alpha.png": encoded(photo.convert("RGBA"), "PNG"),
        "grey-alpha.png": encoded(photo.convert("LA"), "PNG"),
        "sixteen.png": encoded(Image.fromarray(np.arange(2000, dtype=np.uint16).reshape(40, 50) * 30), "PNG"),
        "sixteen.tif": encoded(Image.fromarray(np.arange(2000, dtype=np.uint16).reshape(40, 50)), "TIFF"),
        "cmyk.jpg": encoded(photo.convert("CMYK"), "JPEG"),
        "cmyk.tif": encoded(photo.convert("CMYK"), "TIFF"),
        "grey.jpg": encoded(photo.convert("L"), "JPEG"),
        "progressive.jpg": encoded(photo, "JPEG", progressive=True),
        "lab.tif": encoded(photo.convert("LAB"), "TIFF"),
        "still.webp": encoded(photo, "WEBP"),
        "moving.webp": encoded(photo, "WEBP", save_all=True, append_images=[photo.rotate(90)]),
        "moving.gif": encoded(photo, "GIF", save_all=True, append_images=[photo.rotate(9)]),
        "two.tif": encoded(photo, "TIFF", save_all=True, append_images=[photo]),
        "old.bmp": encoded(photo, "BMP"),
        "plain.ppm": encoded(photo, "PPM"),
        "wrong-suffix.jpg": encoded(photo, "PNG"),
    }
    exif = Image.Exif()
    exif[0x0112] = 6
    found["turned.jpg"] = encoded(photo, "JPEG", exif=exif)
    for width, height in ((1, 1), (1, 300), (300, 1), (2, 3), (31, 33), (65, 64), (7, 1000), (640, 90)):
        found[f"size-{width}x{height}.png"] = encoded(photograph(width, height), "PNG")
    return found


def broken_images(count: int) -> dict[str, bytes]:
    """Files cut short, with bytes changed, with bytes taken out, or that are something else altogether."""
    dice = random.Random(0)
    sources = [(name, data) for name, data in sorted(odd_images().items()) if len(data) > 60]
    found = {"empty.png": b"", "text.jpg": b"hello\n", "zeros.png": bytes(4000), "html.png": b"<html>404</html>"}
    while len(found) < count:
        name, data = dice.choice(sources)
        changed = bytearray(data)
        match dice.randrange(4):
            case 0:
                del changed[dice.randrange(len(changed)) :]
            case 1:
                for _ in range(dice.randrange(1, 40)):
                    changed[dice.randrange(len(changed))] = dice.randrange(256)
            case 2:
                start = dice.randrange(len(changed))
                del changed[start : start + dice.randrange(1, 60)]
            case 3:
                start = dice.randrange(min(64, len(changed)))  # the header
                changed[start : start + 4] = dice.randbytes(4)
        found[f"broken-{len(found)}-{name}"] = bytes(changed)
    return found


def test_500_odd_and_corrupted_files_each_get_a_clear_answer(model: nn.Module, tmp_path: Path) -> None:
    odd = odd_images()
    files = {**odd, **broken_images(500 - len(odd))}
    assert len(files) == 500
    folder = tmp_path / "in"
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    paths = [folder / name for name in sorted(files)]
    answers = list(predict_files(model, RECORD, paths, tmp_path / "out"))
    assert [answer.path for answer in answers] == paths
    read = 0
    for answer in answers:
        assert (answer.error is None) == (answer.mask is not None)
        if answer.error is not None:
            assert answer.path.name not in odd, answer
            assert answer.error.strip()
            assert len(answer.error.splitlines()) == 1
            assert not list((tmp_path / "out").glob(f"{answer.path.stem}.png")) or answer.path.name not in odd
            continue
        read += 1
        assert answer.mask is not None
        assert answer.overlay is not None
        with Image.open(answer.mask) as mask, Image.open(answer.overlay) as overlay:
            assert mask.mode == "P"
            assert mask.size == overlay.size
            assert np.asarray(mask).max() < 3
        assert sum(share for _, share in answer.shares) == pytest.approx(1)
    assert len(odd) <= read < 400
    with Image.open(next(a.mask for a in answers if a.path.name == "turned.jpg")) as turned:
        assert turned.size == (40, 50)


def test_masks_have_the_palette_and_keep_the_ids(model: nn.Module, tmp_path: Path) -> None:
    photograph(70, 50).save(tmp_path / "photo.png")
    written = next(predict_files(model, RECORD, [tmp_path / "photo.png"], tmp_path / "out"))
    image = torch.from_numpy(np.array(photograph(70, 50))).permute(2, 0, 1)
    wanted = segment_one(model, RECORD, image).numpy()
    assert written.mask == tmp_path / "out" / "photo.png"
    with Image.open(tmp_path / "out" / "photo.png") as mask:
        assert np.array_equal(np.asarray(mask), wanted)
        colours = np.asarray(mask.convert("RGB"))
    assert np.array_equal(colours, np.array(voc_palette(3), np.uint8)[wanted])
    with Image.open(tmp_path / "out" / "photo-overlay.png") as overlay:
        same = (np.asarray(overlay) == np.array(photograph(70, 50))).all(axis=2)
    assert same[wanted == 0].all()


def test_large_images_are_looked_at_in_windows(
    model: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photograph(700, 90).save(tmp_path / "wide.png")
    seen: list[int] = []
    model.register_forward_pre_hook(lambda _, given: seen.append(max(given[0].shape[2:])))
    list(predict_files(model, RECORD, [tmp_path / "wide.png"], tmp_path / "out"))
    assert len(seen) == 2
    assert max(seen) == 512
    list(predict_files(model, RECORD, [tmp_path / "wide.png"], tmp_path / "out", manner=Manner(flip=True, window=128)))
    assert max(seen[2:]) == 128


def test_images_of_one_name_do_not_overwrite_each_other(model: nn.Module, tmp_path: Path) -> None:
    paths = [tmp_path / "in" / name for name in ("a/x.png", "b/x.png", "b/x.jpg")]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        photograph(40, 40).save(path)
    written = [answer.mask for answer in predict_files(model, RECORD, paths, tmp_path / "out", overlays=False)]
    assert written == [tmp_path / "out" / name for name in ("a/x.png.png", "b/x.png.png", "b/x.jpg.png")]
    assert all(mask is not None and mask.is_file() for mask in written)


def test_an_image_is_never_written_over(model: nn.Module, tmp_path: Path) -> None:
    photograph(40, 40).save(tmp_path / "x.png")
    before = (tmp_path / "x.png").read_bytes()
    with pytest.raises(UserError, match="would be written over the image"):
        list(predict_files(model, RECORD, [tmp_path / "x.png"], tmp_path))
    assert (tmp_path / "x.png").read_bytes() == before
