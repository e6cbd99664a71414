"""`load_detection`: a data.yaml, or the embedded scenes, as training and validation data with boxes."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import yaml

from rfaconv.data.detection.boxes import BoxedImage, settle
from rfaconv.data.detection.findings import Findings
from rfaconv.data.detection.pointers import load_pointer, local_copy, pointer_names
from rfaconv.data.detection.scenes import scenes_folder
from rfaconv.data.detection.yolo import find_yaml, read_yolo
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
            (folder / f"{part}.txt").write_text(lines, "utf-8")
        (folder / "data.yaml").write_text(self.yaml(folder), "utf-8")
        return folder / "data.yaml"


def load_detection(
    root: str | Path | None = None,
    *,
    scenes: tuple[int, int, int, int] | None = None,
    verify: bool = True,
    progress: Progress | None = None,
) -> DetectionData:
    """Read and check a data set in Ultralytics' form: every label file, and every image.

    Args:
        root: a folder with a data.yaml, or that file; None or "embedded" for the embedded scenes.
        scenes: of those, how many for training and test, their size and their seed.
        verify: decode every image now (once: the result is cached). False: only its header is read.
        progress: called with (images done, images in all) meanwhile.

    Raises:
        UserError: not in that form (`rfaconv data convert` brings others into it), or something is wrong with it.
    """
    if root is None or root == "embedded":
        train, test, size, seed = scenes or SCENES
        folder = scenes_folder(train=train, test=test, size=size, seed=seed)
        return _read(folder, folder / "data.yaml", "scenes (embedded)", (size, size))
    path = Path(root).expanduser()
    if not path.exists() and (name := path.name.lower().removesuffix(".yaml")) in pointer_names():
        raise UserError(
            f"{load_pointer(name).name} is converted first: `rfaconv data convert {quoted(local_copy(name))} "
            f"{name}-yolo`; --data takes that folder then."
        )
    if path.suffix.lower() in (".yaml", ".yml"):
        if not path.is_file():
            raise UserError(f"There is no file {quoted(path)}.")
        return _verified(path.parent.resolve(), path, path.parent.resolve().name, verify, progress)
    folder = existing_folder(path)
    found = find_yaml(folder)
    if found is None:
        raise UserError(
            f"{quoted(folder)} has no data.yaml: `rfaconv data convert {folder} NEW_FOLDER` makes one of VOC's or "
            "COCO's annotations."
        )
    return _verified(folder, found, folder.name, verify, progress)


def _verified(root: Path, path: Path, name: str, verify: bool, progress: Progress | None) -> DetectionData:
    data = _read(root, path, name, None)
    if verify:
        names = [str(image.path) for image in (*data.train, *data.val)]
        broken = find_broken(root, stat_files(root, names), 3, progress)
        if broken:
            raise UserError(broken_message(root, broken, len(names), "put whole files there, or take these out"))
    return data


def _read(root: Path, path: Path, name: str, size: tuple[int, int] | None) -> DetectionData:
    findings = Findings()
    source = read_yolo(root, path, findings)
    targets = {label: target for target, label in enumerate(source.classes)}
    parts = {
        part: [image for record in records if (image := settle(record, targets, findings)) is not None]
        for part, records in source.parts.items()
    }
    findings.refuse(root)
    for part in ("train", "val"):
        if not parts.get(part):
            raise UserError(f"{quoted(path)} has no images for {part}.")
        if not any(image.boxes for image in parts[part]):
            raise UserError(f"{quoted(path)} has no boxes for {part}: no labels beside its images?")
    digest = hashlib.sha256("\0".join(source.classes).encode())
    for part in ("train", "val"):
        for image in sorted(parts[part], key=lambda image: str(image.path)):
            digest.update(os.fsencode(f"{part}\0{image.path.name}\0{image.path.stat().st_size}\0{image.boxes}\0"))
    return DetectionData(
        name, source.classes, tuple(parts["train"]), tuple(parts["val"]), digest.hexdigest()[:16], size
    )
