"""rfaconv profile layers, rfaconv profile models"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import torch
import typer

from rfaconv.cli import options
from rfaconv.cli.options import console
from rfaconv.errors import UserError
from rfaconv.files import replacing
from rfaconv.ops import use_backend

app = typer.Typer(help="What layers and models cost, beside Conv2d and the plain formula.", no_args_is_help=True)

ConvsOption: TypeAlias = Annotated[str, typer.Option(metavar="NAMES", help="Convolutions, with commas.")]
RoundsOption: TypeAlias = Annotated[int, typer.Option(min=1, help="Timed calls of each.")]
DeviceOption: TypeAlias = Annotated[str, typer.Option(help="cpu or cuda.")]
ShapeOption: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--shape",
        metavar="SHAPE",
        help="Measure here instead of at the seven standard shapes, one option a shape, written as in the table: the "
        "input as BxCxHxW, then to128 (output channels), s2 (stride), k5 (kernel) where they are not C, 1 and 3.",
        show_default=False,
    ),
]
DtypeOption: TypeAlias = Annotated[str, typer.Option(help="float32, bfloat16 or float16: of parameters and input.")]
BackendOption: TypeAlias = Annotated[
    str, typer.Option(metavar="NAME", help="Who computes the layers; `rfaconv info` lists them.")
]
ThreadsOption: TypeAlias = Annotated[int | None, typer.Option(min=1, help="Threads of a CPU; default: torch's own.")]
CsvOption: TypeAlias = Annotated[
    Path | None, typer.Option("--csv", metavar="FILE", help="Write every figure, with machine and versions.")
]
MarkdownOption: TypeAlias = Annotated[
    Path | None, typer.Option("--markdown", metavar="FILE", help="Write the table as a section of a document.")
]
PlotOption: TypeAlias = Annotated[
    Path | None, typer.Option("--plot", metavar="FILE", help="Draw the ratios by shape, as .png or .svg.")
]


@app.command("layers")
def layers(
    convs: ConvsOption = "rfa,rfcbam,rfca,cam,cbam,ca",
    shape: ShapeOption = None,
    rounds: RoundsOption = 15,
    device: DeviceOption = "cpu",
    dtype: DtypeOption = "float32",
    backend: BackendOption = "auto",
    threads: ThreadsOption = None,
    csv: CsvOption = None,
    markdown: MarkdownOption = None,
    plot: PlotOption = None,
    plugin: options.PluginOption = None,
) -> None:
    """Each layer against Conv2d of the same shape: time and memory, inference and training, in alternation.

    Example:

        rfaconv profile layers --convs rfa --csv layers.csv --plot layers.png

        rfaconv profile layers --convs rfa,ca --shape 8x64x56x56k5 --shape 1x32x80x80to64s2 --threads 1
    """
    from rfaconv.profiling import SHAPES, layer_costs, machine, parse_shape
    from rfaconv.profiling.plots import layers_plot, plot_format
    from rfaconv.profiling.records import layers_csv
    from rfaconv.profiling.tables import layer_table, layers_markdown

    options.use_plugins(plugin)
    _use(device, threads)
    shapes = list(dict.fromkeys(map(parse_shape, shape or []))) or SHAPES
    # Before the minutes of measuring, not after them.
    drawn_as = None if plot is None else plot_format(plot)
    with console.status("measuring") as status, use_backend(backend):
        costs = layer_costs(
            _names(convs),
            shapes,
            rounds=rounds,
            device=device,
            dtype=_dtype(dtype),
            progress=lambda where: status.update(f"measuring {where}"),
        )
    console.print(layer_table(costs))
    facts = {**machine(), "rounds": str(rounds), "device": device, "dtype": dtype, "backend": backend}
    _write(csv, layers_csv(costs, facts))
    _write(markdown, layers_markdown("Layers", costs, facts))
    if drawn_as is not None:
        _write(plot, layers_plot(costs, facts, drawn_as))


@app.command("models")
def models(
    model: Annotated[str, typer.Option(help="resnet10s, resnet18, resnet34 or resnet50.")] = "resnet18",
    convs: ConvsOption = "conv,rfa,rfcbam,rfca,cam,cbam,ca",
    size: Annotated[int, typer.Option(min=1, help="Side of the images in pixels.")] = 224,
    batch: Annotated[int, typer.Option(min=1, help="Images in a batch.")] = 8,
    rounds: RoundsOption = 9,
    device: DeviceOption = "cpu",
    dtype: DtypeOption = "float32",
    backend: BackendOption = "auto",
    channels_last: Annotated[bool, typer.Option(help="Lay weights out so; convolutions then compute so.")] = False,
    threads: ThreadsOption = None,
    csv: CsvOption = None,
    markdown: MarkdownOption = None,
    plugin: options.PluginOption = None,
) -> None:
    """A model with each convolution against the first: size, time and memory, in alternation.

    Example:

        rfaconv profile models --model resnet18 --convs conv,rfa --batch 8
    """
    from rfaconv.models import create_model
    from rfaconv.profiling import machine, model_costs
    from rfaconv.profiling.records import models_csv
    from rfaconv.profiling.tables import model_table, models_markdown

    options.use_plugins(plugin)
    _use(device, threads)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    made = {
        conv: create_model(model, conv).to(dtype=_dtype(dtype), memory_format=layout)  # type: ignore[call-overload]
        for conv in _names(convs)
    }
    with console.status("measuring") as status, use_backend(backend):
        costs = model_costs(
            made,
            (3, size, size),
            batch=batch,
            rounds=rounds,
            train_rounds=rounds,
            device=device,
            progress=lambda step: status.update(f"measuring {step}"),
        )
    console.print(f"{model}, batches of {batch} images of {size} px", highlight=False)
    console.print(model_table(costs))
    facts = {**machine(), "batch": str(batch), "size": f"{size} px", "rounds": str(rounds)}
    facts |= {"device": device, "dtype": dtype, "backend": backend}
    facts |= {"layout": "channels_last" if channels_last else "NCHW"}
    _write(csv, models_csv(costs, facts))
    _write(markdown, models_markdown(f"{model} at {size} px", costs, facts))


def _names(convs: str) -> list[str]:
    return list(dict.fromkeys(name.strip() for name in convs.split(",") if name.strip()))


def _dtype(name: str) -> torch.dtype:
    if name not in ("float32", "bfloat16", "float16"):
        raise UserError(f"--dtype is float32, bfloat16 or float16, not '{name}'.")
    dtype: torch.dtype = getattr(torch, name)
    return dtype


def _use(device: str, threads: int | None) -> None:
    if device not in ("cpu", "cuda"):
        raise UserError(f"--device is cpu or cuda, not '{device}'.")
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: this machine has no CUDA device that torch can use.")
    if threads is not None:
        torch.set_num_threads(threads)


def _write(path: Path | None, content: str | bytes) -> None:
    if path is not None:
        with replacing(path) as file:
            file.write(content.encode("utf-8") if isinstance(content, str) else content)
        console.print(f"Written: {options.shown(path)}", highlight=False, soft_wrap=True)
