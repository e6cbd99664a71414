"""rfaconv eval"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rfaconv.cli import options
from rfaconv.cli.options import console


def command(
    model: Annotated[Path, typer.Argument(help="A model.safetensors of `rfaconv train`, or its folder.")],
    data: options.DataOption = None,
    plugin: options.PluginOption = None,
    channels: options.ChannelsOption = None,
    skip_broken: options.SkipBrokenOption = False,
    check: options.CheckOption = True,
    data_seed: options.DataSeedOption = 0,
    workers: options.WorkersOption = 0,
    batch_size: Annotated[int, typer.Option(min=1, help="Images at a time.")] = 128,
) -> None:
    """Accuracy of a trained model on the validation images of a data set.

    Example:

        rfaconv eval runs/resnet10s-rfa-seed0
    """
    from rfaconv.tasks.checkpoint import load_model
    from rfaconv.tasks.classify.evaluate import evaluate

    options.use_plugins(plugin)
    network, record = load_model(model)
    images = options.read_data(data, channels, skip_broken, check, data_seed)
    found = evaluate(network, record, images, batch_size=batch_size, workers=workers, device=options.best_device())
    console.print(f"{record.model} with {record.conv} on {images.name}, {len(images.val):,} images", highlight=False)
    for name, value in found.metrics.items():
        console.print(f"{name:<6} {value:.4f}", highlight=False)
