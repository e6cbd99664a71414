"""Training that goes on from a plain model's weights, and trained classifiers converted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from rfaconv.data import ClassificationData
from rfaconv.errors import UserError
from rfaconv.tasks.checkpoint import load_model
from rfaconv.tasks.classify import ClassifyJob, evaluate, fit
from rfaconv.tasks.classify.convert import convert_classifier
from rfaconv.tasks.classify.start import Start, calibration_batches
from rfaconv.tasks.recipe import Recipe

LAYERS = ["rf", "rfa", "rfcbam", "rfca", "cam", "cbam", "ca"]


@pytest.fixture(scope="module")
def plain(data: ClassificationData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plain model, trained for a few epochs."""
    from rfaconv.tasks.recipe import load_recipe

    folder = tmp_path_factory.mktemp("plain")
    fit(ClassifyJob("resnet10s", "conv", data, load_recipe("small").changed({"epochs": 4}), 0), folder)
    return folder


@pytest.mark.parametrize("conv", LAYERS)
def test_every_image_gets_the_same_class(plain: Path, data: ClassificationData, conv: str, tmp_path: Path) -> None:
    done = convert_classifier(plain, tmp_path / "new.safetensors", conv, data)
    assert done.same == len(data.val)
    assert done.after.metrics["top1"] == done.before.metrics["top1"] > 0.3
    assert done.after.metrics["loss"] == pytest.approx(done.before.metrics["loss"], rel=1e-5)
    model, record = load_model(tmp_path / "new.safetensors")
    assert record.conv == conv
    assert evaluate(model, record, data).predictions == done.before.predictions


def test_a_training_starts_where_the_plain_model_was(plain: Path, data: ClassificationData, recipe: Recipe) -> None:
    model, record = load_model(plain)
    wanted = evaluate(model, record, data)
    for conv in ("conv", "rfa", "cbam"):
        job = ClassifyJob("resnet10s", conv, data, recipe, 1, Start.of(plain))
        torch.manual_seed(1)
        assert evaluate(job.build(), job.record, data).predictions == wanted.predictions


def test_it_trains_on_and_is_a_job_of_its_own(
    plain: Path, data: ClassificationData, recipe: Recipe, tmp_path: Path
) -> None:
    before = evaluate(*load_model(plain), data).metrics["loss"]
    gentle = recipe.changed({"epochs": 2, "lr": 0.02, "augment": "none"})
    job = ClassifyJob("resnet10s", "rfa", data, gentle, 1, Start.of(plain / "model.safetensors"))
    result = fit(job, tmp_path / "run")
    fresh = fit(replace(job, start=None), tmp_path / "fresh")
    assert result.curves["train_loss"][0] < 0.7 * fresh.curves["train_loss"][0]
    assert result.metrics["loss"] < 1.2 * before
    with pytest.raises(UserError, match=r"start is '[0-9a-f]{16}' there and None here"):
        fit(replace(job, start=None), tmp_path / "run")


def test_calibration_images_are_spread_over_all(data: ClassificationData) -> None:
    record = ClassifyJob("resnet10s", "rfa", data, Recipe(1, 8, "none", "resize", 0.1), 0).record
    batches = calibration_batches(record, data)
    assert [len(batch) for batch in batches] == [64] * 5
    full = replace(data, train=data.val)
    assert sum(len(batch) for batch in calibration_batches(record, full)) == 130


def test_what_cannot_be_started_from(plain: Path, data: ClassificationData, recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"There is no file '.*' with weights to start from"):
        Start.of(tmp_path)
    convert_classifier(plain, tmp_path / "rfa.safetensors", "rfa", data)
    with pytest.raises(UserError, match="has 'rfa' convolutions already; a plain model"):
        convert_classifier(tmp_path / "rfa.safetensors", tmp_path / "twice.safetensors", "ca", data)
    job = ClassifyJob("resnet10s", "rfa", data, recipe, 0, Start.of(tmp_path / "rfa.safetensors"))
    with pytest.raises(UserError, match=r"holds weights of another model: 'layer1\.0\.conv1\."):
        fit(job, tmp_path / "run")
    with pytest.raises(UserError, match="among them 'hat'"):
        convert_classifier(plain, tmp_path / "x.safetensors", "rfa", replace(data, classes=("hat", *data.classes[1:])))
    assert not (tmp_path / "x.safetensors").exists()
