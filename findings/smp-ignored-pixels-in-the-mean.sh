#!/usr/bin/env bash
# segmentation-models-pytorch 0.6.0, torch 2.14.1, torchvision 0.29.1, timm 1.0.31
# (numpy 2.4.6). Needs torch (5 GB); FINDINGS_VENV names a venv to share.
#
# A map whose upper half is labelled 255 goes to SoftCrossEntropyLoss and
# SoftBCEWithLogitsLoss with ignore_index=255, smoothing off.
#
# Guess: the mean over the pixels that count, as torch's cross_entropy with the same
# ignore_index, and as smp's own Dice, Tversky, Lovasz and focal losses.
# Seen: the ignored pixels add 0 but are counted in the mean. With half of the map
# ignored the loss and its gradient are exactly half of torch's, with 90 % ignored a
# tenth. So in a sum with Dice (which leaves such pixels out) the balance of the two
# terms moves with the ignored share of each batch.
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
from segmentation_models_pytorch.losses import (
    DiceLoss,
    SoftBCEWithLogitsLoss,
    SoftCrossEntropyLoss,
)
from torch.nn import functional

torch.manual_seed(0)
good = True
for rows in (10, 18):  # of 20 rows ignored
    scores = torch.randn(2, 4, 20, 20)
    labels = torch.randint(0, 4, (2, 20, 20))
    labels[:, :rows] = 255
    share = 1 - rows / 20
    kept, counted = scores[:, :, rows:], labels[:, rows:]
    soft = float(SoftCrossEntropyLoss(smooth_factor=0.0, ignore_index=255)(scores, labels))
    true = float(functional.cross_entropy(scores, labels, ignore_index=255))
    edge = (labels == 1).float().where(labels != 255, 255.0)[:, None]
    binary = float(SoftBCEWithLogitsLoss(ignore_index=255)(scores[:, :1], edge))
    binary_true = float(
        functional.binary_cross_entropy_with_logits(kept[:, :1], edge[:, :, rows:])
    )
    dice = float(DiceLoss("multiclass", ignore_index=255)(scores, labels))
    dice_true = float(DiceLoss("multiclass")(kept, counted))
    print(
        f"{rows}/20 rows ignored: cross entropy {soft:.4f} (torch {true:.4f}), "
        f"binary {binary:.4f} (torch {binary_true:.4f}), Dice {dice:.4f} (cropped {dice_true:.4f})"
    )
    good &= abs(soft / true - share) < 1e-4 and abs(binary / binary_true - share) < 1e-4
    good &= abs(dice - dice_true) < 1e-5
sys.exit(not good)
PY
