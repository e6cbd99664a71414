"""Ultralytics puts an `open` of its own into PIL: reading images and what is said of broken ones stay the same."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import sys
from pathlib import Path
from PIL import Image
before = Image.open
if sys.argv[2] == "ours":
    import rfaconv.models.yolo
    assert Image.open is before
else:
    import ultralytics.utils
    assert Image.open is not before
from rfaconv.data.decode import BrokenImageError, read_image
try:
    read_image(Path(sys.argv[1]), 3)
except BrokenImageError as error:
    print(error)
"""


@pytest.mark.parametrize("importer", ["ours", "the user"])
def test_what_is_said_of_a_file_that_is_no_image(importer: str, tmp_path: Path) -> None:
    pytest.importorskip("ultralytics")
    (tmp_path / "text.png").write_text("no image")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path / "text.png"), importer],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "not an image that PIL knows"
