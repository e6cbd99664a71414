"""The command line as its users meet it; where it matters, in processes of its own."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from rfaconv import create_model
from rfaconv.data import load_classification
from rfaconv.locks import folder_lock
from rfaconv.tasks.checkpoint import ModelRecord, save_model
from told import assert_mistake

QUICK = ["--epochs", "1", "--set", "augment=none", "--set", "batch_size=512", "--accelerator", "cpu"]


def rfaconv(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COLUMNS": "100", "NO_COLOR": "1"}
    return subprocess.run(
        [sys.executable, "-m", "rfaconv", *arguments],
        capture_output=True, text=True, check=False, cwd=cwd, env=environment, timeout=300,
    )  # fmt: skip


@pytest.mark.parametrize(
    "command",
    ["compare", "data convert", "train", "eval", "convert", "predict", "info", "profile layers", "profile models"],
)
def test_help_shows_an_example(command: str) -> None:
    done = rfaconv(*command.split(), "--help")
    assert done.returncode == 0, done.stderr
    assert "Example" in done.stdout
    assert f"rfaconv {command}" in done.stdout.replace("Usage: rfaconv", "")


OUT = ["-o", "out.safetensors"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["compare", "--convs", "rfa,rfcban"], "Unknown convolution 'rfcban'. Did you mean 'rfcbam'?"),
        (["compare", "--model", "resnet81"], "Unknown model 'resnet81'. Did you mean 'resnet18'?"),
        (["compare", "--recipe", "smal"], "Unknown recipe 'smal'. Did you mean 'small'?"),
        (["compare", "--seeds", "0"], "--seeds is how many trainings of each: at least 1, got 0."),
        (["compare", "--data", "nowhere"], "nowhere"),
        (["compare", "--plugin", "nothing.py"], "There is no plugin file 'nothing.py'."),
        (["train", "--conv", "rfx"], "Unknown convolution 'rfx'."),
        (["train", "--seed", "-1"], "A seed is 0 or more, got -1."),
        (["train", "--set", "lr"], "--set takes name=value"),
        (["train", "--accelerator", "tpu"], "--accelerator is auto, cpu or gpu"),
        (["eval", "nowhere"], "There is no model 'nowhere'"),
        (["convert", "nowhere", *OUT], "There is no model 'nowhere'"),
        (["convert", "x.pth", "--where", "resnet", *OUT], "--where and --arg go with --base"),
        (["convert", "x.pth", "--base", "resnet18", *OUT], "must begin with timm:, torchvision: or smp:"),
        (["convert", "x.pth", "--base", "timm:resnet18", *OUT], "There is no file 'x.pth' with weights"),
        (["convert", "x.pth", "--base", "timm:resnet18", "--arg", "num_classes", *OUT], "--arg takes name=value"),
        (
            ["convert", "x.pth", "--base", "timm:resnet18", "--arg", "classes=3", *OUT],
            "timm:resnet18 cannot be built with",
        ),
        (["convert", "x.pth", "--base", "timm:resnet18", "--data", "nowhere", *OUT], "nowhere"),
        (["convert", "nowhere", "--conv", "rfaa", *OUT], "Unknown convolution 'rfaa'. Did you mean 'rfa'"),
        (["predict", "nowhere", "x.png"], "There is no model 'nowhere'"),
        (["profile", "layers", "--convs", "rfx"], "Unknown convolution 'rfx'."),
        (["profile", "layers", "--shape", "8x64x56"], "'8x64x56' is no shape: write the input as BxCxHxW"),
        (["profile", "layers", "--shape", "8x64x56x28"], "inputs are square"),
        (["profile", "layers", "--plot", "layers.pdf"], "A plot is a .png or .svg file, got 'layers.pdf'."),
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
    assert not list(tmp_path.iterdir())


def test_a_mistake_has_no_traceback(tmp_path: Path) -> None:
    done = rfaconv("compare", "--convs", "rfcban", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("Error: Unknown convolution 'rfcban'. Did you mean 'rfcbam'?")
    assert len(done.stderr.splitlines()) == 1


def test_an_unknown_command_or_option_answers_with_the_nearest() -> None:
    assert "compare" in rfaconv("comprae").stderr
    assert "--convs" in rfaconv("compare", "--cons", "rfa").stderr
    assert rfaconv("comprae").returncode == 2


def test_info_names_what_there_is() -> None:
    done = rfaconv("info")
    assert done.returncode == 0, done.stderr
    for word in ("torch", "rfcbam", "resnet18", "paper", "reference"):
        assert word in done.stdout


def test_profile_layers_at_shapes_of_ones_own(tmp_path: Path) -> None:
    shapes = ["--shape", "2x4x6x6to8s2k5", "--shape", "1x4x6x6", "--shape", "2x4x6x6 to 8 s2 k5"]
    files = ["--csv", "layers.csv", "--markdown", "layers.md", "--plot", "new/layers.svg"]
    options = ["--convs", "rfa,ca", *shapes, "--rounds", "1", "--threads", "1", *files]
    done = rfaconv("profile", "layers", *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Written: new/layers.svg" in done.stdout
    rows = list(csv.DictReader((tmp_path / "layers.csv").open()))
    assert [(row["conv"], row["stride"], row["kernel_size"], row["threads"]) for row in rows] == [
        ("rfa", "2", "5", "1"),
        ("ca", "2", "5", "1"),
        ("rfa", "1", "3", "1"),
        ("ca", "1", "3", "1"),
    ]
    assert "threads 1;" in (tmp_path / "layers.md").read_text()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["layers.svg"]
    assert "2x4x6x6 to 8 s2 k5" in done.stdout
    assert "2x4x6x6 to 8 s2 k5" in (tmp_path / "new" / "layers.svg").read_text()


def folder_of_images(root: Path, per_class: int = 12) -> Path:
    """Class folders of real images, as PNG files."""
    source = load_classification().train
    counts: dict[int, int] = {}
    for index, target in enumerate(source.targets):
        name = int(target)
        if name < 2 and counts.get(name, 0) < per_class:
            counts[name] = counts.get(name, 0) + 1
            path = root / ("shirts", "trousers")[name] / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(source.image(index)[0].numpy()).resize((40, 36)).save(path)
    return root


def test_train_eval_predict_on_a_folder_of_ones_own(tmp_path: Path) -> None:
    images = folder_of_images(tmp_path / "clothes")
    small = ["--model", "resnet10s", "--set", "image_size=32", "--set", "batch_size=8", "--epochs", "2"]
    trained = rfaconv("train", "--data", str(images), "--conv", "rfca", *small, "--out", "run", cwd=tmp_path)
    assert trained.returncode == 0, trained.stderr
    assert "Model: run/model.safetensors" in trained.stdout
    assert list((tmp_path / "run" / "tensorboard").rglob("events*"))

    evaluated = rfaconv("eval", "run", "--data", str(images), cwd=tmp_path)
    metrics = json.loads((tmp_path / "run" / "result.json").read_text())["metrics"]
    assert f"top1   {metrics['top1']:.4f}" in evaluated.stdout

    (tmp_path / "clothes" / "broken.png").write_bytes(b"no image")
    predicted = rfaconv("predict", "run", "clothes", "--out", "found.csv", cwd=tmp_path)
    assert predicted.returncode == 2
    assert "1 of 25 files could not be read, e.g. 'clothes/broken.png'" in predicted.stderr
    rows = list(csv.DictReader((tmp_path / "found.csv").open()))
    assert len(rows) == 25
    assert {row["class1"] for row in rows if not row["error"]} <= {"shirts", "trousers"}
    assert all(float(row["probability1"]) >= float(row["probability2"]) for row in rows if not row["error"])


def test_a_table_is_never_written_over_an_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    record = ModelRecord("resnet10s", "conv", ("a", "b"), 1, 28, "resize")
    save_model(tmp_path / "model.safetensors", create_model("resnet10s", num_classes=2, in_chans=1), record)
    for name in ("photo.png", "other.jpg"):
        Image.new("L", (28, 28)).save(tmp_path / name)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for out in ("photo.png", "other.jpg", "new.png"):
        words = ["predict", "model.safetensors", "photo.png", "--out", out]
        assert_mistake(words, f"'{out}' is an image; choose another --out.", tmp_path, monkeypatch, capsys)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_training_that_diverges_says_so_and_ends_with_3(tmp_path: Path) -> None:
    """Once more it is read, not trained; and one command a folder."""
    options = ["--model", "resnet10s", "--set", "lr=1e30", *QUICK, "--epochs", "4", "--out", "run", "--no-tensorboard"]
    for _ in range(2):
        done = rfaconv("train", *options, cwd=tmp_path)
        assert done.returncode == 3, done.stderr
        assert "seed 0: diverged at epoch 1" in " ".join(done.stdout.split())
        assert "Model:" not in done.stdout
        found = json.loads((tmp_path / "run" / "result.json").read_text())
        assert (found["diverged"], found["metrics"], len(found["curves"]["train_loss"])) == (1, {}, 1)
        assert not list((tmp_path / "run").glob("*.safetensors"))
    with folder_lock(tmp_path / "run"):
        held = rfaconv("train", *options, cwd=tmp_path)
    assert held.returncode == 2
    assert "'run' is in use by process" in held.stderr


def test_a_broken_image_stops_before_training_or_is_left_out(tmp_path: Path) -> None:
    images = folder_of_images(tmp_path / "clothes")
    (images / "shirts" / "bad.png").write_bytes(b"\x89PNG\r\n")
    options = ["--data", str(images), "--model", "resnet10s", "--set", "image_size=32", *QUICK, "--out", "run"]
    stopped = rfaconv("train", *options, cwd=tmp_path)
    assert stopped.returncode == 2
    assert "bad.png" in stopped.stderr
    assert not (tmp_path / "run").exists()
    done = rfaconv("train", *options, "--skip-broken", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Left out 1 unreadable images" in done.stdout


PLUGIN = """
import rfaconv
from torch import nn
rfaconv.register_attention("idle", lambda channels: nn.Identity())
"""


def accuracies(out: Path) -> list[Any]:
    report = json.loads((out / "report.json").read_text())
    return [
        [run["conv"], run["seed"], run["metrics"], run["curves"]["train_loss"], run["curves"]["val_top1"]]
        for run in report["runs"]
    ]


def stop_in_the_middle(command: list[str], cwd: Path, out: Path, how: signal.Signals) -> subprocess.Popen[str]:
    """Send the comparison a signal once a checkpoint of a run lies there, so in the middle of a training."""
    process = subprocess.Popen(
        command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # who starts us in the background ignores it
    )  # fmt: skip
    deadline = time.monotonic() + 300
    while not list(out.glob("runs/*/last.ckpt")) and time.monotonic() < deadline:
        assert process.poll() is None, "the comparison ended before it could be stopped"
        time.sleep(0.02)
    if how == signal.SIGKILL:
        process.send_signal(how)
    else:
        os.killpg(process.pid, how)  # as a terminal does
    process.wait(timeout=30)
    assert list(out.glob("runs/*/last.ckpt"))
    assert not (out / "report.json").exists()
    return process


def comparison(tmp_path: Path, jobs: str) -> list[str]:
    """The arguments of a short comparison on files, with a layer of the user's own."""
    (tmp_path / "mine.py").write_text(PLUGIN)
    folder_of_images(tmp_path / "clothes", per_class=100)
    return [
        "compare", "--data", "clothes", "--model", "resnet10s", "--convs", "rfa,rfidle", "--plugin", "mine.py",
        "--seeds", "2", "--jobs", jobs, "--epochs", "3", "--set", "image_size=32", "--accelerator", "cpu",
    ]  # fmt: skip


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_a_killed_comparison_ends_with_the_same_table(jobs: str, tmp_path: Path) -> None:
    options = comparison(tmp_path, jobs)
    whole = rfaconv(*options, "--out", "whole", cwd=tmp_path)
    assert whole.returncode == 0, whole.stderr
    assert "Report: whole/report.html" in whole.stdout
    command = [sys.executable, "-m", "rfaconv", *options, "--out", "killed"]
    stop_in_the_middle(command, tmp_path, tmp_path / "killed", signal.SIGKILL)
    again = rfaconv(*options, "--out", "killed", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert accuracies(tmp_path / "killed") == accuracies(tmp_path / "whole")

    # A third start has nothing left to do and prints the same table; another comparison is refused there.
    third = rfaconv(*options, "--out", "killed", cwd=tmp_path)
    assert third.stdout.partition("verdict")[2] == again.stdout.partition("verdict")[2] != ""
    other = rfaconv(*options, "--seeds", "3", "--out", "killed", cwd=tmp_path)
    assert other.returncode == 2
    assert "holds another run: seeds is [0, 1] there and [0, 1, 2] here" in other.stderr


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_ctrl_c_stops_at_once_and_says_what_to_do(jobs: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "rfaconv", *comparison(tmp_path, jobs), "--out", "stopped"]
    process = stop_in_the_middle(command, tmp_path, tmp_path / "stopped", signal.SIGINT)
    output, errors = process.communicate()
    assert process.returncode == 130
    assert "Stopped; the same command goes on where it was." in output
    assert "Traceback" not in errors
    deadline = time.monotonic() + 20
    while somebody_left(process.pid):  # Python's own resource tracker goes last
        assert time.monotonic() < deadline, "a process of the comparison is still there"
        time.sleep(0.1)


def somebody_left(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
