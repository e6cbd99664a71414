"""The embedded scenes as a data set in Ultralytics' form, written once into the user's cache."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from PIL import Image

from rfaconv.data.detection.boxes import Box, BoxedImage
from rfaconv.data.detection.write import data_yaml, label_text
from rfaconv.data.files import quoted
from rfaconv.data.scenes import SCENE_CLASSES, SceneData, Scenes, load_scenes
from rfaconv.data.scenes.load import VERSION
from rfaconv.errors import UserError


def scenes_folder(*, train: int, test: int = 400, size: int = 96, seed: int = 0) -> Path:
    """The folder of the data.yaml, images/ and labels/ of these scenes; arguments as `load_scenes`.

    It lies in $XDG_CACHE_HOME or ~/.cache, rfaconv/detection/; the same arguments give the same bytes.

    Raises:
        UserError: the cache cannot be written (Ultralytics reads files).
    """
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rfaconv" / "detection"
    folder = base / f"scenes-v{VERSION}-{train}+{test}x{size}-seed{seed}"
    if not (folder / "data.yaml").is_file():
        try:
            _write(folder, load_scenes(train=train, test=test, size=size, seed=seed))
        except OSError as error:
            raise UserError(
                f"The embedded scenes cannot be written to {quoted(base)} ({error.strerror}): let XDG_CACHE_HOME "
                "name a folder that can be written."
            ) from error
    return folder


def boxed(scenes: Scenes, index: int, path: Path) -> BoxedImage:
    """Scene `index`, whose image lies at `path`."""
    height, width = scenes.images.shape[1:3]
    boxes, labels = scenes.items(index)
    found = (Box(int(label), *(float(value) for value in box)) for label, box in zip(labels, boxes, strict=True))
    return BoxedImage(path, width, height, tuple(found))


def _write(folder: Path, scenes: SceneData) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        for part, found in (("train", scenes.train), ("val", scenes.test)):
            (made / "images" / part).mkdir(parents=True)
            (made / "labels" / part).mkdir(parents=True)
            for index in range(len(found)):
                path = made / "images" / part / f"{index:05d}.png"
                Image.fromarray(found.images[index]).save(path, compress_level=1)
                (made / "labels" / part / f"{index:05d}.txt").write_text(label_text(boxed(found, index, path)), "utf-8")
        (made / "data.yaml").write_text(data_yaml(("train", "val"), SCENE_CLASSES), "utf-8")
        made.chmod(0o755)
        made.rename(folder)
    except OSError:
        if not (folder / "data.yaml").is_file():  # else another process was faster
            raise
    finally:
        shutil.rmtree(made, ignore_errors=True)
