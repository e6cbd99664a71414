#!/usr/bin/env bash
# segmentation-models-pytorch 0.6.0, torch 2.14.1, torchvision 0.29.1, timm 1.0.31
# (numpy 2.4.6). Needs torch (5 GB); FINDINGS_VENV names a venv to share.
#
# FocalLoss("multiclass", gamma=0.0) of class scores, against cross entropy.
#
# Guess: multiclass focal loss is softmax cross entropy weighted by (1 - p) ** gamma, so
# gamma 0 gives cross entropy, and adding a constant to all scores of a pixel changes
# nothing.
# Seen: it is the mean of one sigmoid loss for each class, binary cross entropy with
# one-hot labels at gamma 0. Adding 5 to all scores of each pixel, which changes no
# probability of softmax, multiplies the loss. The scores it trains are no softmax
# scores: added to Dice or Lovasz in multiclass mode, which use softmax, the two terms
# read the same scores differently, and softmax confidences of the result are off.
#
# Exit status: 0 as described, 1 if the behaviour changed.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
venv=${FINDINGS_VENV:-$dir/venv} # one venv for all findings that need torch, if set
python3 -m venv "$venv"
"$venv/bin/pip" install -q --disable-pip-version-check torch==2.14.1 torchvision==0.29.1 timm==1.0.31 \
  segmentation-models-pytorch==0.6.0 numpy==2.4.6
cd "$dir"
"$venv/bin/python" - <<'PY'
import sys

import torch
from segmentation_models_pytorch.losses import FocalLoss
from torch.nn import functional

torch.manual_seed(0)
scores, labels = torch.randn(2, 4, 20, 20), torch.randint(0, 4, (2, 20, 20))
focal = FocalLoss("multiclass", gamma=0.0)
one_hot = functional.one_hot(labels, 4).permute(0, 3, 1, 2).float()
seen = float(focal(scores, labels))
softmax = float(functional.cross_entropy(scores, labels))
sigmoid = float(functional.binary_cross_entropy_with_logits(scores, one_hot))
moved = float(focal(scores + 5, labels))
print(f"focal, gamma 0: {seen:.4f}; softmax cross entropy {softmax:.4f}; sigmoid {sigmoid:.4f}")
print(f"all scores + 5: focal {moved:.4f}; cross entropy {float(functional.cross_entropy(scores + 5, labels)):.4f}")
sys.exit(not (abs(seen - sigmoid) < 1e-5 and abs(seen - softmax) > 0.5 and moved > 3 * seen))
PY
