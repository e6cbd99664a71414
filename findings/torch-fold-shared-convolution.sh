#!/usr/bin/env bash
# torch 2.14.1, torchao 0.18.0 (numpy 2.4.6). Needs torch (5 GB); FINDINGS_VENV names
# a venv to share.
#
# One convolution followed by a batch norm of its own for each of two inputs, as
# detector heads share convolutions between pyramid levels. In eval mode, no
# quantisation is asked for: only the folding of batch norm into the convolution.
#
# Guess: a pass that folds batch norms either copies the shared weight or leaves such
# a pair alone; the outputs stay.
# Seen: outputs off by whole units (inputs of unit variance):
# torch.fx.experimental.optimization.fuse both outputs (2, 2), torch.ao fuse_fx the
# first (4, 1e-06), torchao's prepare_pt2e, with a quantizer that annotates nothing,
# the second (1e-06, 4). Each folds a batch norm into a weight that the other call uses
# too. Nothing is raised, and no warning speaks of it. What looks like a loss by
# quantisation is then a loss by preparing it.
#
# Exit status: 0 as described, 1 if the behaviour changed.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
venv=${FINDINGS_VENV:-$dir/venv} # one venv for all findings that need torch, if set
python3 -m venv "$venv"
"$venv/bin/pip" install -q --disable-pip-version-check torch==2.14.1 torchao==0.18.0 numpy==2.4.6
cd "$dir"
"$venv/bin/python" - <<'PY'
import copy
import logging
import sys
import warnings

warnings.simplefilter("ignore")
logging.disable(logging.WARNING)

import torch
from torch import nn
from torch.ao.quantization.quantize_fx import fuse_fx
from torch.fx.experimental.optimization import fuse
from torchao.quantization.pt2e.quantize_pt2e import prepare_pt2e
from torchao.quantization.pt2e.quantizer import Quantizer


class Head(nn.Module):
    """One convolution for two levels, a batch norm for each."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 3, padding=1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(8) for _ in range(2))
        for norm in self.norms:
            norm.running_mean.uniform_(-1, 1)
            norm.running_var.uniform_(0.5, 2)
            nn.init.uniform_(norm.weight, 0.5, 2)

    def forward(self, fine, coarse):
        return self.norms[0](self.conv(fine)), self.norms[1](self.conv(coarse))


class Nothing(Quantizer):
    """Quantises nothing."""

    def annotate(self, model):
        return model

    def validate(self, model):
        pass


torch.manual_seed(0)
head = Head().eval()
inputs = torch.randn(1, 8, 16, 16), torch.randn(1, 8, 8, 8)
exported = torch.export.export(head, inputs).module()
ways = {
    "torch.fx fuse": fuse(copy.deepcopy(head)),
    "torch.ao fuse_fx": fuse_fx(copy.deepcopy(head)),
    "torchao prepare_pt2e": prepare_pt2e(exported, Nothing()),
}
off = {}
with torch.no_grad():
    right = head(*inputs)
    for name, model in ways.items():
        off[name] = [float((a - b).abs().max()) for a, b in zip(model(*inputs), right, strict=True)]
        print(f"{name}: largest difference of the two outputs {off[name][0]:.1g}, {off[name][1]:.1g}")
sys.exit(not all(max(pair) > 0.5 for pair in off.values()))
PY
