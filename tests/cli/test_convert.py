"""`rfaconv convert`, and `--start`, as they are typed."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import timm
import torch
from PIL import Image

import rfaconv
from rfaconv.cli import main
from rfaconv.data import load_classification

SHORT = ["--accelerator", "cpu", "--data", "clothes", "--set", "augment=none", "--set", "image_size=32"]


def clothes(folder: Path) -> None:
    """Folders of two classes of the embedded images."""
    data = load_classification()
    for name, label in (("shirts", 0), ("trousers", 1)):
        (folder / name).mkdir(parents=True)
        found = [index for index in range(len(data.val)) if int(data.val.targets[index]) == label][:60]
        for index in found:
            Image.fromarray(data.val.image(index)[0].numpy()).save(folder / name / f"{index}.png")


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["rfaconv", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        main()
    if stopped.value.code:
        raise SystemExit(stopped.value.code)


def test_a_trained_classifier_converts_and_trains_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    clothes(tmp_path / "clothes")
    model = ["--model", "resnet10s"]
    run(monkeypatch, "train", *model, "--conv", "conv", "--epochs", 3, "--out", "plain", "--no-tensorboard", *SHORT)
    run(monkeypatch, "convert", "plain", "-o", "new.safetensors", "--conv", "rfcbam", "--data", "clothes")
    said = " ".join(capsys.readouterr().out.split())
    assert "4 convolutions became 'rfcbam', 10 stayed." in said
    assert "24 of 24 images get the same class." in said
    run(monkeypatch, "eval", "plain", "--data", "clothes")
    run(monkeypatch, "eval", "new.safetensors", "--data", "clothes")
    scores = [line for line in capsys.readouterr().out.splitlines() if line.startswith("top1")]
    assert len(scores) == 2
    assert scores[0] == scores[1]
    run(
        monkeypatch, "compare", *model, "--start", "plain", "--convs", "rfa", "--seeds", 1, "--epochs", 1,
        "--set", "lr=0.001", "--out", "tuned", "--jobs", 1, *SHORT,
    )  # fmt: skip
    report = json.loads((tmp_path / "tuned" / "report.json").read_text())
    top1 = [entry["metrics"]["top1"] for entry in report["runs"]]
    assert min(top1) >= 0.9 * float(scores[0].split()[1]) > 0.5
    assert "plain/model.safetensors" in (tmp_path / "tuned" / "report.html").read_text()


def test_any_model_from_a_state_dict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    plain, x = timm.create_model("resnet10t", num_classes=4).eval(), torch.randn(2, 3, 64, 64)
    torch.save(plain.state_dict(), "plain.pth")
    options = ["--base", "timm:resnet10t", "--arg", "num_classes=4", "-o", "new.safetensors"]
    run(monkeypatch, "convert", "plain.pth", *options, "--where", "resnet")
    assert "Not verified" in capsys.readouterr().out
    with torch.no_grad():
        torch.testing.assert_close(rfaconv.load("new.safetensors")(x), plain(x), rtol=1e-4, atol=1e-5)

    for index in range(12):
        folder = tmp_path / "photos" / "ab"[index % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.effect_noise((40, 50), 60 + index).convert("RGB").save(folder / f"{index}.png")
    run(monkeypatch, "convert", "plain.pth", *options, "--data", "photos", "--size", 64)
    said = capsys.readouterr().out
    assert "Verified on" in said
    assert "conv1.0" in said  # the stem, whose input only the images bound
    with torch.no_grad():
        torch.testing.assert_close(rfaconv.load("new.safetensors")(x), plain(x), rtol=1e-4, atol=1e-5)
