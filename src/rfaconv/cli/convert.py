"""rfaconv convert"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rfaconv.cli import options
from rfaconv.cli.options import console
from rfaconv.errors import UserError
from rfaconv.layers.registry import conv_factory

if TYPE_CHECKING:
    from rfaconv.conversion import Summary


def command(
    checkpoint: Annotated[
        Path,
        typer.Argument(
            help="A model.safetensors of `rfaconv train --conv conv`, or its folder; "
            "with --base any state dict, .safetensors or .pth."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="Where the converted model goes.")],
    conv: Annotated[str, typer.Option(metavar="NAME", help="rfa, rfcbam, rfca, rf, cam, cbam or ca.")] = "rfa",
    base: Annotated[
        str | None,
        typer.Option(metavar="LIBRARY:NAME", help="The plain model: timm:resnet50, torchvision:resnet18, smp:unet."),
    ] = None,
    argument: Annotated[
        list[str] | None,
        typer.Option("--arg", metavar="NAME=VALUE", help="Of that model, e.g. --arg num_classes=10."),
    ] = None,
    where: Annotated[
        str | None,
        typer.Option(help="With --base: resnet, all3x3, downsample, names or globs; default: all but 1x1, depthwise."),
    ] = None,
    size: Annotated[int, typer.Option(min=1, help="With --base and --data: side of the images in pixels.")] = 224,
    data: options.DataOption = None,
    channels: options.ChannelsOption = None,
    plugin: options.PluginOption = None,
) -> None:
    """Attention convolutions into a trained model, without changing what it computes.

    The result of a classifier of `rfaconv train` is one too: `rfaconv eval` and `rfaconv predict` take it. With --base
    the result is for `rfaconv.load(FILE)`; images in --data calibrate and verify it, and are needed for places whose
    input nothing bounds from below.

    Examples:

        rfaconv convert runs/resnet10s-conv-seed0 -o converted.safetensors

        rfaconv convert resnet50.pth --base timm:resnet50 --where resnet --data ~/photos -o resnet50-rfa.safetensors
    """  # fmt: skip
    options.use_plugins(plugin)
    conv_factory(conv)
    if base is None:
        if where is not None or argument:
            raise UserError("--where and --arg go with --base; a classifier of `rfaconv train` has its places.")
        _classifier(checkpoint, out, conv, data, channels)
    else:
        _any_model(checkpoint, out, conv, base, options.read_arguments(argument), where, data, channels, size)
    console.print(f"Model: {options.shown(out)}", highlight=False, soft_wrap=True)


def _classifier(checkpoint: Path, out: Path, conv: str, data: str | None, channels: int | None) -> None:
    from rfaconv.tasks.classify.convert import convert_classifier

    images = options.read_data(data, channels, False, True, 0)
    done = convert_classifier(checkpoint, out, conv, images, device=options.best_device())
    _show(done.summary)
    before, after = done.before.metrics["top1"], done.after.metrics["top1"]
    console.print(
        f"top-1 on {images.name}: {before:.2%} before, {after:.2%} after; "
        f"{done.same:,} of {len(images.val):,} images get the same class.",
        highlight=False,
    )


def _any_model(
    checkpoint: Path,
    out: Path,
    conv: str,
    base: str,
    arguments: dict[str, Any],
    where: str | None,
    data: str | None,
    channels: int | None,
    size: int,
) -> None:
    from rfaconv.conversion.files import convert_file
    from rfaconv.tasks.classify.start import image_batches

    batches = None
    if data is not None:
        images = options.read_data(data, channels, False, True, 0)
        batches = image_batches(images, "resize", size, images.channels)
    _show(convert_file(checkpoint, out, conv, base, arguments, where=where, calibrate=batches))


def _show(summary: Summary) -> None:
    console.print(str(summary), highlight=False, markup=False, soft_wrap=True)
