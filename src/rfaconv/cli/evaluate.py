"""rfaconv eval"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from rfaconv.cli import options, tasks
from rfaconv.cli.options import console


def command(
    model: Annotated[Path, typer.Argument(help="A model.safetensors or .pt of `rfaconv train`, or its folder.")],
    data: options.DataOption = None,
    plugin: options.PluginOption = None,
    channels: options.ChannelsOption = None,
    skip_broken: options.SkipBrokenOption = False,
    check: options.CheckOption = True,
    data_seed: options.DataSeedOption = 0,
    workers: options.WorkersOption = 0,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Images at a time; default: 128, segment: 16.", show_default=False)
    ] = None,
    scales: options.ScalesOption = None,
    flip: options.FlipOption = False,
    window: options.WindowOption = None,
) -> None:
    """Accuracy of a trained model on the validation images of a data set.

    Examples:

        rfaconv eval runs/resnet10s-rfa-seed0

        rfaconv eval runs/deeplabv3plus-resnet10-rfa-seed0 --scales 0.75,1,1.25 --flip
    """
    from rfaconv.tasks.checkpoint import load_model

    options.use_plugins(plugin)
    if (detector := tasks.as_detector(model)) is not None:
        options.read_manner("detect", scales, flip, window)
        _detect(detector, tasks.DataWords(data, channels, skip_broken, check, data_seed), batch_size or 16)
        return
    network, record = load_model(model)
    manner = options.read_manner(record.task, scales, flip, window)
    words = tasks.DataWords(data, channels, skip_broken, check, data_seed)
    where: dict[str, Any] = {"workers": workers, "device": options.best_device()}
    if record.task == "segment":
        metrics, images = _segment(network, record, words, manner, batch_size or 16, where)
    else:
        from rfaconv.tasks.classify.evaluate import evaluate

        images = options.read_data(data, channels, skip_broken, check, data_seed)
        metrics = evaluate(network, record, images, batch_size=batch_size or 128, **where).metrics
    console.print(f"{record.model} with {record.conv} on {images.name}, {len(images.val):,} images", highlight=False)
    width = max(6, *map(len, metrics))
    for name, value in metrics.items():
        console.print(f"{name:<{width}} {value:.4f}", highlight=False, markup=False)


def _detect(model: Path, words: tasks.DataWords, batch_size: int) -> None:
    from rfaconv.tasks.detect.evaluate import best_device, evaluate, trained_size

    images = tasks.read_boxed_data(words)
    found = evaluate(
        model, images, image_size=trained_size(model), batch_size=batch_size, device=best_device("auto")
    ).scores
    console.print(f"{options.shown(model)} on {images.name}, {len(images.val):,} images", highlight=False)
    classes = {f"AP {name}": value for name, value in zip(images.classes, found.class_ap, strict=True)}
    figures = {name: value for name, value in {**found.metrics, **classes}.items() if value == value}
    for name, value in figures.items():
        console.print(f"{name:<{max(map(len, figures))}} {value:.4f}", highlight=False, markup=False)


def _segment(
    network: Any, record: Any, words: tasks.DataWords, manner: Any, batch_size: int, where: dict[str, Any]
) -> tuple[dict[str, float], Any]:
    from rfaconv.tasks.segment.evaluate import evaluate

    images = tasks.read_masked_data(words)
    found = evaluate(network, record, images, manner=manner, batch_size=batch_size, **where)
    classes = zip(record.classes, found.class_iou, strict=True)
    return found.metrics | {f"IoU {name}": value for name, value in classes}, images
