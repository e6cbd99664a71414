"""The head with anchors that YOLOv5 and YOLOv7 were published with, and its loss; written from their descriptions.

Each place of each of three maps predicts for three anchors a box, whether there is one, and its class. A box's centre
lies up to half a cell outside of its cell, its sides are up to four times the anchor's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from ultralytics.nn.modules import Detect

from rfaconv.errors import UserError

ANCHORS: dict[str, list[list[int]]] = {
    "yolov5": [[10, 13, 16, 30, 33, 23], [30, 61, 62, 45, 59, 119], [116, 90, 156, 198, 373, 326]],
    "yolov7": [[12, 16, 19, 36, 40, 28], [36, 75, 76, 55, 72, 146], [142, 110, 192, 243, 459, 401]],
}
"""Widths and heights in pixels at 640, three a map, as published for COCO."""

_MOST_RATIO = 4.0
_BOX, _CLASS, _OBJECT = 0.05, 0.5, 1.0
_BALANCE = (4.0, 1.0, 0.4)
"""Weights of the maps' object losses: small boxes are many."""


class AnchorDetect(Detect):
    """A head with anchors, in the place of Ultralytics' own.

    Args:
        nc: classes.
        anchors: for each map widths and heights in pixels, [w, h, w, h, ...].
        channels: of each map.
        stride: of each map, [maps].

    Shape:
        Maps [B, C, h, w] to ([B, 4 + nc, N], raw): centres, sizes in pixels and class scores; in training raw alone.
    """

    def __init__(self, nc: int, anchors: Sequence[Sequence[float]], channels: Sequence[int], stride: Tensor) -> None:
        nn.Module.__init__(self)
        if len(anchors) != len(channels) or any(len(row) % 2 or len(row) != len(anchors[0]) for row in anchors):
            raise UserError(f"A head of {len(channels)} maps needs as many lists of anchors, all alike in length.")
        self.nc, self.nl, self.na = nc, len(channels), len(anchors[0]) // 2
        self.no, self.reg_max = nc + 5, 1
        self.stride = stride.clone()
        self.register_buffer("sizes", torch.tensor(anchors, dtype=torch.float32).view(self.nl, self.na, 2))
        self.heads = nn.ModuleList(nn.Conv2d(width, self.na * self.no, 1) for width in channels)
        self.cv2, self.cv3 = nn.ModuleList(), None  # where Ultralytics looks for its own
        self.bias_init()

    def bias_init(self) -> None:
        """Start from some eight objects in an image of 640 px, and from no class rather than another."""
        for head, stride in zip(self.heads, self.stride.tolist(), strict=True):
            bias = cast("Tensor", head.bias).detach().view(self.na, -1)
            bias[:, 4] += _logit(min(8 / (640 / stride) ** 2, 0.5))
            bias[:, 5:] += _logit(1 / (self.nc + 1))

    def forward(self, x: list[Tensor]) -> Any:
        raw = [
            head(part).unflatten(1, (self.na, self.no)).permute(0, 1, 3, 4, 2)
            for head, part in zip(self.heads, x, strict=True)
        ]
        preds = {"maps": raw, "feats": x}
        if self.training:
            return preds
        decoded = torch.cat([self._decode(part, level) for level, part in enumerate(raw)], 2)
        return decoded if self.export else (decoded, preds)

    def _decode(self, raw: Tensor, level: int) -> Tensor:
        """[B, 4 + nc, anchors * h * w] of [B, anchors, h, w, 5 + nc]."""
        height, width = raw.shape[2:4]
        rows = torch.arange(height, device=raw.device, dtype=raw.dtype)
        columns = torch.arange(width, device=raw.device, dtype=raw.dtype)
        grid = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), -1)
        values = raw.sigmoid()
        centres = (values[..., :2] * 2 - 0.5 + grid) * self.stride[level]
        sizes = (values[..., 2:4] * 2) ** 2 * self.sizes[level].to(raw.dtype)[:, None, None]
        scores = values[..., 4:5] * values[..., 5:]
        return torch.cat([centres, sizes, scores], -1).flatten(1, 3).transpose(1, 2)


def _logit(probability: float) -> float:
    return math.log(probability / (1 - probability))


class _Matched(NamedTuple):
    """Predictions that answer for a true box: image, anchor, row and column; the box in cells; its class."""

    image: Tensor
    anchor: Tensor
    row: Tensor
    column: Tensor
    box: Tensor
    """[M, 4]: centre, relative to the cell, and size."""
    label: Tensor


class AnchorLoss:
    """Boxes by complete IoU, objects and classes by cross-entropy.

    A true box is answered for by every anchor whose sides are within a factor of four of its own, in its cell and the
    two cells next to its centre. What an anchor should say of there being an object is the IoU it reached.

    Args:
        model: its last layer is an `AnchorDetect`.
    """

    def __init__(self, model: Any) -> None:
        self.head = model.model[-1]

    def __call__(self, preds: Any, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a batch times its images, and its parts.

        Args:
            preds: of the model, in training or in eval mode.
            batch: batch_idx [N], cls [N, 1], bboxes [N, 4] (centre and size in fractions), img [B, C, H, W].
        """
        maps: list[Tensor] = (preds[1] if isinstance(preds, tuple) else preds)["maps"]
        boxes = torch.zeros((), device=maps[0].device)
        objects, labels = boxes.clone(), boxes.clone()
        for level, raw in enumerate(maps):
            found = self._match(batch, raw, level)
            truth = torch.zeros(raw.shape[:4], device=raw.device)
            if len(found.image):
                chosen = raw[found.image, found.anchor, found.row, found.column].float()
                sizes = (self.head.sizes[level] / self.head.stride[level])[found.anchor]
                values = chosen[:, :4].sigmoid()
                guess = torch.cat([values[:, :2] * 2 - 0.5, (values[:, 2:] * 2) ** 2 * sizes], 1)
                overlap = complete_iou(guess, found.box)
                boxes = boxes + (1 - overlap).mean()
                best = overlap.detach().clamp(min=0)
                index = (found.image, found.anchor, found.row, found.column)
                flat = torch.zeros_like(truth).flatten()
                place = _flat(index, truth.shape)
                truth = flat.scatter_reduce(0, place, best, "amax").view_as(truth)
                if self.head.nc > 1:
                    wanted = F.one_hot(found.label, self.head.nc).to(chosen)
                    labels = labels + F.binary_cross_entropy_with_logits(chosen[:, 5:], wanted)
            balance = _BALANCE[level] if len(maps) == 3 else 1.0
            objects = objects + balance * F.binary_cross_entropy_with_logits(raw[..., 4].float(), truth)
        images, pixels = batch["img"].shape[0], max(batch["img"].shape[2:])
        scale = 3 / len(maps)
        parts = {
            "box_loss": _BOX * scale * boxes,
            "cls_loss": _CLASS * scale * self.head.nc / 80 * labels,
            "obj_loss": _OBJECT * scale * (pixels / 640) ** 2 * objects,
        }
        return sum(parts.values(), torch.zeros((), device=boxes.device)) * images, {
            name: value.detach() for name, value in parts.items()
        }

    def _match(self, batch: dict[str, Tensor], raw: Tensor, level: int) -> _Matched:
        height, width = raw.shape[2:4]
        device = raw.device
        extent = torch.tensor([width, height, width, height], device=device)
        boxes = batch["bboxes"].to(device).float() * extent
        image, label = batch["batch_idx"].to(device).long(), batch["cls"].to(device).long().view(-1)
        anchors = self.head.sizes[level] / self.head.stride[level]
        ratio = boxes[None, :, 2:] / anchors[:, None]
        anchor, index = (torch.maximum(ratio, 1 / ratio.clamp(min=1e-9)).amax(2) < _MOST_RATIO).nonzero(as_tuple=True)
        centre = boxes[index, :2]
        inside = centre % 1
        cells = [centre.floor()]
        keep = [torch.ones_like(anchor, dtype=torch.bool)]
        for axis, limit in ((0, width), (1, height)):
            step = torch.zeros(2, device=device)
            step[axis] = 1
            cells += [centre.floor() - step, centre.floor() + step]
            at, part = centre[:, axis], inside[:, axis]
            keep += [(part < 0.5) & (at > 1), (part > 0.5) & (limit - at > 1)]
        where = torch.stack(keep)
        cell = torch.stack(cells)[where]
        spread = torch.arange(len(anchor), device=device).expand(len(keep), -1)[where]
        anchor, index = anchor[spread], index[spread]
        row, column = cell[:, 1].long().clamp(0, height - 1), cell[:, 0].long().clamp(0, width - 1)
        box = torch.cat([boxes[index, :2] - cell, boxes[index, 2:]], 1)
        return _Matched(image[index], anchor, row, column, box, label[index])


def complete_iou(first: Tensor, second: Tensor) -> Tensor:
    """[M] for boxes [M, 4] of centres and sizes: IoU, less the centres' distance and the difference in shape.

    Zheng et al., arXiv 1911.08287.
    """
    low, high = first[:, :2] - first[:, 2:] / 2, first[:, :2] + first[:, 2:] / 2
    other_low, other_high = second[:, :2] - second[:, 2:] / 2, second[:, :2] + second[:, 2:] / 2
    shared = (torch.minimum(high, other_high) - torch.maximum(low, other_low)).clamp(min=0).prod(1)
    union = first[:, 2:].prod(1) + second[:, 2:].prod(1) - shared
    overlap = shared / (union + 1e-7)
    hull = torch.maximum(high, other_high) - torch.minimum(low, other_low)
    distance = (first[:, :2] - second[:, :2]).square().sum(1) / (hull.square().sum(1) + 1e-7)
    angle = torch.atan(first[:, 2] / (first[:, 3] + 1e-7)) - torch.atan(second[:, 2] / (second[:, 3] + 1e-7))
    shape = 4 / math.pi**2 * angle.square()
    with torch.no_grad():
        weight = shape / (1 - overlap + shape + 1e-7)
    return overlap - distance - weight * shape


def _flat(index: tuple[Tensor, ...], shape: Sequence[int]) -> Tensor:
    """Places in a flattened tensor of that shape."""
    place = torch.zeros_like(index[0])
    for part, size in zip(index, shape, strict=True):
        place = place * size + part
    return place
