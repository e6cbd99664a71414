"""`rfaconv data check` and `rfaconv data convert --masks`."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tools
from forms import write_voc, write_yolo
from PIL import Image

from rfaconv.cli import main
from rfaconv.data.check import check_data, guess_task
from rfaconv.data.segmentation import load_segmentation


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int:
    monkeypatch.setattr(sys, "argv", ["rfaconv", "data", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        main()
    return int(stopped.value.code or 0)


def test_boxes_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_voc(tmp_path / "<pets>")
    shutil.copy(root / "train" / "a.jpg", root / "valid" / "e.jpg")
    assert run(monkeypatch, "check", root, "--page", tmp_path / "page.html") == 0
    said = capsys.readouterr().out
    assert "detect: voc, 2 classes" in said
    assert "train: 4 images, all of 64 x 48 pixels" in said
    assert "  cat: 3, 1\n  dog: 3, 1\n" in said
    assert "the same image in training and another part: 1\n  train/a.jpg = valid/e.jpg" in said
    page = (tmp_path / "page.html").read_text()
    assert page.count("<img ") == 6
    assert "&lt;pets&gt;" in page
    assert "Training would take it." in page
    assert not re.search(r"https?://|<script|src='(?!data:)", page)


def test_what_training_would_refuse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_yolo(tmp_path / "set")
    (root / "train" / "labels" / "b.txt").write_text("1 0.9 0.5 0.4 0.2\n")
    (root / "train" / "images" / "a.jpg").write_bytes(b"no image")
    assert run(monkeypatch, "check", root, "--page", tmp_path / "page.html") == 2
    said = capsys.readouterr()
    assert "outside the image: 'train/labels/b.txt', line 1" in said.out
    assert "missing image: 'train/labels/a.txt'" in said.out
    assert said.err.startswith("Error: Training would refuse it: 2 issues in")
    assert len(said.err.strip().splitlines()) == 1
    assert "Training would refuse it" in (tmp_path / "page.html").read_text()


def test_broken_images_of_classes(two_classes: Path) -> None:
    (two_classes / "cat" / "0.png").write_bytes(b"no image")
    found = check_data(two_classes)
    assert found.task == "classify"
    assert found.refused is not None
    assert "'cat/0.png' (not an image" in found.refused
    assert sum(part.classes["cat"] for part in found.parts) == 4
    picture, said = found.parts[0].draw(0)
    assert (picture.size, said.partition(": ")[2]) == ((8, 6), "cat")


def test_idx_files_are_looked_at(idx_folder: Path) -> None:
    found = check_data(idx_folder)
    assert (found.layout, [part.count for part in found.parts], found.refused) == ("IDX files", [6, 4], None)
    assert found.parts[0].sizes == {(4, 5): 6}


def test_masks_are_counted_and_drawn(tmp_path: Path) -> None:
    found = check_data(tools.roboflow_masks(tmp_path))
    assert (found.task, found.classes, found.refused) == ("segment", tools.NAMES, None)
    assert [(part.name, part.count, part.classes["dog"]) for part in found.parts] == [
        ("train", 5, 5), ("val", 2, 2), ("test", 2, 2)
    ]  # fmt: skip
    plain = Image.open(tmp_path / "train" / "0_jpg.rf.0a1b.jpg")
    assert found.parts[0].draw(0)[0].size == plain.size


@pytest.mark.parametrize(
    ("writer", "task"),
    [
        (tools.label_img, "detect"),
        (tools.camvid, "segment"),
        (tools.black_and_white, "segment"),
        (tools.createml, "detect"),
    ],
)
def test_the_task_is_guessed(writer: Callable[[Path], Path], task: str, tmp_path: Path) -> None:
    assert guess_task(writer(tmp_path / "set")) == task


def test_an_empty_folder_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "check", tmp_path, "--page", tmp_path / "page.html") == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert run(monkeypatch, "check", tmp_path, "--task", "detct") == 2
    assert "Did you mean 'detect'?" in capsys.readouterr().err


@pytest.mark.parametrize("writer", [tools.roboflow_masks, tools.cvat_masks, tools.camvid, tools.ultralytics_polygons])
def test_masks_are_converted(writer: Callable[[Path], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = writer(tmp_path / "set")
    assert run(monkeypatch, "convert", root, tmp_path / "out", "--masks") == 0
    before, after = load_segmentation(root), load_segmentation(tmp_path / "out")
    assert after.classes == before.classes
    for one, other in ((before.train, after.train), (before.val, after.val), (before.test, after.test)):
        assert (one is None) == (other is None)
        for i in range(len(one or ())):
            assert one is not None
            assert other is not None
            assert np.array_equal(one.mask(i).numpy(), other.mask(i).numpy())
            assert np.array_equal(one.image(i).numpy(), other.image(i).numpy())


def test_masks_that_are_wrong_are_left_out_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tools.ultralytics_polygons(tmp_path / "set")
    (root / "labels" / "train" / "1.txt").write_text("0 0 0 0.5 0 0.5 1 0 1\n1 0.5 0.5 0.2 0.2\n")
    assert run(monkeypatch, "convert", root, tmp_path / "out", "--masks") == 2
    said = capsys.readouterr()
    assert "no outline: 'labels/train/1.txt', line 2: this 'dog' is a box alone" in said.out
    assert run(monkeypatch, "convert", root, tmp_path / "out", "--masks", "--lenient") == 0
    assert "repaired: 1 x no outline: object left out (1 boxes)" in capsys.readouterr().out
    assert (tmp_path / "out" / "issues.csv").is_file()
