"""YOLO models with our layers: what is built, where the layers go, and how large the published models are."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn
from ultralytics.nn.tasks import DetectionModel

import rfaconv
from rfaconv.errors import UserError
from rfaconv.layers import ConvLayer
from rfaconv.models.yolo import YOLO, model_names
from rfaconv.models.yolo.model import AttentionDetectionModel
from rfaconv.models.yolo.rows import with_conv
from rfaconv.models.yolo.yolo import load_config
from rfaconv.profiling import count

# The paper's rows: (classes, model): layer: (GFLOPs, params in M); 80 classes are COCO's, 20 VOC's.
PUBLISHED: dict[tuple[int, str], dict[str, tuple[float, float]]] = {
    (80, "yolov5n-anchors"): {
        "conv": (4.5, 1.8), "cam": (4.5, 1.8), "cbam": (4.5, 1.8), "ca": (4.5, 1.8), "rfa": (4.7, 1.9),
    },
    (80, "yolov7-tiny-anchors"): {"conv": (13.7, 6.2), "rfa": (14.1, 6.3)},
    (80, "yolov8n"): {
        "conv": (8.7, 3.1), "cam": (8.8, 3.1), "cbam": (8.8, 3.1), "ca": (8.8, 3.1), "rfa": (9.0, 3.2),
        "rfca": (9.1, 3.2),
    },
    (20, "yolov5n-anchors"): {
        "conv": (4.2, 1.8), "cam": (4.2, 1.8), "cbam": (4.3, 1.8), "ca": (4.3, 1.8), "rfa": (4.5, 1.8),
    },
    (20, "yolov5s-anchors"): {
        "conv": (15.9, 7.1), "cam": (16.0, 7.1), "cbam": (16.0, 7.1), "ca": (16.1, 7.1), "rfa": (16.4, 7.2),
        "rfcbam": (16.4, 7.2), "rfca": (16.6, 7.2),
    },
    (20, "yolov7-tiny-anchors"): {
        "conv": (13.2, 6.1), "cam": (13.2, 6.1), "cbam": (13.2, 6.1), "ca": (13.2, 6.1), "rfa": (13.6, 6.1),
    },
    (20, "yolov8n"): {
        "conv": (8.1, 3.0), "cam": (8.1, 3.0), "cbam": (8.2, 3.0), "ca": (8.2, 3.0), "rfa": (8.4, 3.1),
    },
}  # fmt: skip
CUT_OFF = [(80, name, conv) for name in ("yolov5n-anchors", "yolov8n") for conv in ("conv", "cam", "cbam", "ca")]
"""Rows whose parameters the paper cut off instead of rounding: 1.87 M is printed 1.8, 3.15 M is printed 3.1."""


def with_statistics(model: nn.Module) -> nn.Module:
    """Batch norms as after a training, so that folding them changes numbers."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.8, 1.2)
            nn.init.uniform_(module.bias, -0.2, 0.2)
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model.eval()


@pytest.mark.parametrize(
    ("classes", "name", "conv"), [(*which, conv) for which, row in PUBLISHED.items() for conv in row]
)
def test_the_published_sizes(classes: int, name: str, conv: str) -> None:
    """All 35 rows, counted as they were: Ultralytics' convolutions fused, ours not, at 32 px, times (640 / 32)^2."""
    config = load_config(name)
    model = AttentionDetectionModel(with_conv(config, conv) if conv != "conv" else config, nc=classes)
    found = count(DetectionModel.fuse(model, verbose=False), (3, 32, 32))
    gflops, params = PUBLISHED[classes, name][conv]
    assert round(2 * found.macs * 400 / 1e9, 1) == gflops
    tenths = found.params / 1e5
    assert params == (math.floor(tenths) / 10 if (classes, name, conv) in CUT_OFF else round(tenths) / 10)


@pytest.mark.parametrize(
    ("name", "places", "params"),
    [
        ("yolov8n", (1, 3, 5, 7, 16, 19), 3.157),
        ("yolov5n", (1, 3, 5, 7, 18, 21), 2.655),
        ("yolov5s", (1, 3, 5, 7, 18, 21), 9.153),
        ("yolo11n", (1, 3, 5, 7, 17, 20), 2.624),
        ("yolov7-tiny", (5, 12, 19, 26), 8.145),
    ],
)
def test_the_layers_go_where_the_paper_puts_them(name: str, places: tuple[int, ...], params: float) -> None:
    plain, made = YOLO(name), YOLO(name, conv="rfa")
    assert plain.convs == {}
    assert made.convs == dict.fromkeys(places, "rfa")
    assert sum(value.numel() for value in plain.model.parameters()) / 1e6 == pytest.approx(params, abs=1e-3)
    assert not any(isinstance(module, ConvLayer) for module in plain.model.modules())
    for number in places:
        old, new = plain.model.model[number], made.model.model[number]
        assert type(new) is rfaconv.RFAConv
        assert (new.in_channels, new.out_channels, new.stride, new.padding) == (
            old.conv.in_channels, old.conv.out_channels, old.conv.stride, old.conv.padding,
        )  # fmt: skip
        assert type(new.act) is type(old.act)
        assert (new.norm.eps, new.norm.momentum) == (old.bn.eps, old.bn.momentum)


@pytest.mark.parametrize("where", [[1], (5, 7), "backbone", "neck"])
def test_where_chooses(where: str | Sequence[int]) -> None:
    found = set(YOLO("yolov8n", conv="ca", where=where).convs)
    assert (
        found == {"backbone": {1, 3, 5, 7}, "neck": {16, 19}}.get(where, set())
        if isinstance(where, str)
        else set(where)
    )


@pytest.mark.parametrize("scale", ["n", "s"])
def test_a_yaml_names_layers_and_is_scaled(scale: str, tmp_path: Path) -> None:
    """All short names, and a class's name, in one file, with repeats and Ultralytics' further arguments."""
    names = ["conv", "rf", "rfa", "rfcbam", "rfca", "cam", "cbam", "ca", "RFCAConv"]
    backbone: list[list[Any]] = [[-1, 1, "Conv", [64, 3, 2]]]
    backbone += [[-1, 1, name, [64 * (index + 1), 3, 2 if index < 2 else 1]] for index, name in enumerate(names)]
    backbone += [[-1, 6, "cam", [64 * len(names), 3]], [-1, 1, "rfa", [128, 5, 1, 2, 4]]]
    config = {
        "nc": 3,
        "scales": {"n": [0.33, 0.25, 1024], "s": [0.33, 0.5, 1024]},
        "backbone": backbone,
        "head": [[[-1], 1, "Detect", ["nc"]]],
    }
    path = tmp_path / f"yolov8{scale}-mine.yaml"
    path.write_text(yaml.safe_dump(config))
    model = YOLO(path).model
    width = {"n": 0.25, "s": 0.5}[scale]
    for index, name in enumerate(names):
        layer = model.model[index + 1]
        assert type(layer) is type(rfaconv.create_conv("rfca" if name == "RFCAConv" else name, 16, 16))
        assert layer.out_channels == int(64 * (index + 1) * width)
    assert len(model.model[10]) == 2
    assert all(type(part) is rfaconv.CAMConv for part in model.model[10])
    assert (model.model[11].kernel_size, model.model[11].groups) == ((5, 5), 4)
    assert model.yaml["backbone"][3][2] == "rfa"
    model(torch.rand(1, 3, 64, 64))


def test_a_layer_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    from rfaconv.layers import registry

    monkeypatch.setattr(registry, "_convs", dict(registry._convs))
    rfaconv.register_attention("gate", lambda channels: nn.Sequential(nn.Conv2d(channels, channels, 1), nn.Sigmoid()))
    assert YOLO("yolov8n", conv="rfgate", where=[1]).convs == {1: "rfgate"}


@pytest.mark.parametrize("conv", ["conv", "rf", "rfa", "rfcbam", "rfca", "cam", "cbam", "ca"])
def test_fuse_keeps_the_outputs(conv: str) -> None:
    model = with_statistics(YOLO("yolov8n", conv=conv).model)
    images = torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        before = model(images)[0]
        fused = copy.deepcopy(model).fuse(verbose=False)
        after = fused(images)[0]
        by_base = DetectionModel.fuse(copy.deepcopy(model), verbose=False)(images)[0]
    scale = before.abs().amax(dim=(0, 2), keepdim=True)
    assert ((after - before) / scale).abs().max() < 1e-4
    assert ((by_base - before) / scale).abs().max() < 1e-4
    assert not any(isinstance(module, ConvLayer) and module.norm is not None for module in fused.modules())
    assert not any(hasattr(module, "bn") for module in fused.modules())
    assert before.std() > 0


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: YOLO("yolov8x9"), "Unknown YOLO 'yolov8x9'. Did you mean 'yolov8"),
        (lambda: YOLO("yolov8n", conv="rfcban"), "Unknown convolution 'rfcban'. Did you mean 'rfcbam'"),
        (lambda: YOLO("yolov8n", conv="rfa", where="head"), "Unknown place in a YOLO 'head'"),
        (lambda: YOLO("yolov8n", where="neck"), "give conv too"),
        (lambda: YOLO("yolov8n", conv="rfa", where=[2]), "Layer 2 is C2f"),
        (lambda: YOLO("yolov8n", conv="rfa", where=[99]), "There is no layer 99: the model's last one is 22."),
        (lambda: YOLO("yolov8n-ghost", conv="rfa"), "choose with where=[...] among 0."),
        (lambda: YOLO("mine.yaml"), "There is no file 'mine.yaml'"),
        (lambda: YOLO("best.pt"), "There is no file 'best.pt'"),
        (lambda: YOLO("yolov8n.pt"), "There is no file 'yolov8n.pt'"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_mistake_is_a_sentence(make: Any, words: str) -> None:
    with pytest.raises(UserError) as error:
        make()
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("backbone: [[-1, 1, rfaa, [8, 3]]]\nhead: [[[-1], 1, Detect, [nc]]]\n", "'rfaa'. Did you mean 'rfa'?"),
        ("backbone: [[-1, 1, rfa]]\nhead: [[[-1], 1, Detect, [nc]]]\n", "A row of a model's YAML is"),
        ("nc: 3\n", "needs the lists 'backbone' and 'head'"),
        ("a: [b\n", "cannot be read as a model's YAML"),
        ("[]\n", "cannot be read as a model's YAML"),
    ],
)
def test_a_broken_yaml_is_a_sentence(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(UserError) as error:
        YOLO(tmp_path / "mine.yaml")
    assert words in str(error.value)


def test_names_cover_what_the_paper_and_users_have() -> None:
    assert {"yolov5n", "yolov5s", "yolov7-tiny", "yolov8n", "yolov8x-p6", "yolo11n", "yolov10n"} <= set(model_names())
