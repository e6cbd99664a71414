#!/usr/bin/env bash
# torchinfo 1.8.0, torch 2.14.1 (numpy 2.4.6). Needs torch (5 GB); FINDINGS_VENV names a
# venv to share.
#
# torchinfo's total_mult_adds of single layers, against torch's own FLOP counter / 2.
#
# Guess: they agree on plain modules (functional calls aside, which hooks cannot see).
# Seen: Conv2d agrees. ConvTranspose2d of stride 2 counts 4 times too much (weights
# times output pixels; 262,144 become 1,048,576), so decoders of U-Nets come out too
# dear. Linear on [N, 8, 256] counts one position instead of 8 (20,480 become 2,560), so
# the MLPs of ConvNeXt-like and transformer blocks come out too cheap. In one network
# both errors mix. (fvcore 0.1.5.post20221221 and ptflops 0.7.5 gave the true figures
# for all three.)
#
# Exit status: 0 as described, 1 if the behaviour changed.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
venv=${FINDINGS_VENV:-$dir/venv} # one venv for all findings that need torch, if set
python3 -m venv "$venv"
"$venv/bin/pip" install -q --disable-pip-version-check torch==2.14.1 torchinfo==1.8.0 numpy==2.4.6
cd "$dir"
"$venv/bin/python" - <<'PY'
import sys

import torch
import torchinfo
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

image, rows = torch.randn(1, 8, 16, 16), torch.randn(1, 8, 256)
cases = {
    "Conv2d": (nn.Conv2d(8, 8, 3, padding=1, bias=False), image),
    "ConvTranspose2d": (nn.ConvTranspose2d(8, 8, 4, stride=2, padding=1, bias=False), image),
    "Linear": (nn.Linear(256, 10, bias=False), rows),
}
ratios = {}
for name, (layer, data) in cases.items():
    said = torchinfo.summary(layer, input_data=data, verbose=0).total_mult_adds
    with FlopCounterMode(display=False) as counter:
        layer(data)
    true = counter.get_total_flops() // 2
    ratios[name] = said / true
    print(f"{name}: torchinfo {said:,}, true {true:,}")
sys.exit(ratios != {"Conv2d": 1, "ConvTranspose2d": 4, "Linear": 1 / 8})
PY
