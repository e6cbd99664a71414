#!/usr/bin/env bash
# Pillow 13.0.0 (numpy 2.4.6). No torch needed.
#
# A mask of class indices (0, 1, 2 and 255 for "ignore") gets a palette with one
# colour for each of the three classes and is saved as PNG, as VOC masks are.
#
# Guess: a palette only says how indices are shown, so the indices come back.
# Seen: the writer takes the bit depth from the length of the palette, not from
# the pixels. Three colours make a 2-bit PNG and each index keeps its two low
# bits: 255 comes back as 3. Nothing is raised or warned. With one more class
# than fits (4 colours and index 5) the index lands on another real class: 1.
# A palette of 256 colours keeps every index.
#
# Exit status: 0 as described, 1 if the behaviour changed.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install -q --disable-pip-version-check pillow==13.0.0 numpy==2.4.6
cd "$dir"
"$dir/venv/bin/python" - <<'PY'
import io
import sys

import numpy as np
from PIL import Image


def again(values: list[int], colours: int) -> list[int]:
    """The indices that come back when a palette has this many colours."""
    image = Image.fromarray(np.array([values], np.uint8))
    image.putpalette([7 * i % 256 for i in range(3 * colours)])
    file = io.BytesIO()
    image.save(file, "PNG")
    return np.array(Image.open(file))[0].tolist()


values = [0, 1, 2, 255]
short, full, other = again(values, 3), again(values, 256), again([0, 1, 2, 5], 4)
print("written", values, "| 3 colours:", short, "| 256 colours:", full)
print("written [0, 1, 2, 5] | 4 colours:", other)
sys.exit(not (short == [0, 1, 2, 3] and full == values and other == [0, 1, 2, 1]))
PY
