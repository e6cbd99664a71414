"""rfaconv predict"""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rfaconv.cli import options
from rfaconv.cli.options import console
from rfaconv.errors import UserError
from rfaconv.files import write_text

if TYPE_CHECKING:
    from rfaconv.tasks.classify.predict import Prediction


def command(
    model: Annotated[Path, typer.Argument(help="A model.safetensors of `rfaconv train`, or its folder.")],
    images: Annotated[list[Path], typer.Argument(help="Image files, or folders of them.")],
    top: Annotated[int, typer.Option(min=1, help="How many classes to name.")] = 5,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a CSV file instead of printing.")] = None,
    plugin: options.PluginOption = None,
) -> None:
    """The most likely classes of images, with their probabilities.

    Example:

        rfaconv predict runs/resnet10s-rfa-seed0 photo.jpg more-photos/ --out predictions.csv
    """
    from rfaconv.tasks.checkpoint import load_model
    from rfaconv.tasks.classify.predict import find_images, predict

    options.use_plugins(plugin)
    network, record = load_model(model)
    found = list(predict(network, record, find_images(images), top=top, device=options.best_device()))
    if out is not None:
        write_text(out, _as_csv(found, min(top, len(record.classes))))
        console.print(f"Predictions: {options.shown(out)}", highlight=False, soft_wrap=True)
    else:
        for prediction in found:
            console.print(_line(prediction), highlight=False, markup=False, soft_wrap=True)
    broken = [prediction for prediction in found if prediction.error]
    if broken:
        raise UserError(f"{len(broken)} of {len(found)} files could not be read, e.g. '{broken[0].path}'.")


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
