#!/bin/sh
# datumaro 1.13.12 (PyPI), Linux, Python 3.11.
#
# A mask that is a ring (30 x 24 pixels with a hole of 14 x 12: 552 pixels), exported as COCO:
#   - without the attribute is_crowd: run lengths of 552 pixels, and iscrowd 1;
#   - with is_crowd False, as one writes it to have an object and no crowd: one polygon without the hole, through the
#     centres of the outermost pixels, so 29 x 23; its area is 667, while bbox still says 30 x 24.
# One would guess that the attribute decides iscrowd alone. Every mask that is marked as no crowd loses its holes, and a
# pixel of its width and height, in silence.
#
# Seen:
#   default:        iscrowd 1, runs, 552 pixels, area 552.0, bbox [20.0, 10.0, 30.0, 24.0]
#   is_crowd False: iscrowd 0, 1 polygon, area 667.0, bbox [20.0, 10.0, 30.0, 24.0]
set -eu
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet "datumaro==1.13.12"
"$place/venv/bin/python" - "$place" <<'PY'
import json
import sys

import numpy as np
from datumaro.components.annotation import Mask
from datumaro.components.dataset import Dataset
from datumaro.components.dataset_base import DatasetItem
from datumaro.components.media import Image

ring = np.zeros((60, 80), bool)
ring[10:34, 20:50] = True
ring[16:28, 28:42] = False
assert ring.sum() == 552
found = {}
for name, attributes in (("default", {}), ("is_crowd False", {"is_crowd": False})):
    image = Image.from_numpy(data=np.zeros((60, 80, 3), np.uint8), ext=".png")
    item = DatasetItem(id="a", subset="train", media=image, annotations=[Mask(ring, label=0, attributes=attributes)])
    folder = f"{sys.argv[1]}/{len(found)}"
    Dataset.from_iterable([item], categories=["cat"]).export(folder, "coco_instances", save_media=False)
    [entry] = json.load(open(f"{folder}/annotations/instances_train.json"))["annotations"]
    shape = entry["segmentation"]
    pixels = sum(shape["counts"][1::2]) if isinstance(shape, dict) else None
    print(f"{name}: iscrowd {entry['iscrowd']},", f"runs, {pixels} pixels," if pixels else f"{len(shape)} polygon,",
          f"area {entry['area']}, bbox {entry['bbox']}")
    found[name] = (entry["iscrowd"], pixels, None if pixels else len(shape), entry["area"], entry["bbox"])
box = [20.0, 10.0, 30.0, 24.0]
assert found == {"default": (1, 552, None, 552.0, box), "is_crowd False": (0, None, 1, 667.0, box)}, found
PY
