"""rfaconv train"""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from rfaconv.cli import options, tasks
from rfaconv.cli.options import console
from rfaconv.errors import UserError
from rfaconv.layers.registry import conv_factory
from rfaconv.locks import folder_lock


def command(
    data: options.DataOption = None,
    task: tasks.TaskOption = "classify",
    model: tasks.ModelOption = None,
    architecture: tasks.ArchitectureOption = None,
    output_stride: tasks.StrideOption = None,
    where: tasks.WhereOption = None,
    argument: tasks.ArgumentOption = None,
    weights: tasks.WeightsOption = None,
    conv: Annotated[str, typer.Option(metavar="NAME", help="conv, rf, rfa, rfcbam, rfca, cam, cbam, ca.")] = "rfa",
    seed: Annotated[int, typer.Option(help="Of initialisation, order and augmentation.")] = 0,
    start: options.StartOption = None,
    recipe: options.RecipeOption = "small",
    epochs: options.EpochsOption = None,
    settings: options.SetOption = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Default: runs/MODEL-CONV-seedN.")] = None,
    devices: Annotated[int, typer.Option(help="Processes to train with; torchrun's own count is taken under it.")] = 1,
    channels: options.ChannelsOption = None,
    skip_broken: options.SkipBrokenOption = False,
    check: options.CheckOption = True,
    data_seed: options.DataSeedOption = 0,
    plugin: options.PluginOption = None,
    accelerator: options.AcceleratorOption = "auto",
    workers: options.WorkersOption = 0,
    tensorboard: Annotated[bool, typer.Option("--tensorboard/--no-tensorboard", help="Write its logs.")] = True,
) -> None:
    """Train one model; killed at any moment, the same command goes on where it was.

    Leaves model.safetensors (detect: model.pt), metrics.csv, result.json and TensorBoard logs in OUT.

    Examples:

        rfaconv train --conv rfa

        rfaconv train --task segment --data ~/VOC2012 --model resnet18 --conv rfa --output-stride 8 --recipe voc

        rfaconv train --task detect --data my-project --model yolov8n --conv rfa --recipe paper

        rfaconv train --data ~/imagenet --model resnet18 --conv rfcbam --recipe paper --devices 8 --workers 8
    """
    from rfaconv.cli.live import Live
    from rfaconv.tasks.allocator import keep_freed_memory

    options.use_plugins(plugin)
    conv_factory(conv)
    if min(seed, data_seed) < 0:
        raise UserError(f"A seed is 0 or more, got {min(seed, data_seed)}.")
    job = tasks.make_task(
        task,
        tasks.DataWords(data, channels, skip_broken, check, data_seed),
        tasks.ModelWords(model, architecture, output_stride, where, argument, weights),
        tasks.RecipeWords(recipe, epochs, settings),
        options.read_machine(accelerator, workers, devices),
        tensorboard,
        start,
    )
    keep_freed_memory()
    folder = out or Path("runs") / f"{job.model}-{conv}-seed{seed}"
    # The other processes of this training must not ask for the lock that the first one holds.
    lock = folder_lock(folder) if options.is_first_process() else nullcontext()
    with lock, Live(console, 1, job.metric) as live:
        result = job.fit(conv, seed, folder, lambda progress: live.progress((conv, seed), progress))
    if options.is_first_process():
        figures = ", ".join(f"{name} {value:.4f}" for name, value in result.metrics.items())
        said = figures if result.diverged is None else f"diverged at epoch {result.diverged}"
        console.print(f"{job.title}, {conv}, seed {seed}: {said}", highlight=False, markup=False)
        if result.diverged is not None:
            raise typer.Exit(3)
        made = folder / ("model.pt" if task == "detect" else "model.safetensors")
        console.print(f"Model: {options.shown(made)}", highlight=False, soft_wrap=True)
