"""A training of a segmentation model: learns, resumes to the same numbers, shares a batch between processes exactly."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import rfaconv
from rfaconv.data.scenes import render_scenes
from rfaconv.data.segmentation import SegmentationData
from rfaconv.data.segmentation.sources import SceneImages
from rfaconv.errors import UserError
from rfaconv.tasks.callbacks import Progress
from rfaconv.tasks.checkpoint import load_model
from rfaconv.tasks.recipe import load_recipe, parse_setting, recipe_names
from rfaconv.tasks.segment import Manner, Network, SegmentJob, evaluate, fit
from rfaconv.tasks.segment.recipe import SegmentRecipe


class StoppedError(Exception):
    """What a test stops a training with."""


def stop_after(epochs: float) -> Any:
    def report(progress: Progress) -> None:
        if progress.done > epochs:
            raise StoppedError

    return report


def test_learns_and_leaves_its_files(
    scenes: SegmentationData, recipe: SegmentRecipe, network: Network, tmp_path: Path
) -> None:
    result = fit(SegmentJob(network, "rfa", scenes, recipe.changed({"epochs": 4}), 1), tmp_path)
    assert result.curves["train_loss"][-1] < 0.8 * result.curves["train_loss"][0]
    assert {path.name for path in tmp_path.iterdir()} == {
        "plan.json", "metrics.csv", "model.safetensors", "result.json",
    }  # fmt: skip
    assert set(result.metrics) == {"miou", "pixel_accuracy", "loss"}
    found = json.loads((tmp_path / "result.json").read_text())
    assert len(found["class_iou"]) == len(scenes.classes)
    assert len(found["image_accuracy"]) == len(scenes.val)
    model, record = load_model(tmp_path)
    assert (record.task, record.conv, record.classes, record.palette) == (
        "segment",
        "rfa",
        scenes.classes,
        scenes.palette,
    )
    again = evaluate(model, record, scenes, batch_size=5)
    assert again.metrics["miou"] == pytest.approx(result.metrics["miou"], abs=1e-6)
    assert again.metrics["miou"] == pytest.approx(result.curves["val_miou"][-1], abs=1e-6)
    assert sum(again.image_accuracy) / len(again.image_accuracy) == pytest.approx(
        again.metrics["pixel_accuracy"], abs=1e-5
    )


@pytest.mark.parametrize("moment", [0.4, 1.5, 2.9])
def test_a_stopped_training_comes_to_the_same_numbers(
    scenes: SegmentationData, recipe: SegmentRecipe, network: Network, tmp_path: Path, moment: float
) -> None:
    job = SegmentJob(network, "rfa", scenes, recipe, 1)
    wanted = fit(job, tmp_path / "undisturbed")
    with pytest.raises(StoppedError):
        fit(job, tmp_path / "stopped", report=stop_after(moment))
    found = fit(job, tmp_path / "stopped")
    assert (found.metrics, found.curves) == (wanted.metrics, wanted.curves)
    first, second = (load_model(tmp_path / name)[0].state_dict() for name in ("undisturbed", "stopped"))
    torch.testing.assert_close(first, second, rtol=0, atol=0)


def test_another_jobs_folder_is_refused(
    scenes: SegmentationData, recipe: SegmentRecipe, network: Network, tmp_path: Path
) -> None:
    job = SegmentJob(network, "conv", scenes, recipe, 1)
    with pytest.raises(StoppedError):
        fit(job, tmp_path, report=stop_after(0.2))
    for other, words in [
        (replace(job, conv="ca"), "conv is 'conv' there and 'ca' here"),
        (replace(job, network=replace(network, output_stride=8)), "output_stride is 16 there and 8 here"),
        (replace(job, recipe=recipe.changed({"dice": 2.0})), "recipe.dice is 1.0 there and 2.0 here"),
    ]:
        with pytest.raises(UserError, match=words):
            fit(other, tmp_path)


def test_a_batch_of_one_image_is_refused_but_with_frozen_norms(
    scenes: SegmentationData, recipe: SegmentRecipe, network: Network, tmp_path: Path
) -> None:
    single = recipe.changed({"epochs": 1, "batch_size": 1})
    few = replace(scenes, train=SceneImages(render_scenes("train", 3, 64, 0), "train"))
    with pytest.raises(UserError, match="A batch of one image"):
        fit(SegmentJob(network, "conv", few, single, 1), tmp_path / "a")
    fit(SegmentJob(network, "conv", few, single.changed({"freeze_norm": True}), 1), tmp_path / "b")


def test_a_model_of_other_classes_is_refused(
    scenes: SegmentationData, recipe: SegmentRecipe, network: Network, tmp_path: Path
) -> None:
    record = SegmentJob(network, "conv", scenes, recipe, 0).record
    with pytest.raises(UserError, match=r"knows 11 classes and 'scenes.*' has 11, among them 'hat'"):
        evaluate(record.build(), record, replace(scenes, classes=("background", "hat", *scenes.classes[2:])))


def test_a_classifiers_weights_and_bf16(
    scenes: SegmentationData, recipe: SegmentRecipe, network: Network, tmp_path: Path
) -> None:
    """The encoder starts from them, by {conv}; and mixed precision trains."""
    from safetensors.torch import save_file

    save_file(rfaconv.create_model("resnet10", "ca").state_dict(), tmp_path / "ca.safetensors")
    short = recipe.changed({"epochs": 1, "lr": 0.0, "precision": "bf16-mixed"})
    job = SegmentJob(network, "ca", scenes, short, 0, tmp_path / "{conv}.safetensors")
    fit(job, tmp_path / "run")
    found = load_model(tmp_path / "run")[0].encoder.model
    state = rfaconv.create_model("resnet10", "ca").state_dict()
    from safetensors.torch import load_file

    wanted = load_file(tmp_path / "ca.safetensors")
    assert torch.equal(found.layer2[0].conv1.weight, wanted["layer2.0.conv1.weight"])
    assert not torch.equal(found.layer2[0].conv1.weight, state["layer2.0.conv1.weight"])
    with pytest.raises(UserError, match="There is no file"):
        fit(replace(job, conv="rfa"), tmp_path / "other")


def test_divergence_is_not_masks_without_a_pixel_that_counts(
    scenes: SegmentationData, recipe: SegmentRecipe, network: Network, tmp_path: Path
) -> None:
    short = recipe.changed({"epochs": 2})
    wild = fit(SegmentJob(network, "conv", scenes, short.changed({"lr": 1e30}), 0), tmp_path / "wild")
    assert (wild.diverged, dict(wild.metrics)) == (1, {})

    class Nothing(SceneImages):
        def mask(self, index: int) -> torch.Tensor:
            return torch.full_like(super().mask(index), 255)

    empty = replace(scenes, val=Nothing(render_scenes("test", 4, 64, 0), "test"))
    assert fit(SegmentJob(network, "conv", empty, short, 0), tmp_path / "empty").diverged is None


def test_every_manner_of_looking_gives_figures(
    scenes: SegmentationData, recipe: SegmentRecipe, network: Network, tmp_path: Path
) -> None:
    record = SegmentJob(network, "conv", scenes, recipe, 0).record
    model = record.build()
    for manner in (Manner((0.75, 1.0, 1.5), flip=True), Manner(window=64, scales=(2.0,))):
        found = evaluate(model, record, scenes, manner=manner)
        assert 0 <= found.metrics["miou"] <= 1


def test_recipes() -> None:
    assert recipe_names(SegmentRecipe) == ["small", "voc"]
    for name in recipe_names(SegmentRecipe):
        assert load_recipe(name, SegmentRecipe).schedule == "poly"
    assert parse_setting("dice=1", SegmentRecipe) == ("dice", 1.0)
    with pytest.raises(UserError, match="Unknown field of the recipe 'dice'"):
        parse_setting("dice=1")
    for change, words in (({"augment": "imagenet"}, "Unknown augment"), ({"dice": -1}, "dice must be finite")):
        with pytest.raises(UserError, match=words):
            load_recipe("small", SegmentRecipe).changed(change)


PROGRAM = """
import sys, json
from dataclasses import replace
from pathlib import Path
import torch
torch.set_num_threads(1)
from rfaconv.data.scenes import render_scenes
from rfaconv.data.segmentation import load_segmentation
from rfaconv.data.segmentation.sources import SceneImages
from rfaconv.tasks.recipe import load_recipe
from rfaconv.tasks.segment import Network, SegmentJob, fit
from rfaconv.tasks.segment.recipe import SegmentRecipe
from rfaconv.tasks.training import Machine
if __name__ == "__main__":
    out, devices, changes = Path(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3])
    scenes = replace(load_segmentation(), train=SceneImages(render_scenes("train", 48, 64, 0), "train"),
                     val=SceneImages(render_scenes("test", 18, 64, 0), "test"), fingerprint="part", image_size=(64, 64))
    recipe = load_recipe("small", SegmentRecipe).changed({"epochs": 2, "batch_size": 8, **changes})
    network = Network("deeplabv3plus", "resnet10", 16,
                      arguments={"decoder_channels": 16, "decoder_aspp_dropout": 0.0})
    fit(SegmentJob(network, "rfa", scenes, recipe, 1), out, machine=Machine("cpu", devices))
"""


def start(program: Path, out: Path, devices: int, changes: dict[str, Any]) -> subprocess.Popen[str]:
    command = [sys.executable, str(program), str(out), str(devices), json.dumps(changes)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_two_processes_equal_one(tmp_path: Path) -> None:
    """With frozen norms (a CPU has no synchronised ones) and no dropout, gradients are those of one process."""
    program = tmp_path / "train.py"
    program.write_text(PROGRAM)
    results = {}
    for devices in (1, 2):
        process = start(program, tmp_path / str(devices), devices, {"freeze_norm": True, "lr": 0.02})
        assert process.communicate(timeout=500)[0] is not None
        assert process.returncode == 0
        results[devices] = json.loads((tmp_path / str(devices) / "result.json").read_text())
    one, two = results[1], results[2]
    assert one["curves"]["train_loss"][1] < one["curves"]["train_loss"][0]
    for name, values in one["curves"].items():
        # The loss of a batch is a mean over pixels that count; validation batches differ between one and two processes.
        assert two["curves"][name] == pytest.approx(values, rel=2e-3 if "loss" in name else 2e-4, abs=1e-5), name
    for name, value in one["metrics"].items():
        assert two["metrics"][name] == pytest.approx(value, rel=2e-4), name
    # The last epoch's metric was added up over both processes, the final one was counted on one.
    assert two["curves"]["val_miou"][-1] == pytest.approx(two["metrics"]["miou"], abs=1e-6)


def test_sigkill_and_again(tmp_path: Path) -> None:
    program = tmp_path / "train.py"
    program.write_text(PROGRAM)
    changes = {"epochs": 4}
    start(program, tmp_path / "undisturbed", 1, changes).communicate(timeout=500)
    process = start(program, tmp_path / "killed", 1, changes)
    deadline = time.monotonic() + 300
    while not (tmp_path / "killed" / "last.ckpt").exists():
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "killed" / "result.json").exists()
    output, _ = start(program, tmp_path / "killed", 1, changes).communicate(timeout=500)
    first, second = (json.loads((tmp_path / name / "result.json").read_text()) for name in ("undisturbed", "killed"))
    for record in (first, second):
        record.pop("seconds")
    assert json.dumps(first) == json.dumps(second), output
