"""Embedded scenes: exact, the same bits everywhere, nothing shared between the parts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from rfaconv.data.scenes import SCENE_CLASSES, load_scenes, render_scenes
from rfaconv.data.scenes.load import _material
from rfaconv.data.scenes.warp import resize, rotate, turn
from rfaconv.errors import UserError

# Of these pictures on any machine; they change with VERSION only.
FINGERPRINTS = {
    ("train", 12, 96, 0): "401f9e1b8b2cca00",
    ("test", 12, 96, 0): "bd2b3391f890fc29",
    ("train", 5, 160, 7): "dd23da4a7e71d316",
}


@pytest.mark.parametrize("arguments", FINGERPRINTS, ids=str)
def test_bits_are_those_of_every_other_machine(arguments: tuple[str, int, int, int]) -> None:
    assert render_scenes(*arguments).fingerprint == FINGERPRINTS[arguments]


def test_bits_do_not_depend_on_threads_or_hash_seeds() -> None:
    program = "from rfaconv.data.scenes import render_scenes; print(render_scenes('train', 12, 96, 0).fingerprint)"
    for variables in ({"PYTHONHASHSEED": "1", "OMP_NUM_THREADS": "1"}, {"PYTHONHASHSEED": "2", "LC_ALL": "C"}):
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True, env={**os.environ, **variables}
        )
        assert done.stdout.strip() == FINGERPRINTS["train", 12, 96, 0]


def test_boxes_labels_and_masks_say_the_same() -> None:
    scenes = render_scenes("train", 40, 96, 3)
    assert scenes.images.shape == (40, 96, 96, 3)
    assert scenes.masks.max() <= len(SCENE_CLASSES)
    seen = 0
    for i in range(len(scenes)):
        boxes, labels = scenes.items(i)
        assert len(boxes) == len(labels) == scenes.instances[i].max() >= 1
        for number, (box, label) in enumerate(zip(boxes.tolist(), labels.tolist(), strict=True), 1):
            inside = scenes.instances[i] == number
            assert set(scenes.masks[i][inside].tolist()) == {label + 1}
            left, top, right, bottom = box
            assert inside[top:bottom, left:right].sum() == inside.sum() > 0
            for edge in (inside[top, :], inside[bottom - 1, :], inside[:, left], inside[:, right - 1]):
                assert edge.any()
            seen += 1
        assert not scenes.masks[i][scenes.instances[i] == 0].any()
    assert seen == len(scenes.labels) == scenes.starts[-1]


def test_scenes_vary() -> None:
    scenes = render_scenes("train", 150, 64, 0)
    assert set(scenes.labels.tolist()) == set(range(10))
    assert set(np.diff(scenes.starts).tolist()) == {1, 2, 3, 4, 5}
    widths = scenes.boxes[:, 2] - scenes.boxes[:, 0]
    assert widths.max() > 2 * np.percentile(widths, 10)
    # Something in front: items that are not what they would be alone, in many scenes.
    assert 0.1 < (scenes.masks > 0).mean() < 0.4


def test_parts_share_neither_items_nor_photographs() -> None:
    train, test = _material("train"), _material("test")
    for kind in ("items", "photos"):
        first = {np.asarray(pixels).tobytes() for pixels in getattr(train, kind)}
        second = {np.asarray(pixels).tobytes() for pixels in getattr(test, kind)}
        assert first
        assert second
        assert not first & second
    assert (len(train.photos), len(test.photos)) == (6, 4)


def test_a_longer_set_begins_with_the_shorter_one_and_seeds_differ() -> None:
    short, long = render_scenes("test", 3, 64, 0), render_scenes("test", 5, 64, 0)
    assert np.array_equal(short.images, long.images[:3])
    assert np.array_equal(short.masks, long.masks[:3])
    assert not np.array_equal(short.images, render_scenes("test", 3, 64, 1).images)
    assert not np.array_equal(short.images, render_scenes("train", 3, 64, 0).images)


def test_drawn_once_then_read(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load_scenes(train=4, test=2, size=48)
    assert len(list((cache / "rfaconv" / "scenes").iterdir())) == 2

    def no(*_: object) -> None:
        raise AssertionError("drawn again")

    with monkeypatch.context() as patch:
        patch.setattr("rfaconv.data.scenes.load.render_scenes", no)
        assert load_scenes(train=4, test=2, size=48).fingerprint == first.fingerprint
    for path in (cache / "rfaconv" / "scenes").iterdir():
        path.write_bytes(path.read_bytes()[:100])
    assert load_scenes(train=4, test=2, size=48).fingerprint == first.fingerprint


def test_a_cache_that_cannot_be_written_costs_only_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert len(load_scenes(train=2, test=1, size=32).train) == 2


@pytest.mark.parametrize("wrong", [{"train": 0}, {"test": -1}, {"size": 31}])
def test_what_cannot_be_drawn_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(UserError, match="Scenes are at least one, of 32 pixels or more"):
        load_scenes(**{"train": 1, "test": 1, **wrong})


@pytest.mark.parametrize("step", [0, 17, 64, 200])
def test_rotation_is_torchs_up_to_rounding(step: int) -> None:
    """Whole numbers against floating point: the same geometry, so differences of a level or two."""
    pixels = _material("train").photos[0][:28, :28].copy()
    side = 40
    found = rotate(pixels, side, step)
    extent = len(found)
    cosine, sine = (value / 2**14 for value in turn(step))
    along = (2 * torch.arange(extent, dtype=torch.float64) + 1 - extent) / side
    x = along[None] * cosine + along[:, None] * sine
    y = along[:, None] * cosine - along[None] * sine
    image = torch.from_numpy(pixels).permute(2, 0, 1).double()[None]
    wanted = torch.nn.functional.grid_sample(image, torch.stack([x, y], 2)[None], align_corners=False)[0]
    assert (torch.from_numpy(found).permute(2, 0, 1) - wanted).abs().max() <= 2


def test_resizing_is_torchs_up_to_rounding() -> None:
    pixels = _material("train").photos[0]
    image = torch.from_numpy(pixels[:90, :90].copy()).permute(2, 0, 1).double()[None]
    wanted = torch.nn.functional.interpolate(image, (64, 64), mode="bilinear", align_corners=False)[0]
    assert (torch.from_numpy(resize(pixels, 90, 64)).permute(2, 0, 1) - wanted).abs().max() <= 1
