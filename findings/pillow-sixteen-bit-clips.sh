#!/usr/bin/env bash
# Pillow 13.0.0, opencv-python 5.0.0.93 (numpy 2.4.6). No torch needed.
#
# A 16-bit grey PNG (X-ray, depth, infra-red: values 0 to 60000) is read as 8-bit RGB
# with Pillow, Image.open(...).convert("RGB") as torchvision's ImageFolder does, and with
# cv2.imread(..., IMREAD_COLOR), as cv2-based pipelines do.
#
# Guess: both scale 16 bits to 8, so the two pictures agree within rounding.
# Seen: OpenCV keeps the high byte (0, 15, 31, ... 234). Pillow clips: each value above
# 255 becomes 255. Of 16 grey levels two are left, the picture is white. convert("L")
# does the same. Nothing is raised or warned, and a model trains on white images.
#
# Exit status: 0 as described, 1 if the behaviour changed.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install -q --disable-pip-version-check pillow==13.0.0 opencv-python==5.0.0.93 numpy==2.4.6
cd "$dir"
"$dir/venv/bin/python" - <<'PY'
import sys

import cv2
import numpy as np
from PIL import Image

levels = (np.arange(16) * 4000).astype(np.uint16).reshape(4, 4)
cv2.imwrite("grey.png", levels)
opened = Image.open("grey.png")
pillow = np.array(opened.convert("RGB"))[..., 0]
grey = np.array(opened.convert("L"))
other = cv2.imread("grey.png", cv2.IMREAD_COLOR)[..., 0]
print("mode", opened.mode, "values", levels.flatten().tolist())
print("Pillow RGB", pillow.flatten().tolist())
print("OpenCV    ", other.flatten().tolist())
sys.exit(
    not (
        np.array_equal(np.array(opened), levels)
        and np.array_equal(pillow, np.minimum(levels, 255))
        and np.array_equal(grey, pillow)
        and np.array_equal(other, levels // 256)
    )
)
PY
