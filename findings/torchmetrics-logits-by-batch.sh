#!/usr/bin/env bash
# torchmetrics 1.9.0, torch 2.14.1 (numpy 2.4.6). Needs torch (5 GB); FINDINGS_VENV
# names a venv to share.
#
# The logits of one binary classifier and their labels go to BinaryAccuracy, once as
# one batch of 4 and once as 4 batches of 1.
#
# Guess: an accuracy is a sum over samples, so the size of the batches is no matter.
# Seen: 1.0 as one batch, 0.5 one by one. Whether sigmoid is applied is decided for
# each call: only if some value of that call lies outside 0 to 1. A call whose
# logits all happen to lie between 0 and 1 is taken as probabilities, and a logit
# of 0.3 (probability 0.57) counts as negative. The documentation says how logits
# are recognised; that the same data give another score for another batch size, for a
# smaller last batch, or late or early in training is what surprises. Binary
# segmentation of small or uncertain pictures is hit the same way.
#
# Exit status: 0 as described, 1 if the behaviour changed.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
venv=${FINDINGS_VENV:-$dir/venv} # one venv for all findings that need torch, if set
python3 -m venv "$venv"
"$venv/bin/pip" install -q --disable-pip-version-check torch==2.14.1 torchmetrics==1.9.0 numpy==2.4.6
cd "$dir"
"$venv/bin/python" - <<'PY'
import sys

from torch import tensor
from torchmetrics.classification import BinaryAccuracy, BinaryJaccardIndex

logits, labels = tensor([0.3, 2.0, 0.4, -1.0]), tensor([1, 1, 1, 0])
seen = {}
for kind in (BinaryAccuracy, BinaryJaccardIndex):
    for size in (4, 2, 1):
        metric = kind()
        for start in range(0, 4, size):
            metric.update(logits[start : start + size], labels[start : start + size])
        seen[kind.__name__, size] = round(float(metric.compute()), 4)
        print(f"{kind.__name__}, batches of {size}: {seen[kind.__name__, size]}")
sys.exit(
    not (
        seen["BinaryAccuracy", 4] == seen["BinaryJaccardIndex", 4] == 1.0
        and seen["BinaryAccuracy", 1] == 0.5
        and seen["BinaryJaccardIndex", 1] == 0.3333
    )
)
PY
