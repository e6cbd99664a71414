#!/usr/bin/env bash
# torch 2.14.1 (numpy 2.4.6). Needs torch (5 GB); FINDINGS_VENV names a venv to share.
#
# torch.utils.flop_counter counts the forward and backward pass of a 3x3 convolution of
# 64 channels, dense and depthwise.
#
# Guess: the backward pass is twice the forward pass (input gradient and weight
# gradient), whatever the number of groups.
# Seen: 2 times for the dense one, 5 times for 4 groups, 65 times for the depthwise one:
# 1 + groups, as if one of the two gradients were that of a dense convolution. The
# forward count is right. So "training FLOPs", and a utilisation derived from them,
# are far too high for depthwise and grouped networks.
#
# Exit status: 0 as described, 1 if the behaviour changed.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
venv=${FINDINGS_VENV:-$dir/venv} # one venv for all findings that need torch, if set
python3 -m venv "$venv"
"$venv/bin/pip" install -q --disable-pip-version-check torch==2.14.1 numpy==2.4.6
cd "$dir"
"$venv/bin/python" - <<'PY'
import sys

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

seen = {}
for groups in (1, 4, 64):
    conv = nn.Conv2d(64, 64, 3, padding=1, groups=groups, bias=False)
    image = torch.randn(2, 64, 16, 16, requires_grad=True)
    with FlopCounterMode(display=False) as forward:
        out = conv(image)
    with FlopCounterMode(display=False) as backward:
        out.sum().backward()
    true = 2 * out.numel() * 64 // groups * 9
    seen[groups] = forward.get_total_flops() / true, backward.get_total_flops() / true
    print(f"{groups} groups: forward {seen[groups][0]:g}, backward {seen[groups][1]:g} times the true forward count")
sys.exit(seen != {1: (1, 2), 4: (1, 5), 64: (1, 65)})
PY
