"""`import rfaconv` and every layer need torch alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CONVERSION = Path(__file__).parents[1] / "src" / "rfaconv" / "conversion"
BLOCKED = ["torchvision", "timm", "lightning", "torchmetrics", "typer", "rich", "matplotlib", "scipy", "yaml", "jinja2"]
BLOCKED += ["ultralytics", "cv2"]

PROGRAM = f"""
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {[*BLOCKED, "PIL", "tensorboard", "segmentation_models_pytorch"]!r}:
            raise ModuleNotFoundError(f"No module named '{{name}}'", name=name)

sys.meta_path.insert(0, Blocker())
import torch, rfaconv, rfaconv.ops, rfaconv.profiling
x = torch.randn(2, 8, 8, 8)
for name in rfaconv.conv_names():
    layer = rfaconv.create_conv(name, 8, 8, 3, 2, norm_layer="batchnorm2d", act_layer="relu")
    layer(x).sum().backward()
    rfaconv.profiling.count(layer, (8, 8, 8))
    if name != "conv":
        model = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Conv2d(8, 8, 3)).eval()
        rfaconv.convert(model, name, calibrate=x)
        rfaconv.simplify(model)
"""


def run(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)


def test_layers_need_torch_alone() -> None:
    done = run(PROGRAM)
    assert done.returncode == 0, done.stderr


def test_a_missing_extra_names_the_pip_command() -> None:
    done = run(PROGRAM + "\nrfaconv.create_model('resnet18')")
    assert "pip install 'rfaconv[classify]'" in done.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize("first", ["rfaconv", "rfaconv.conversion", "rfaconv.conversion.converter", "rfaconv.models"])
def test_the_function_convert_whatever_was_imported_first(first: str) -> None:
    """No module has the name of one of these functions, so neither can hide the other."""
    modules = [f"rfaconv.conversion.{path.stem}" for path in CONVERSION.glob("*.py") if path.stem != "__init__"]
    names = ["convert", "simplify", "load_published", "save", "load"]
    program = f"""
import importlib
importlib.import_module({first!r})
import rfaconv
for name in {names!r}:
    assert callable(getattr(rfaconv, name)), name
for module in {modules!r}:
    importlib.import_module(module)
    for name in {names!r}:
        assert getattr(rfaconv, name) is getattr(rfaconv.conversion, name), (module, name)
"""
    done = run(program)
    assert done.returncode == 0, done.stderr


def test_import_brings_nothing_but_torch() -> None:
    done = run(f"import sys, rfaconv; print([name for name in {BLOCKED!r} if name in sys.modules])")
    assert done.stdout.strip() == "[]", done.stdout + done.stderr
