"""The dispatcher's operators `torch.ops.rfaconv.*`: their schemas, and what PyTorch must know without running them.

Defined here whether or not anything is there to compute them: the C++ library (csrc/ops) adds implementations for the
CPU, ops/triton/library.py those for CUDA.
"""

from __future__ import annotations

import hashlib

import torch

from rfaconv.ops import gradients, shapes

_STATISTICS = "Tensor? mean, Tensor? var, Tensor? moments"
_FEATURES = "Tensor input, Tensor feature_weight, Tensor feature_bias, Tensor? centre"

SCHEMAS = (
    "patch_moments(Tensor input, int[] window) -> Tensor",
    "patch_moments_backward(Tensor grad, Tensor input, int[] window) -> Tensor",
    "rfa(Tensor input, Tensor feature_weight, Tensor attention_weight, Tensor weight, Tensor? bias, "
    f"Tensor? norm_weight, Tensor? norm_bias, {_STATISTICS}, int count, float eps, int[] window, int groups, "
    "Tensor? scale, Tensor? shift, int act) -> (Tensor, Tensor, Tensor)",
    "rfa_backward(Tensor grad_out, Tensor input, Tensor feature_weight, Tensor attention_weight, Tensor weight, "
    f"Tensor? norm_weight, Tensor? norm_bias, {_STATISTICS}, int count, float eps, int[] window, int groups, "
    "bool input_too) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    f"norm_backward(Tensor(a!) grad_x, Tensor input, Tensor feature_weight, Tensor? norm_weight, {_STATISTICS}, "
    "Tensor sum, Tensor outer, int count, float eps, int[] window) -> (Tensor, Tensor, Tensor)",
    f"survey_features({_FEATURES}, int[] window, int kind, bool count_ties) -> (Tensor, Tensor, Tensor)",
    f"survey_backward(Tensor largest, Tensor grad_first, Tensor grad_second, {_FEATURES}, int[] window, int kind) "
    "-> (Tensor, Tensor, Tensor)",
    f"contract_gated({_FEATURES}, Tensor first, Tensor second, Tensor weight, Tensor? bias, int[] window, int groups, "
    "int kind, Tensor? scale, Tensor? shift, int act) -> Tensor",
    f"contract_gated_backward(Tensor grad_out, {_FEATURES}, Tensor first, Tensor second, Tensor weight, int[] window, "
    "int groups, int kind) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
)

FINGERPRINT = "rfaconv operators " + hashlib.sha256("\n".join(SCHEMAS).encode()).hexdigest()[:12]
"""What csrc/ops/instruction_sets.cpp must hold: a library made for other schemas would be called wrongly."""

_library = torch.library.Library("rfaconv", "FRAGMENT")  # the operators live as long as it does


def _define() -> None:
    for schema in SCHEMAS:
        _library.define(schema)
    shapes.register()
    gradients.register()


# At import, because a model that torch.compile traces, or an exported program that is read, finds them there.
_define()
