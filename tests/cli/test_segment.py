"""Segmentation on the command line: one small comparison from start to masks, and what is refused."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from rfaconv.cli import main
from rfaconv.data.scenes import render_scenes
from told import assert_mistake

QUICK = [
    "--task", "segment", "--model", "resnet10", "--epochs", "2", "--set", "image_size=64", "--set", "batch_size=8",
    "--arg", "decoder_channels=16", "--accelerator", "cpu",
]  # fmt: skip
COMPARE = ["compare", *QUICK, "--convs", "conv,ca", "--seeds", "2", "--jobs", "2", "--out", "out"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scenes as files: train/ and val/ with images/ and masks/."""
    root = tmp_path_factory.mktemp("scenes") / "set"
    for part, count, source in (("train", 24, "train"), ("val", 8, "test")):
        scenes = render_scenes(source, count, 64, 0)
        for i in range(count):
            for kind, pixels in (("images", scenes.images), ("masks", scenes.masks)):
                path = root / part / kind / f"{i:02}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels[i]).save(path)
    return root


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "rfaconv", *map(str, arguments)]


def rfaconv(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COLUMNS": "110", "NO_COLOR": "1"}
    return subprocess.run(
        command(*arguments), capture_output=True, text=True, check=False, cwd=cwd, env=environment, timeout=600
    )


def results(out: Path) -> dict[str, Any]:
    """Everything of a comparison but its times."""
    report: dict[str, Any] = json.loads((out / "report.json").read_text())
    for run in report["runs"]:
        run.pop("seconds")
    return {name: report[name] for name in ("runs", "convs", "metric", "test_size")}


@pytest.fixture(scope="module")
def compared(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished comparison of two convolutions with two seeds."""
    cwd = tmp_path_factory.mktemp("compared")
    done = rfaconv(
        "compare",
        *QUICK,
        "--data",
        folder,
        "--convs",
        "conv,ca",
        "--seeds",
        "2",
        "--jobs",
        "2",
        "--out",
        "out",
        cwd=cwd,
    )
    assert done.returncode == 0, done.stderr
    assert "mean IoU" in done.stdout
    return cwd / "out"


def test_the_report_has_the_pictures(compared: Path) -> None:
    page = (compared / "report.html").read_text()
    assert "IoU of each class" in page
    names = re.findall(r'<figure[^>]*><img alt="([^"]*)"', page)
    assert names[:5] == ["image", "truth", "conv", "ca", "where they differ"]
    assert len(names) == 5 * 8
    report = json.loads((compared / "report.json").read_text())
    assert report["task"] == "segment"
    assert report["metric"] == {"key": "miou", "label": "mean IoU", "higher_is_better": True, "counts_images": False}
    assert report["test_size"] == 8
    assert {run["conv"] for run in report["runs"]} == {"conv", "ca"}
    assert set(report["runs"][0]["metrics"]) == {"miou", "pixel_accuracy", "loss"}
    assert "deeplabv3plus on resnet10, output stride 16" in report["facts"]["network"]
    assert "8 images of 3 x 64 x 64" in report["facts"]["costs measured with"]


def test_a_killed_comparison_goes_on_to_the_same_numbers(compared: Path, folder: Path, tmp_path: Path) -> None:
    words = command(*COMPARE, "--data", folder)
    process = subprocess.Popen(words, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while not list(tmp_path.glob("out/runs/*/last.ckpt")):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    assert results(tmp_path / "out") == results(compared)


def test_train_eval_and_predict(folder: Path, tmp_path: Path) -> None:
    done = rfaconv("train", *QUICK, "--data", folder, "--conv", "rfca", "--no-tensorboard", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "runs" / "deeplabv3plus-resnet10-rfca-seed0"
    miou = json.loads((run / "result.json").read_text())["metrics"]["miou"]
    assert f"miou {miou:.4f}" in done.stdout
    done = rfaconv("eval", run, "--data", folder, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert re.search(rf"miou +{miou:.4f}", done.stdout)
    assert "IoU 0" in done.stdout
    done = rfaconv("eval", run, "--data", folder, "--scales", "0.75,1,1.5", "--flip", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    broken = tmp_path / "photos" / "broken.png"
    broken.parent.mkdir()
    broken.write_bytes(b"no")
    Image.fromarray(np.zeros((30, 70, 3), np.uint8)).save(tmp_path / "photos" / "fine.png")
    done = rfaconv("predict", run, "photos", "--out", "answers", "--window", "64", cwd=tmp_path)
    assert done.returncode == 2
    assert "photos/broken.png: not an image that PIL knows" in done.stdout
    assert done.stderr.strip() == "Error: 1 of 2 files could not be read, e.g. 'photos/broken.png'."
    with Image.open(tmp_path / "answers" / "fine.png") as mask:
        assert (mask.size, mask.mode) == ((70, 30), "P")
    assert (tmp_path / "answers" / "fine-overlay.png").is_file()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["compare", "--task", "segmnt"], "Unknown task 'segmnt'. Did you mean 'segment'?"),
        (["compare", "--arch", "unet"], "--arch is for --task segment."),
        (["train", "--output-stride", "8"], "--output-stride is for --task segment."),
        (["train", "--task", "segment", "--arch", "unett"], "Unknown architecture 'unett'. Did you mean 'unet'?"),
        (["train", "--task", "segment", "--model", "resnet10s"], "Unknown encoder 'resnet10s'."),
        (["train", "--task", "segment", "--output-stride", "9"], "cannot be built on resnet10"),
        (["train", "--task", "segment", "--arg", "decoder_channels"], "--arg takes name=value"),
        (["train", "--task", "segment", "--arg", "channels=3"], "Unknown argument of deeplabv3plus 'channels'."),
        (["train", "--task", "segment", "--where", "head"], "Unknown place 'head'."),
        (["train", "--task", "segment", "--channels", "1"], "--channels is for --task classify"),
        (["train", "--task", "segment", "--recipe", "paper"], "Unknown recipe 'paper'."),
        (["train", "--task", "segment", "--set", "augment=imagenet"], "Unknown augment of the recipe 'imagenet'."),
        (["train", "--task", "segment", "--set", "image_size=8"], "image_size must be at least 32"),
        (["train", "--task", "segment", "--weights", "none.pth"], "There is no weights file 'none.pth'"),
        (["train", "--task", "segment", "--data", "nowhere"], "nowhere"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_mistake_is_one_sentence_and_exit_code_2(
    arguments: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert_mistake(arguments, words, tmp_path, monkeypatch, capsys)


def test_manners_are_for_segmentation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import rfaconv as package
    from rfaconv.tasks.checkpoint import ModelRecord, save_model

    record = ModelRecord("resnet10s", "conv", ("a", "b"), 1, 28, "resize")
    save_model(tmp_path / "model.safetensors", package.create_model("resnet10s", num_classes=2, in_chans=1), record)
    monkeypatch.setattr(sys, "argv", ["rfaconv", "eval", str(tmp_path), "--flip"])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    assert "--scales, --flip and --window are for segmentation models." in capsys.readouterr().err
