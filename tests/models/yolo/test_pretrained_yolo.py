"""A trained YOLO with our layers put in: the same detections, through a file and into a training."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from test_yolo import with_statistics
from ultralytics import YOLO as Stock  # noqa: N811
from yolo_settings import QUICK

from rfaconv.errors import UserError
from rfaconv.models.yolo import YOLO


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file as Ultralytics' own COCO checkpoints are: yolov8n, 80 classes, half precision, with statistics."""
    torch.manual_seed(0)
    stock = Stock("yolov8n.yaml")
    with_statistics(stock.model)
    for head in stock.model.model[-1].cv3:  # so that it is sure of something
        torch.nn.init.normal_(head[-1].weight, std=0.3)
        torch.nn.init.zeros_(head[-1].bias)
    path = tmp_path_factory.mktemp("stock") / "yolov8n.pt"
    stock.save(path)
    return path


@pytest.mark.parametrize("conv", ["rf", "rfa", "rfcbam", "rfca", "cam", "cbam", "ca"])
def test_the_detections_stay_the_same(conv: str, checkpoint: Path, tmp_path: Path) -> None:
    images = torch.rand(2, 3, 96, 128)
    model = YOLO(checkpoint, conv=conv)
    assert model.convs == dict.fromkeys((1, 3, 5, 7, 16, 19), conv)
    with torch.no_grad():
        before = Stock(checkpoint).model.eval()(images)[0]
        after = model.model.eval()(images)[0]
    assert (after - before)[:, :4].abs().max() < 1e-2  # pixels
    assert (after - before)[:, 4:].abs().max() < 1e-4  # scores
    image = (images[0].permute(1, 2, 0).numpy() * 255).astype("uint8")
    found = [
        each.predict(image, imgsz=128, device="cpu", verbose=False)[0].boxes for each in (Stock(checkpoint), model)
    ]
    assert len(found[0]) > 3
    assert torch.equal(found[0].cls, found[1].cls)
    assert torch.allclose(found[0].xyxy, found[1].xyxy, atol=0.05)
    assert torch.allclose(found[0].conf, found[1].conf, atol=1e-4)


def test_training_starts_from_there(checkpoint: Path, data_yaml: Path, tmp_path: Path) -> None:
    """A training builds the model anew and loads the weights: at a learning rate of nothing it stays the same."""
    images = torch.rand(1, 3, 64, 64)
    model = YOLO(checkpoint, conv="rfca", where="backbone")
    trainer_model = {}

    def keep(trainer: object) -> None:
        with torch.no_grad():
            trainer_model["features"] = trainer.model.eval().model[:10](images)  # type: ignore[attr-defined]

    model.add_callback("on_pretrain_routine_end", keep)
    with torch.no_grad():
        before = Stock(checkpoint).model.eval().model[:10](images)
    model.train(data=str(data_yaml), project=str(tmp_path), name="run", **{**QUICK, "optimizer": "SGD", "lr0": 1e-9})
    assert torch.allclose(trainer_model["features"], before, atol=1e-3 * float(before.abs().max()))
    assert model.convs == dict.fromkeys((1, 3, 5, 7), "rfca")
    assert len(model.names) == 10


def test_it_can_be_saved_and_fused(checkpoint: Path, tmp_path: Path) -> None:
    images = torch.rand(1, 3, 64, 64)
    model = YOLO(checkpoint, conv="rfa")
    model.save(tmp_path / "mine.pt")
    again = YOLO(tmp_path / "mine.pt")
    with torch.no_grad():
        before = Stock(checkpoint).model.eval()(images)[0]
        after = again.model.eval().fuse(verbose=False)(images)[0]
    # The file is in half precision.
    assert (after - before)[:, 4:].abs().max() < 2e-2
    assert again.convs == model.convs


def test_what_cannot_be_converted_is_a_sentence(checkpoint: Path, tmp_path: Path) -> None:
    fused = Stock(checkpoint)
    fused.fuse()
    fused.save(tmp_path / "fused.pt")
    with pytest.raises(UserError, match="The model is fused"):
        YOLO(tmp_path / "fused.pt", conv="rfa")
    with pytest.raises(UserError, match="Layer 2 is C2f"):
        YOLO(checkpoint, conv="rfa", where=[2])
