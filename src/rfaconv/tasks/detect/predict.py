"""What a detector finds in image files."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from rfaconv.data.decode import BrokenImageError, read_image
from rfaconv.models.yolo import YOLO, library
from rfaconv.tasks.detect.evaluate import best_device, trained_size


@dataclass(frozen=True)
class Prediction:
    """The boxes of one image, the most confident first: class, confidence, left, top, right, bottom in pixels."""

    path: Path
    boxes: tuple[tuple[str, float, float, float, float, float], ...] = ()
    error: str | None = None

    def __str__(self) -> str:
        said = ", ".join(
            f"{name} {share:.2f} ({x:.0f} {y:.0f} {r:.0f} {b:.0f})" for name, share, x, y, r, b in self.boxes
        )
        return f"{self.path}: {said or 'nothing'}"


def predict(model: Path, paths: Sequence[Path], *, confidence: float = 0.25) -> Iterator[Prediction]:
    """Run a detector (.pt or .onnx) over image files, one at a time; one that cannot be read has an error."""
    size, detector = trained_size(model), YOLO(model, task="detect")
    for path in paths:
        try:
            image = Image.fromarray(read_image(path, 3).permute(1, 2, 0).numpy())
        except BrokenImageError as error:
            yield Prediction(path, error=f"{path}: {error}")
            continue
        with library.quietly():
            found = detector.predict(image, imgsz=size, conf=confidence, device=best_device("auto"), verbose=False)[0]
        boxes = (
            (str(found.names[int(label)]), share, left, top, right, bottom)
            for left, top, right, bottom, share, label in found.boxes.data[:, :6].tolist()
        )
        yield Prediction(path, tuple(sorted(boxes, key=lambda box: -box[1])))


def as_csv(found: Sequence[Prediction]) -> str:
    """A line a box."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["file", "class", "confidence", "left", "top", "right", "bottom", "error"])
    for prediction in found:
        for name, share, *corners in prediction.boxes:
            table.writerow([prediction.path, name, f"{share:.6f}", *(f"{value:.2f}" for value in corners), ""])
        if prediction.error:
            table.writerow([prediction.path, *[""] * 6, prediction.error])
    return text.getvalue()
