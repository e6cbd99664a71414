"""Through a whole life: train, stop, go on, validate, predict, export, load again; the layers stay."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image
from yolo_settings import QUICK, Trained

import rfaconv
from rfaconv.errors import UserError
from rfaconv.models.yolo import YOLO
from told import NO_NETWORK

PLACES = dict.fromkeys((1, 3, 5, 7, 16, 19), "rfa")


def first_image(data: Path) -> np.ndarray:
    return np.asarray(Image.open((data.parent / "val.txt").read_text().split()[0]))[..., ::-1]


def boxes(model: Any, image: np.ndarray) -> torch.Tensor:
    result = model.predict(image, imgsz=64, conf=1e-5, device="cpu", verbose=False)[0]
    return result.boxes.data


def test_training_keeps_the_layers(trained: Trained) -> None:
    model = YOLO(trained.last)
    assert model.convs == PLACES
    assert all(type(model.model.model[number]) is rfaconv.RFAConv for number in PLACES)
    assert len(model.names) == 10
    fresh = YOLO("yolov8n", conv="rfa")
    assert not torch.equal(model.model.model[1].attention.weight, fresh.model.model[1].attention.weight)
    assert len(boxes(model, first_image(trained.data)))


def test_a_training_has_the_threads_that_torch_has(data_yaml: Path, tmp_path: Path) -> None:
    """In a process of its own: Ultralytics takes them when it is imported, and when it looks for a device."""
    program = (
        "import sys, os, torch\ntorch.set_num_threads(3)\nfrom rfaconv.models.yolo import YOLO\n"
        "from rfaconv.models.yolo.trainer import AttentionDetectionTrainer\n"
        "AttentionDetectionTrainer(overrides={'model': 'yolov8n.yaml', 'data': sys.argv[1], 'project': sys.argv[2], "
        "'device': 'cpu'})\nprint(torch.get_num_threads(), os.environ.get('OMP_NUM_THREADS'))\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    done = subprocess.run(
        [sys.executable, "-c", program, str(data_yaml), str(tmp_path)],
        capture_output=True, text=True, check=False, env=environment,
    )  # fmt: skip
    assert done.stdout.strip().splitlines()[-1] == "3 None", done.stderr[-2000:]


def test_stock_ultralytics_predicts_the_same_and_refuses_to_train(trained: Trained) -> None:
    from ultralytics import YOLO as Stock  # noqa: N811

    image = first_image(trained.data)
    stock = Stock(str(trained.last))
    assert type(stock.model.model[1]) is rfaconv.RFAConv
    assert torch.equal(boxes(stock, image), boxes(YOLO(trained.last), image))
    with pytest.raises(KeyError, match="rfa"):
        Stock(str(trained.last)).train(
            data=str(trained.data), project=str(trained.folder / "stock"), amp=False, **QUICK
        )


def test_a_checkpoint_is_trained_further_with_its_weights(trained: Trained, tmp_path: Path) -> None:
    model = YOLO(trained.last)
    before = model.model.model[1].weight.clone()
    model.train(
        data=str(trained.data),
        project=str(tmp_path),
        name="more",
        **{**QUICK, "optimizer": "SGD", "lr0": 1e-9, "warmup_epochs": 0.0},
    )
    assert model.convs == PLACES
    assert torch.allclose(model.model.model[1].weight, before, atol=1e-3)


def test_export_and_reload_give_the_same_outputs(trained: Trained) -> None:
    path = YOLO(trained.last).export(format="onnx", imgsz=64, device="cpu", simplify=False)
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        before = YOLO(trained.last).model.eval()(images)[0]
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    after = torch.from_numpy(session.run(None, {session.get_inputs()[0].name: images.numpy()})[0])
    assert before.shape == after.shape
    assert torch.allclose(before[:, :4], after[:, :4], atol=1e-2)  # pixels
    assert torch.allclose(before[:, 4:], after[:, 4:], atol=1e-6, rtol=1e-3)  # scores
    assert {node.domain for node in onnx.load(path).graph.node} == {""}  # standard operators alone
    assert boxes(YOLO(path, task="detect"), first_image(trained.data))[0].numpy() == pytest.approx(
        boxes(YOLO(trained.last), first_image(trained.data))[0].numpy(), abs=1e-2
    )


def test_a_plugins_layers_are_asked_for(trained: Trained, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import torch\nimport rfaconv\n\nclass Gate(torch.nn.Module):\n"
        "    def __init__(self, channels):\n        super().__init__()\n"
        "        self.scale = torch.nn.Parameter(torch.ones(1))\n"
        "    def forward(self, x):\n        return x * self.scale.sigmoid()\n\n"
        "rfaconv.register_attention('gated', Gate)\n"
    )
    program = (
        "import sys\nfrom rfaconv.plugins import load_plugins\nfrom rfaconv.models.yolo import YOLO\n"
        "if 'load' in sys.argv: load_plugins(['mine.py'])\n"
        "if 'make' in sys.argv: YOLO('yolov8n', conv='rfgated', where=[1]).save('mine.pt')\n"
        "print(YOLO('mine.pt').convs)\n"
    )
    run = [sys.executable, "-c", program]
    made = subprocess.run([*run, "load", "make"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "{1: 'rfgated'}" in made.stdout, made.stderr
    again = subprocess.run([*run, "load"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "{1: 'rfgated'}" in again.stdout, again.stderr
    without = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "'mine.pt' has layers of the plugin 'mine.py': load that first" in without.stderr


def test_workers_of_a_training_in_two_processes_find_the_layers(data_yaml: Path, tmp_path: Path) -> None:
    """Ultralytics' own way to several devices: a pickled trainer, torch's launcher, two processes, here with gloo."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    program = Path(__file__).with_name("two_processes.py")
    done = subprocess.run(
        [sys.executable, str(program), str(data_yaml), str(tmp_path)],
        capture_output=True, text=True, check=False, env=environment, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    model = YOLO(tmp_path / "run" / "weights" / "last.pt")
    assert model.convs == PLACES
    said = sorted(path.read_text() for path in tmp_path.glob("rank*.txt"))
    assert [line.split()[0] for line in said] == ["0", "1"]
    first, second = (line.split()[1:] for line in said)
    assert first == second  # the same weights in both processes, after a step on different images
    assert first[1] == "RFAConv"


OFFLINE = f"""{NO_NETWORK}
data, folder = sys.argv[1:]
from rfaconv.models.yolo import YOLO
model = YOLO("yolov8n", conv="rfca")
model.train(
    data=data, project=folder, name="run", imgsz=64, batch=8, epochs=1, device="cpu", workers=0, nbs=8, plots=True
)
model = YOLO(folder + "/run/weights/last.pt")
model.val(data=data, imgsz=64, device="cpu", plots=True, project=folder, name="val")
image = open(data.replace("data.yaml", "val.txt")).read().split()[0]
model.predict(image, imgsz=64, device="cpu", save=True, project=folder, name="predict")
path = model.export(format="onnx", imgsz=64, device="cpu", simplify=False)
YOLO(path, task="detect").predict(image, imgsz=64, device="cpu")
print("attempts", attempts)
"""


def test_no_network_is_asked_for(data_yaml: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "YOLO_CONFIG_DIR": str(tmp_path)}  # as on the first day
    environment.pop("YOLO_OFFLINE", None)
    done = subprocess.run(
        [sys.executable, "-c", OFFLINE, str(data_yaml), str(tmp_path)],
        capture_output=True, text=True, check=False, env=environment, cwd=tmp_path, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip().splitlines()[-1] == "attempts []"


def test_a_model_with_layers_keeps_them(trained: Trained) -> None:
    with pytest.raises(UserError, match="has attention convolutions already"):
        YOLO(trained.last, conv="rfca")
