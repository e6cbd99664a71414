"""The head with anchors: what it decodes, what its loss says, and that it learns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch
from torchvision.ops import complete_box_iou
from yolo_settings import QUICK

from rfaconv.errors import UserError
from rfaconv.models.yolo import YOLO
from rfaconv.models.yolo.anchors import ANCHORS, AnchorDetect, AnchorLoss, complete_iou


def model(conv: str = "conv", **kwargs: Any) -> Any:
    return YOLO("yolov5n-anchors", conv=conv, **kwargs).model


def test_complete_iou_is_torchvisions() -> None:
    generator = torch.Generator().manual_seed(0)
    first = torch.cat([torch.rand(200, 2, generator=generator), 0.1 + torch.rand(200, 2, generator=generator)], 1)
    second = torch.cat([torch.rand(200, 2, generator=generator), 0.1 + torch.rand(200, 2, generator=generator)], 1)

    def corners(boxes: torch.Tensor) -> torch.Tensor:
        return torch.cat([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], 1)

    expected = complete_box_iou(corners(first), corners(second)).diagonal()
    assert torch.allclose(complete_iou(first, second), expected, atol=1e-4)


def test_decoding_by_hand() -> None:
    head = model().model[-1].eval()
    maps = [torch.zeros(1, head.heads[i].in_channels, 8 >> i, 8 >> i) for i in range(3)]
    for part in head.heads:
        torch.nn.init.zeros_(part.weight)
        torch.nn.init.zeros_(part.bias)
    decoded, _ = head(maps)
    assert decoded.shape == (1, 84, 3 * (64 + 16 + 4))
    # All logits zero: the centre in the middle of the cell, the anchor's own size, half times half for each class.
    assert decoded[0, :4, 0].tolist() == pytest.approx([4, 4, 10, 13])
    assert decoded[0, :4, 64 + 9].tolist() == pytest.approx([8 * 1.5, 8 * 1.5, 16, 30])
    assert decoded[0, :4, -1].tolist() == pytest.approx([48, 48, 373, 326])
    assert torch.all(decoded[0, 4:] == 0.25)


def batch(boxes: list[list[float]], labels: list[int], size: int = 128) -> dict[str, torch.Tensor]:
    return {
        "img": torch.rand(2, 3, size, size),
        "batch_idx": torch.arange(len(boxes)) % 2,
        "cls": torch.tensor(labels).view(-1, 1).float(),
        "bboxes": torch.tensor(boxes).view(-1, 4),
    }


def test_a_box_is_answered_for_by_its_cell_and_two_neighbours() -> None:
    net = model()
    criterion = AnchorLoss(net)
    raw = torch.zeros(2, 3, 16, 16, 85)
    # 13 x 16 px in an image of 128: within four times of each of the anchors 10x13, 16x30 and 33x23.
    found = criterion._match(batch([[0.5 + 0.2 / 16, 0.25 + 0.7 / 16, 13 / 128, 16 / 128]], [7]), raw, 0)
    cells = {(int(row), int(column)) for row, column in zip(found.row, found.column, strict=True)}
    assert cells == {(4, 8), (4, 7), (5, 8)}  # left of 0.2, below 0.7
    assert sorted(found.anchor.tolist()) == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    centre = found.box[:, :2] + torch.stack([found.column, found.row], 1)
    assert torch.allclose(centre, torch.tensor([8.2, 4.7]).expand_as(centre), atol=1e-5)
    assert set(found.label.tolist()) == {7}
    # Thirty times as wide as high: no anchor is that shape.
    assert not len(criterion._match(batch([[0.5, 0.5, 0.9, 0.03]], [0]), raw, 0).image)
    # In the corner the neighbours beyond the edge are left out.
    corner = criterion._match(batch([[0.1 / 16, 0.1 / 16, 0.1, 0.1]], [0]), raw, 0)
    assert {(int(row), int(column)) for row, column in zip(corner.row, corner.column, strict=True)} == {(0, 0)}


def test_the_loss_falls_where_the_box_is_right_and_survives_no_boxes() -> None:
    net = model()
    net.args = {}
    criterion = net.init_criterion()
    assert isinstance(criterion, AnchorLoss)
    net.train()
    some = batch([[0.5, 0.5, 0.2, 0.3], [0.3, 0.3, 0.1, 0.1]], [3, 5])
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
    losses = []
    for _ in range(12):
        loss, parts = criterion(net(some["img"]), some)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    assert set(parts) == {"box_loss", "cls_loss", "obj_loss"}
    assert loss.item() == pytest.approx(2 * sum(value.item() for value in parts.values()), rel=1e-5)
    empty = {**some, "batch_idx": torch.zeros(0), "cls": torch.zeros(0, 1), "bboxes": torch.zeros(0, 4)}
    loss, parts = criterion(net(some["img"]), empty)
    loss.backward()
    assert parts["box_loss"] == 0
    assert torch.isfinite(loss)
    with torch.no_grad():
        in_eval, _ = criterion(net.eval()(some["img"]), some)
    assert torch.isfinite(in_eval)


@pytest.mark.parametrize("name", ["yolov5n-anchors", "yolov7-tiny-anchors"])
def test_through_the_same_trainer(name: str, data_yaml: Path, tmp_path: Path) -> None:
    made = YOLO(name, conv="rfa")
    made.train(data=str(data_yaml), project=str(tmp_path), name="run", **QUICK)
    again = YOLO(tmp_path / "run" / "weights" / "last.pt")
    assert again.convs == YOLO(name, conv="rfa").convs
    head: Any = again.model.model[-1]
    assert type(head) is AnchorDetect
    assert head.nc == 10
    assert head.sizes.flatten().tolist() == [value for row in ANCHORS[name[:6]] for value in row]
    found = again.val(data=str(data_yaml), imgsz=64, device="cpu", plots=False, workers=0, project=str(tmp_path))
    assert found.box.map >= 0
    path = again.export(format="onnx", imgsz=64, device="cpu", simplify=False)
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        expected = YOLO(tmp_path / "run" / "weights" / "last.pt").model.eval()(images)[0]
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    after = torch.from_numpy(session.run(None, {session.get_inputs()[0].name: images.numpy()})[0])
    assert torch.allclose(after, expected, rtol=1e-3, atol=1e-3)


def test_a_yaml_of_ones_own_is_checked(tmp_path: Path) -> None:
    text = (
        "nc: 3\nbackbone: [[-1, 1, Conv, [16, 3, 2]], [-1, 1, rfa, [16, 3, 2]]]\nhead: [[[1], 1, AnchorDetect, {}]]\n"
    )
    (tmp_path / "one.yaml").write_text(text.format("[nc, [[10, 13, 16, 30]]]"))
    assert YOLO(tmp_path / "one.yaml").model.model[-1].na == 2
    for arguments in ("[nc]", "[nc, [[10, 13], [4, 5]]]", "[nc, [[10]]]"):
        (tmp_path / "bad.yaml").write_text(text.format(arguments))
        with pytest.raises(UserError, match=r"takes \[nc, anchors\]|needs as many lists"):
            YOLO(tmp_path / "bad.yaml")
