#!/usr/bin/env bash
# torch 2.14.1, torchvision 0.29.1, timm 1.0.31 (numpy 2.4.6). Needs torch (5 GB);
# FINDINGS_VENV names a venv to share.
#
# nn.init.kaiming_normal_(mode="fan_out"), the usual start of a CNN, on depthwise
# convolutions, by itself and in the MobileNetV2 of torchvision and of timm.
#
# Guess: fan-out takes account of groups, as fan-in does; MobileNetV2 begins alike in
# both libraries.
# Seen: fan-in is right (the second dimension of the weight is channels / groups), but
# fan-out is out_channels * k * k for any number of groups. The weights of a depthwise
# layer of C channels are sqrt(C) too small: standard deviation 0.015 where
# sqrt(2 / 9) = 0.471 keeps the variance, at C = 960. torchvision's MobileNetV2 begins
# so; timm's divides the fan-out by the groups and begins with 0.47 in each layer.
# A comparison of the two libraries' models compares two different starts.
#
# Exit status: 0 as described, 1 if the behaviour changed.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
venv=${FINDINGS_VENV:-$dir/venv} # one venv for all findings that need torch, if set
python3 -m venv "$venv"
"$venv/bin/pip" install -q --disable-pip-version-check torch==2.14.1 torchvision==0.29.1 timm==1.0.31 numpy==2.4.6
cd "$dir"
"$venv/bin/python" - <<'PY'
import sys

import timm
import torch
import torchvision
from torch import nn

torch.manual_seed(0)


def spread(model: nn.Module) -> list[tuple[int, float]]:
    """Channels and standard deviation of each depthwise layer."""
    found = [m for m in model.modules() if isinstance(m, nn.Conv2d) and m.groups > 1]
    return [(m.groups, float(m.weight.detach().std())) for m in found]


alone = nn.Conv2d(960, 960, 3, groups=960)
for mode in ("fan_in", "fan_out"):
    nn.init.kaiming_normal_(alone.weight, mode=mode, nonlinearity="relu")
    print(f"{mode}, 960 groups: {float(alone.weight.detach().std()):.4f}")
vision = spread(torchvision.models.mobilenet_v2(weights=None))
other = spread(timm.create_model("mobilenetv2_100", pretrained=False))
for (channels, small), (_, full) in list(zip(vision, other, strict=True))[::4]:
    print(f"{channels} channels: torchvision {small:.4f}, timm {full:.4f}, sqrt(channels) {channels**0.5:.1f}")
good = all(abs(std * channels**0.5 / (2 / 9) ** 0.5 - 1) < 0.2 for channels, std in vision)
good &= all(abs(std / (2 / 9) ** 0.5 - 1) < 0.2 for _, std in other)
sys.exit(not good)
PY
