"""A training: learns, resumes to the same numbers, refuses what is not its own, keeps its files whole."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from rfaconv.data import ClassificationData, load_classification
from rfaconv.errors import UserError
from rfaconv.tasks.callbacks import Progress
from rfaconv.tasks.checkpoint import load_model
from rfaconv.tasks.classify import ClassifyJob, evaluate, fit
from rfaconv.tasks.classify.fit import read_predictions
from rfaconv.tasks.recipe import Recipe


class StoppedError(Exception):
    """What a test stops a training with."""


def stop_after(epochs: float) -> object:
    def report(progress: Progress) -> None:
        if progress.done > epochs:
            raise StoppedError

    return report


def job(data: ClassificationData, recipe: Recipe, conv: str = "rfa", seed: int = 1) -> ClassifyJob:
    return ClassifyJob("resnet10s", conv, data, recipe, seed)


def test_learns_and_leaves_its_files(data: ClassificationData, recipe: Recipe, tmp_path: Path) -> None:
    seen: list[Progress] = []
    result = fit(job(data, recipe.changed({"epochs": 6})), tmp_path, report=seen.append)
    assert result.metrics["top1"] > 0.35  # chance is 0.1
    assert result.curves["train_loss"][-1] < result.curves["train_loss"][0]
    assert seen[-1].done == seen[-1].total == 6
    assert {path.name for path in tmp_path.iterdir()} == {
        "plan.json", "metrics.csv", "model.safetensors", "result.json",
    }  # fmt: skip
    rows = list(csv.DictReader((tmp_path / "metrics.csv").open()))
    assert [float(row["val_top1"]) for row in rows] == list(result.curves["val_top1"])


def test_the_saved_model_scores_what_the_training_said(
    data: ClassificationData, recipe: Recipe, tmp_path: Path
) -> None:
    result = fit(job(data, recipe), tmp_path)
    model, record = load_model(tmp_path)
    evaluation = evaluate(model, record, data, batch_size=50)
    assert evaluation.metrics["top1"] == result.metrics["top1"] == result.curves["val_top1"][-1]
    assert evaluation.metrics["loss"] == pytest.approx(result.metrics["loss"])
    assert evaluation.predictions == read_predictions(tmp_path)
    hits = sum(p == int(t) for p, t in zip(evaluation.predictions, data.val.targets, strict=True))
    assert evaluation.metrics["top1"] == pytest.approx(hits / len(data.val))


@pytest.mark.parametrize(
    "changes", [{}, {"ema_decay": 0.9, "gradient_clip": 1.0}, {"precision": "bf16-mixed"}], ids=str
)
def test_a_stopped_training_resumes_to_the_same_numbers(
    data: ClassificationData, recipe: Recipe, tmp_path: Path, changes: dict[str, object]
) -> None:
    wanted = fit(job(data, recipe.changed(changes)), tmp_path / "undisturbed")
    for after in (0.4, 1.5, 2.7):  # each time in the middle of another epoch
        with pytest.raises(StoppedError):
            fit(job(data, recipe.changed(changes)), tmp_path / "stopped", report=stop_after(after))
    found = fit(job(data, recipe.changed(changes)), tmp_path / "stopped")
    assert found.metrics == wanted.metrics
    assert found.curves == wanted.curves
    first, second = (load_model(tmp_path / name)[0].state_dict() for name in ("undisturbed", "stopped"))
    torch.testing.assert_close(first, second, rtol=0, atol=0)


def test_dropout_too_resumes_to_the_same_numbers(
    data: ClassificationData, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rfaconv.tasks import checkpoint

    plain = checkpoint.create_model
    monkeypatch.setattr(checkpoint, "create_model", lambda *a, **k: plain(*a, **k, drop_rate=0.3, drop_path_rate=0.2))
    wanted = fit(job(data, recipe), tmp_path / "undisturbed")
    with pytest.raises(StoppedError):
        fit(job(data, recipe), tmp_path / "stopped", report=stop_after(1.5))
    assert fit(job(data, recipe), tmp_path / "stopped").curves == wanted.curves


def test_a_finished_training_is_only_read(data: ClassificationData, recipe: Recipe, tmp_path: Path) -> None:
    result = fit(job(data, recipe), tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert fit(job(data, recipe), tmp_path, report=stop_after(0)) == result
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before


def test_workers_change_nothing(data: ClassificationData, recipe: Recipe, tmp_path: Path) -> None:
    from rfaconv.tasks.classify.fit import Machine

    alone = fit(job(data, recipe.changed({"epochs": 1})), tmp_path / "0")
    helped = fit(job(data, recipe.changed({"epochs": 1})), tmp_path / "2", machine=Machine(workers=2))
    assert alone.metrics == helped.metrics


def test_batches_depend_on_the_seed_alone(data: ClassificationData, recipe: Recipe) -> None:
    from rfaconv.tasks.classify.loaders import Loaders

    torch.manual_seed(5)
    first = list(Loaders(data, recipe, seed=1, workers=0).train_dataloader())
    torch.manual_seed(6)
    second = list(Loaders(data, recipe, seed=1, workers=0).train_dataloader())
    other = next(iter(Loaders(data, recipe, seed=2, workers=0).train_dataloader()))
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    assert not torch.equal(first[0][0], other[0])


def test_another_jobs_folder_is_refused(data: ClassificationData, recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(StoppedError):
        fit(job(data, recipe), tmp_path, report=stop_after(0.5))
    before = sorted(path.name for path in tmp_path.iterdir())
    for other, words in [
        (job(data, recipe, conv="ca"), "conv is 'rfa' there and 'ca' here"),
        (job(data, recipe.changed({"lr": 0.3})), "recipe.lr is 0.1 there and 0.3 here"),
        (job(replace(data, fingerprint="x"), recipe), "data.fingerprint is 'part' there"),
    ]:
        with pytest.raises(UserError, match=words):
            fit(other, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == before


@pytest.mark.parametrize("damage", [b"", b"half a file", b"PK\x03\x04"])
def test_damaged_files_are_named(data: ClassificationData, recipe: Recipe, tmp_path: Path, damage: bytes) -> None:
    with pytest.raises(StoppedError):
        fit(job(data, recipe), tmp_path, report=stop_after(1.5))
    (tmp_path / "last.ckpt").write_bytes(damage)
    with pytest.raises(UserError, match=r"last\.ckpt' cannot be read"):
        fit(job(data, recipe), tmp_path)
    (tmp_path / "model.safetensors").write_bytes(damage)
    with pytest.raises(UserError, match="is no model that rfaconv saved"):
        load_model(tmp_path)


def test_a_checkpoint_that_carries_code_is_not_run(data: ClassificationData, recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(StoppedError):
        fit(job(data, recipe), tmp_path, report=stop_after(1.5))
    torch.save({"state_dict": {}, "evil": Path("x")}, tmp_path / "last.ckpt")
    with pytest.raises(UserError, match="cannot be read"):
        fit(job(data, recipe), tmp_path)


def test_a_model_of_other_data_is_refused(data: ClassificationData, recipe: Recipe, tmp_path: Path) -> None:
    fit(job(data, recipe.changed({"epochs": 1})), tmp_path)
    model, record = load_model(tmp_path)
    with pytest.raises(UserError, match=r"takes images of 1 channels and .* has 3"):
        evaluate(model, record, replace(data, channels=3))
    with pytest.raises(UserError, match="among them 'hat', which the model does not know"):
        evaluate(model, record, replace(data, classes=("hat", *data.classes[1:])))


def test_a_diverged_training_stops_and_is_not_gone_on_with(
    data: ClassificationData, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where it was killed between the epoch and the result."""
    wild = job(data, recipe.changed({"lr": 1e30}))
    with monkeypatch.context() as patch:
        patch.setattr("rfaconv.tasks.training.write_result", lambda *args, **kwargs: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            fit(wild, tmp_path)
    assert (tmp_path / "last.ckpt").exists()
    result = fit(wild, tmp_path)
    assert (result.diverged, dict(result.metrics)) == (1, {})
    assert {len(values) for values in result.curves.values()} == {1}
    assert fit(wild, tmp_path).diverged == 1


COMMAND = [
    "-m", "rfaconv", "train", "--conv", "rfa", "--accelerator", "cpu", "--epochs", "1",
    "--set", "augment=none", "--set", "batch_size=500", "--no-tensorboard",
]  # fmt: skip


@pytest.mark.parametrize("launcher", ["torchrun", "lightning"])
def test_two_processes(launcher: str, tmp_path: Path) -> None:
    """Both launchers: one result, over all validation images, with the recipe's number of steps."""
    out = tmp_path / "run"
    start = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"] if launcher == "torchrun" else []
    devices = [] if launcher == "torchrun" else ["--devices", "2"]
    done = subprocess.run(
        [sys.executable, *start, *COMMAND, *devices, "--out", str(out)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("Model:") == 1
    result = json.loads((out / "result.json").read_text())
    assert len(result["predictions"]) == len(load_classification().val)
    assert result["curves"]["val_top1"][-1] == pytest.approx(result["metrics"]["top1"], abs=0.05)
    load_model(out)
