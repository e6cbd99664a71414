"""rfaconv predict"""

from __future__ import annotations

import csv
import io
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rfaconv.cli import options, tasks
from rfaconv.cli.options import console
from rfaconv.errors import UserError
from rfaconv.files import write_text

if TYPE_CHECKING:
    from rfaconv.tasks.classify.predict import Prediction


def command(
    model: Annotated[Path, typer.Argument(help="A model.safetensors or .pt of `rfaconv train`, or its folder.")],
    images: Annotated[list[Path], typer.Argument(help="Image files, or folders of them.")],
    top: Annotated[int, typer.Option(min=1, help="classify: how many classes to name.")] = 5,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="classify, detect: write a CSV file instead of printing. segment: the folder for the masks; default: "
            "masks.",
            show_default=False,
        ),
    ] = None,
    scales: options.ScalesOption = None,
    flip: options.FlipOption = False,
    window: options.WindowOption = None,
    overlay: Annotated[bool, typer.Option("--overlay/--no-overlay", help="segment: write overlays too.")] = True,
    plugin: options.PluginOption = None,
) -> None:
    """What a model sees in images: the most likely classes, boxes, or masks with a palette and overlays.

    Examples:

        rfaconv predict runs/resnet10s-rfa-seed0 photo.jpg more-photos/ --out predictions.csv

        rfaconv predict runs/deeplabv3plus-resnet18-rfa-seed0 photos/ --out masks
    """
    from rfaconv.data.files import find_images
    from rfaconv.tasks.checkpoint import load_model

    warnings.filterwarnings("ignore", module="PIL")  # what a broken file is like is said in our own sentence
    options.use_plugins(plugin)
    if (detector := tasks.as_detector(model)) is not None:
        options.read_manner("detect", scales, flip, window)
        _boxes(detector, find_images(images), out)
        return
    network, record = load_model(model)
    paths = find_images(images)
    manner = options.read_manner(record.task, scales, flip, window)
    if record.task == "segment":
        failed = _masks(network, record, paths, out or Path("masks"), manner, overlay)
    else:
        failed = _classes(network, record, paths, top, out)
    if failed:
        raise UserError(f"{len(failed)} of {len(paths)} files could not be read, e.g. '{failed[0]}'.")


def _check_out(out: Path | None, paths: list[Path]) -> None:
    """Refuse to write a table over an image, or under an image's name."""
    from rfaconv.data.files import is_image

    if out is not None and (is_image(out.name) or out.resolve() in {path.resolve() for path in paths}):
        raise UserError(f"--out is the CSV file to write, and '{out}' is an image; choose another --out.")


def _boxes(model: Path, paths: list[Path], out: Path | None) -> None:
    """Print or write the boxes of each image."""
    _check_out(out, paths)
    from rfaconv.tasks.detect.predict import as_csv, predict

    found = list(predict(model, paths))
    if out is not None:
        write_text(out, as_csv(found))
        console.print(f"Predictions: {options.shown(out)}", highlight=False, soft_wrap=True)
    else:
        for prediction in found:
            console.print(prediction.error or str(prediction), highlight=False, markup=False, soft_wrap=True)
    broken = [prediction for prediction in found if prediction.error]
    if broken:
        raise UserError(f"{len(broken)} of {len(found)} files could not be read, e.g. '{broken[0].path}'.")


def _classes(network: Any, record: Any, paths: list[Path], top: int, out: Path | None) -> list[Path]:
    """Print or write the classes of each image; returns the files that could not be read."""
    _check_out(out, paths)
    from rfaconv.tasks.classify.predict import predict

    found = list(predict(network, record, paths, top=top, device=options.best_device()))
    if out is not None:
        write_text(out, _as_csv(found, min(top, len(record.classes))))
        console.print(f"Predictions: {options.shown(out)}", highlight=False, soft_wrap=True)
    else:
        for prediction in found:
            console.print(_line(prediction), highlight=False, markup=False, soft_wrap=True)
    return [prediction.path for prediction in found if prediction.error]


def _masks(network: Any, record: Any, paths: list[Path], out: Path, manner: Any, overlay: bool) -> list[Path]:
    """Write the masks; a line an image, as it is done; returns the files that could not be read."""
    from rfaconv.tasks.segment.predict import predict_files

    failed = []
    device = options.best_device()
    for written in predict_files(network, record, paths, out, manner=manner, overlays=overlay, device=device):
        said = ", ".join(f"{name} {share:.1%}" for name, share in written.shares[:5])
        console.print(f"{written.path}: {written.error or said}", highlight=False, markup=False, soft_wrap=True)
        if written.error:
            failed.append(written.path)
    if len(failed) < len(paths):
        console.print(f"Masks: {options.shown(out)}", highlight=False, soft_wrap=True)
    return failed


def _line(prediction: Prediction) -> str:
    said = ", ".join(f"{name} {share:.1%}" for name, share in prediction.classes)
    return f"{prediction.path}: {prediction.error or said}"


def _as_csv(found: list[Prediction], top: int) -> str:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    ranks = [f"{what}{rank}" for rank in range(1, top + 1) for what in ("class", "probability")]
    table.writerow(["file", *ranks, "error"])
    for prediction in found:
        cells = [cell for name, share in prediction.classes for cell in (name, f"{share:.6f}")]
        table.writerow([prediction.path, *(cells or [""] * 2 * top), prediction.error or ""])
    return text.getvalue()
