"""`load_detection`: a data.yaml, or the embedded scenes, as training and validation data with boxes."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import yaml

from rfaconv.data.annotations.issues import Issues
from rfaconv.data.annotations.layouts import read_source
from rfaconv.data.annotations.parts import Source
from rfaconv.data.annotations.yolo import read_yaml
from rfaconv.data.detection.boxes import BoxedImage
from rfaconv.data.detection.parts import checked_parts, with_validation
from rfaconv.data.detection.pointers import local_copy, pointer_names
from rfaconv.data.detection.scenes import scenes_folder
from rfaconv.data.files import existing_folder, quoted
from rfaconv.data.verify import Progress, broken_message, find_broken, stat_files
from rfaconv.errors import UserError

SCENES = (9600, 400, 96, 0)
"""Embedded scenes: for training (three times as many as for segmentation, seen less often), for test, size and seed."""


@dataclass(frozen=True)
class DetectionData:
    """Images with boxes, in two parts, as Ultralytics reads them from files."""

    name: str
    """The folder's name, or "scenes (embedded)"."""
    classes: tuple[str, ...]
    train: tuple[BoxedImage, ...]
    val: tuple[BoxedImage, ...]
    fingerprint: str
    """16 hex digits of a SHA-256 over classes, the images' names and sizes in bytes, and their boxes."""
    image_size: tuple[int, int] | None = None
    """(height, width) if all images share it by construction (scenes), else None."""
    skipped: tuple[str, ...] = ()
    """None: what is wrong is refused; `rfaconv data convert --lenient` mends it."""
    notes: tuple[str, ...] = ()
    """What was decided or left out while reading, a line each."""
    test: tuple[BoxedImage, ...] = ()
    """A third part, where there is one; nothing is trained or judged on it."""

    def yaml(self, folder: Path) -> str:
        """Ultralytics' data.yaml, beside lists of the images that `write` puts into `folder`."""
        record = {
            "path": str(folder.resolve()),
            "train": "train.txt",
            "val": "val.txt",
            "names": dict(enumerate(self.classes)),
        }
        return yaml.safe_dump(record, sort_keys=False, allow_unicode=True)

    def write(self, folder: Path) -> Path:
        """Write data.yaml, train.txt and val.txt into `folder`; returns the first one's path."""
        folder.mkdir(parents=True, exist_ok=True)
        for part, images in (("train", self.train), ("val", self.val)):
            lines = "".join(f"{image.path.absolute()}\n" for image in images)
            (folder / f"{part}.txt").write_bytes(os.fsencode(lines))  # a name may be no UTF-8
        (folder / "data.yaml").write_text(self.yaml(folder), "utf-8")
        return folder / "data.yaml"


def load_detection(
    root: str | Path | None = None,
    *,
    scenes: tuple[int, int, int, int] | None = None,
    seed: int = 0,
    val_fraction: float = 0.2,
    verify: bool = True,
    progress: Progress | None = None,
) -> DetectionData:
    """Read and check a data set in any known layout: every annotation file, and every image.

    Args:
        root: a folder, an archive, or a data.yaml; None or "embedded" for the embedded scenes.
        scenes: of those, how many for training and test, their size and their seed.
        seed: chooses the images that are held out, where there is no validation part.
        val_fraction: how large a part that is.
        verify: decode every image now (once: the result is cached). False: only its header is read.
        progress: called with (images done, images in all) meanwhile.

    Raises:
        UserError: no known layout, or something is wrong (`rfaconv data convert --lenient` repairs and counts it).
    """
    if root is None or root == "embedded":
        train, test, size, scenes_seed = scenes or SCENES
        folder = scenes_folder(train=train, test=test, size=size, seed=scenes_seed)
        issues = Issues()
        source = read_yaml(folder, folder / "data.yaml", issues)
        return _checked(folder, source, issues, "scenes (embedded)", (seed, val_fraction), (size, size))
    path = Path(root).expanduser()
    if not path.exists() and (name := path.name.lower().removesuffix(".yaml")) in pointer_names():
        path = local_copy(name)
    issues = Issues()
    if path.suffix.lower() in (".yaml", ".yml"):
        if not path.is_file():
            raise UserError(f"There is no file {quoted(path)}.")
        folder = path.parent.resolve()
        source = read_yaml(folder, path, issues)
    else:
        folder = existing_folder(path)
        source = read_source(folder, issues)
    data = _checked(folder, source, issues, folder.name, (seed, val_fraction))
    if verify:
        names = [str(image.path) for image in (*data.train, *data.val)]
        broken = find_broken(folder, stat_files(folder, names), 3, progress)
        if broken:
            raise UserError(broken_message(folder, broken, len(names), "put whole files there, or take these out"))
    return data


def _checked(
    root: Path,
    source: Source,
    issues: Issues,
    name: str,
    held_out: tuple[int, float],
    size: tuple[int, int] | None = None,
) -> DetectionData:
    parts = checked_parts(root, source, issues)
    issues.refuse(root, "let `rfaconv data convert DIR OUT --lenient` repair and count them")
    parts = with_validation(root, parts, held_out[1], held_out[0], issues)
    for part in ("train", "val"):
        if not any(image.boxes for image in parts[part]):
            raise UserError(f"{quoted(root)} has no boxes for {part}: no labels beside its images?")
    digest = hashlib.sha256("\0".join(source.classes).encode())
    for part in ("train", "val"):
        for image in sorted(parts[part], key=lambda image: str(image.path)):
            digest.update(os.fsencode(f"{part}\0{image.path.name}\0{image.path.stat().st_size}\0{image.boxes}\0"))
    return DetectionData(
        name,
        source.classes,
        tuple(parts["train"]),
        tuple(parts["val"]),
        digest.hexdigest()[:16],
        size,
        notes=tuple(issues.told()),
        test=tuple(parts.get("test", ())),
    )
