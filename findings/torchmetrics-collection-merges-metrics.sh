#!/usr/bin/env bash
# torchmetrics 1.9.0, torch 2.14.1 (numpy 2.4.6). Needs torch (5 GB); FINDINGS_VENV
# names a venv to share.
#
# A MetricCollection holds the same accuracy twice, once with ignore_index=2 and once
# without; another holds F1 at thresholds 0.5 and 0.7. The first batch has no pixel
# of class 2, and no score between the thresholds.
#
# Guess: metrics share their counts only where class and arguments say that they
# count the same.
# Seen: the collection compares the counts after the first update only. They are
# equal, so the two metrics become one group, and from then on only its first one (by
# name) counts: "ignoring" reports 0.625 where the same metric alone gives 0.8333, F1
# at 0.5 ("low") reports the 0.8 of F1 at 0.7 ("high") where it is 0.8571. Nothing is
# raised or warned. With the same batches in the other order, or with
# compute_groups=False, the figures are right.
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
from torchmetrics import MetricCollection
from torchmetrics.classification import BinaryF1Score, MulticlassAccuracy


def values(metrics, batches, **options):
    """Values of the metrics in one collection, rounded."""
    collection = MetricCollection(metrics, **options)
    for batch in batches:
        collection.update(*batch)
    return {name: round(float(value), 4) for name, value in collection.compute().items()}


def accuracies():
    return {
        "all": MulticlassAccuracy(3, average="micro"),
        "ignoring": MulticlassAccuracy(3, average="micro", ignore_index=2),
    }


def f1s():
    return {"low": BinaryF1Score(threshold=0.5), "high": BinaryF1Score(threshold=0.7)}


pixels = [
    (tensor([0, 1, 0, 1]), tensor([0, 1, 1, 1])),
    (tensor([0, 1, 0, 1]), tensor([2, 2, 0, 1])),
]
scores = [(tensor([0.9, 0.1]), tensor([1, 0])), (tensor([0.6, 0.6, 0.9]), tensor([1, 0, 1]))]
got = [values(accuracies(), pixels), values(f1s(), scores)]
right = [
    values(accuracies(), pixels, compute_groups=False),
    values(f1s(), scores, compute_groups=False),
]
turned = values(accuracies(), pixels[::-1])
print("as a collection:", got)
print("without groups: ", right)
print("batches turned round:", turned)
sys.exit(
    not (
        got == [{"all": 0.625, "ignoring": 0.625}, {"low": 0.8, "high": 0.8}]
        and right == [{"all": 0.625, "ignoring": 0.8333}, {"low": 0.8571, "high": 0.8}]
        and turned == right[0]
    )
)
PY
