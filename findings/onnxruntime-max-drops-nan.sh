#!/usr/bin/env bash
# onnxruntime 1.32.0, onnx 1.23.2 (numpy 2.4.6). No torch needed.
#
# A map with one NaN goes through a 3x3 MaxPool (stride 2, padding 1, the one of a
# ResNet's stem) and through ReduceMax over height and width (what torch's exporter
# makes of adaptive_max_pool2d to 1x1 and of amax), on the CPU provider.
#
# Guess: NaN spreads, as in numpy and in torch (torch 2.14.1 max_pool2d gives 4 NaN of
# this map, adaptive_max_pool2d 1), so that a check of the outputs for NaN finds a
# broken input or weight.
# Seen: MaxPool with the NaN at (5, 5) gives NaN in 1 of the 4 windows that hold it,
# which one depends on the place of the NaN in the window; ReduceMax gives a finite
# number. Relu and Clip do pass NaN on, so it is the pooling alone. A network that
# answers NaN in torch answers with finite, ordinary-looking scores once exported, and
# a comparison of both that skips NaN passes.
#
# Exit status: 0 as described, 1 if the behaviour changed.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install -q --disable-pip-version-check onnxruntime==1.32.0 onnx==1.23.2 numpy==2.4.6
cd "$dir"
"$dir/venv/bin/python" - <<'PY'
import sys

import numpy as np
import onnxruntime
from onnx import TensorProto, helper

IMAGE = np.zeros((1, 1, 13, 17), np.float32)
IMAGE[0, 0, 5, 5] = np.nan


def run(kind: str, inputs: dict[str, np.ndarray] | None = None, **attributes: object) -> np.ndarray:
    """The output of one ONNX operator."""
    extra = inputs or {}
    node = helper.make_node(kind, ["x", *extra], ["y"], **attributes)
    constants = [
        helper.make_tensor(
            name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape, value.flatten().tolist()
        )
        for name, value in extra.items()
    ]
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, IMAGE.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, {"x": IMAGE})[0]


pooled = run("MaxPool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
padded = np.pad(IMAGE[0, 0], 1, constant_values=-np.inf)
windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3))[::2, ::2]
expected = int(np.isnan(windows.max((2, 3))).sum())
whole = run("ReduceMax", {"axes": np.array([2, 3], np.int64)}, keepdims=1)
relu = run("Relu")
found = int(np.isnan(pooled).sum())
print(f"MaxPool: {found} NaN, numpy {expected}")
print(f"ReduceMax: {float(whole.flatten()[0])}, numpy {IMAGE.max()}")
print(f"Relu: {int(np.isnan(relu).sum())} NaN, numpy {int(np.isnan(np.maximum(IMAGE, 0)).sum())}")
sys.exit(not (expected == 4 and found < 4 and np.isfinite(whole).all() and np.isnan(relu).sum() == 1))
PY
