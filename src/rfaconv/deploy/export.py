"""`export`: a model as an ONNX file, kept only if running the file gives the model's own output."""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from rfaconv.deploy.modules import deployed
from rfaconv.errors import UserError, require
from rfaconv.files import replacing


class Exported(NamedTuple):
    """The file, and its largest deviation from the model relative to the model's largest value."""

    path: Path
    deviation: float


def export(model: nn.Module, path: str | Path, example: Tensor, *, tolerance: float = 1e-4) -> Exported:
    """Write `model`, a module from one float32 tensor [B, C, H, W] to one tensor, as ONNX (opset 20).

    Batch and size are dynamic. The file is run in ONNX Runtime on `example` and on a second batch and size
    (batch + 1, H + 32, W + 64).

    Raises:
        UserError: the file deviates by more than `tolerance`, or a library is missing; nothing is written.
    """
    runtime = require("onnxruntime", "export")
    require("onnxscript", "export")
    path, network = Path(path), deployed(model)
    batch, height, width = (torch.export.Dim.DYNAMIC for _ in range(3))
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        file = Path(folder) / "model.onnx"
        # A batch of one would be taken for a constant.
        traced = example if len(example) > 1 else torch.cat([example, example])
        torch.onnx.export(
            network,
            (traced,),
            file,
            dynamo=True,
            opset_version=20,
            external_data=False,
            verbose=False,
            dynamic_shapes=({0: batch, 2: height, 3: width},),
            input_names=["images"],
            output_names=["output"],
        )
        session = runtime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        original = copy.deepcopy(model).eval()
        # torch's maximum keeps a NaN, which Python's would drop.
        deviation = float(torch.tensor([_deviation(session, original, x) for x in (example, _other(example))]).max())
        if not deviation <= tolerance:
            raise UserError(f"The exported file deviates by {deviation:.1e}, more than {tolerance:.1e}: not written.")
        with replacing(path) as target:
            target.write(file.read_bytes())
    return Exported(path, deviation)


def _other(example: Tensor) -> Tensor:
    batch, channels, height, width = example.shape
    return torch.randn(batch + 1, channels, height + 32, width + 64, generator=torch.Generator().manual_seed(0))


def _deviation(session: Any, model: nn.Module, x: Tensor) -> float:
    expected = model(x)
    found = torch.from_numpy(session.run(None, {"images": x.numpy()})[0])
    return float((found - expected).abs().max() / expected.abs().max())
