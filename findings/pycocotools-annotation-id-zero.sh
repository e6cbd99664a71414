#!/usr/bin/env bash
# pycocotools 2.0.11 (numpy 2.4.6). No torch needed.
#
# Two images with one object each, found exactly: AP is 1. The same file with the
# annotations numbered 0 and 1 instead of 1 and 2, as enumerate() would number
# them, and the same detections.
#
# Guess: an id is a name, the scores are equal.
# Seen: AP falls from 1.0 to 0.252 and AR from 1.0 to 0.5. COCOeval notes the id of
# the matched annotation for each detection and reads 0 as "not matched", so the
# detection that finds object 0 counts as a false positive. Nothing is raised or
# warned. It costs one object a data set: large in a small validation set, in a
# big one too small to notice. (faster-coco-eval 1.8.0 gives the same figures,
# with a warning.)
#
# Exit status: 0 as described, 1 if the behaviour changed.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install -q --disable-pip-version-check pycocotools==2.0.11 numpy==2.4.6
cd "$dir"
"$dir/venv/bin/python" - <<'PY'
import contextlib
import io
import json
import sys

from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

BOX = [10, 10, 20, 20]


def scores(first: int) -> tuple[float, float]:
    """AP and AR at 100 detections when the annotation ids start at ``first``."""
    truth = {
        "images": [{"id": i, "file_name": f"{i}.png", "width": 100, "height": 100} for i in (1, 2)],
        "categories": [{"id": 1, "name": "tree"}],
        "annotations": [
            {"id": first + i, "image_id": i + 1, "category_id": 1, "bbox": BOX, "area": 400, "iscrowd": 0}
            for i in (0, 1)
        ],
    }
    found = [{"image_id": i, "category_id": 1, "bbox": BOX, "score": 1 - i / 10} for i in (1, 2)]
    with open("truth.json", "w") as file:
        json.dump(truth, file)
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO("truth.json")
        run = COCOeval(coco, coco.loadRes(found), "bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()
    return round(float(run.stats[0]), 4), round(float(run.stats[8]), 4)


zero, one = scores(0), scores(1)
print("ids from 1: AP, AR", one, "| ids from 0: AP, AR", zero)
sys.exit(not (one == (1.0, 1.0) and zero == (0.2525, 0.5)))
PY
