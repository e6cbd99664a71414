"""The one place where Ultralytics (AGPL-3.0, extra `detect`) comes in: quiet, offline unless asked, nothing installed.

Whatever is imported from `rfaconv.models.yolo`, this comes first; nothing of it is imported unless a detection model
is asked for.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# Ultralytics reads these once, when it is imported. YOLO_OFFLINE=0 in the environment lets it use the network.
os.environ.setdefault("YOLO_OFFLINE", "1")
os.environ.setdefault("YOLO_AUTOINSTALL", "0")

import torch
from PIL import Image

from rfaconv.errors import require
from rfaconv.plugins import load_plugins

# It puts an `open` of its own into PIL, which looks for a package wherever a file is no image; and it sets one thread,
# for all processes that follow, and a level at which torch's profiler talks.
_unset = [name for name in ("OMP_NUM_THREADS", "KINETO_LOG_LEVEL") if name not in os.environ]
_open = Image.open
ultralytics = require("ultralytics", "detect")
Image.open = _open
for _name in _unset:
    os.environ.pop(_name, None)

PLUGINS = "RFACONV_PLUGINS"
"""The environment variable by which Ultralytics' worker processes learn of the user's own layers."""


@contextmanager
def quietly() -> Iterator[None]:
    """Ultralytics says errors only, inside the block, and leaves torch's threads as they were after it."""
    from ultralytics.utils import LOGGER

    level, threads = LOGGER.level, torch.get_num_threads()
    LOGGER.setLevel(logging.ERROR)
    try:
        yield
    finally:
        LOGGER.setLevel(level)
        torch.set_num_threads(threads)


def put_font() -> None:
    """Give Ultralytics' plots a font; it would fetch one from the network."""
    from matplotlib import get_data_path
    from ultralytics.utils import USER_CONFIG_DIR

    target = Path(USER_CONFIG_DIR) / "Arial.ttf"
    if not target.exists():
        with suppress(OSError):
            shutil.copyfile(Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", target)


put_font()
load_plugins([path for path in os.environ.get(PLUGINS, "").split(os.pathsep) if path])
