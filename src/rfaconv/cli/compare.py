"""rfaconv compare"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from rfaconv.cli import options, tasks
from rfaconv.cli.options import console
from rfaconv.errors import UserError

SEVEN = "conv,rfa,rfcbam,rfca,cam,cbam,ca"


def command(
    data: options.DataOption = None,
    task: tasks.TaskOption = "classify",
    model: tasks.ModelOption = None,
    convs: Annotated[str, typer.Option(metavar="NAMES", help="Convolutions to compare, with commas.")] = SEVEN,
    baseline: Annotated[str, typer.Option(metavar="NAME", help="What the others are compared to.")] = "conv",
    seeds: Annotated[int, typer.Option(help="How many trainings of each, with the seeds 0, 1, ...")] = 3,
    architecture: tasks.ArchitectureOption = None,
    output_stride: tasks.StrideOption = None,
    where: tasks.WhereOption = None,
    argument: tasks.ArgumentOption = None,
    weights: tasks.WeightsOption = None,
    start: options.StartOption = None,
    recipe: options.RecipeOption = "small",
    epochs: options.EpochsOption = None,
    settings: options.SetOption = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Default: a folder under runs/ of its own for each comparison.")
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(min=1, help="Trainings at a time; default: one a core for small images on a CPU, else 1."),
    ] = None,
    channels: options.ChannelsOption = None,
    skip_broken: options.SkipBrokenOption = False,
    check: options.CheckOption = True,
    data_seed: options.DataSeedOption = 0,
    plugin: options.PluginOption = None,
    accelerator: options.AcceleratorOption = "auto",
    workers: options.WorkersOption = 0,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Write TensorBoard logs of every run.")] = False,
    measure_again: Annotated[
        bool, typer.Option("--measure-again", help="Measure the costs anew, e.g. after a busy machine.")
    ] = False,
) -> None:
    """Train a model with several convolutions under one recipe and the same seeds, and report whether one helps.

    Writes report.html, report.json and results.csv. Killed at any moment, the same command goes on where it was.

    Examples:

        rfaconv compare

        rfaconv compare --task segment

        rfaconv compare --task detect --model yolov8n --convs rfa,rfca

        rfaconv compare --data ~/photos --model resnet18 --convs rfa,rfcbam --seeds 5 --epochs 30
    """
    from rfaconv.cli.live import Live
    from rfaconv.comparison.plan import make_plan
    from rfaconv.comparison.run import compare
    from rfaconv.comparison.terminal import table
    from rfaconv.comparison.workers import default_jobs

    plugins = options.use_plugins(plugin)
    if seeds < 1:
        raise UserError(f"--seeds is how many trainings of each: at least 1, got {seeds}.")
    job = tasks.make_task(
        task,
        tasks.DataWords(data, channels, skip_broken, check, data_seed),
        tasks.ModelWords(model, architecture, output_stride, where, argument, weights),
        tasks.RecipeWords(recipe, epochs, settings),
        options.read_machine(accelerator, workers),
        tensorboard,
        start,
    )
    names = [name.strip() for name in convs.split(",") if name.strip()]
    plan = make_plan(job, names, range(seeds), baseline)
    folder = out or plan.default_folder()
    jobs = jobs or min(default_jobs(job.input_size, accelerator), len(plan.runs))
    console.print(
        f"{job.title}: {', '.join(plan.convs)}; {seeds} seeds, {job.recipe.epochs} epochs each, {jobs} at a time, "
        f"in {options.shown(folder)}",
        highlight=False,
    )
    with Live(console, len(plan.runs), job.metric) as live:
        comparison = compare(
            plan,
            folder,
            jobs=jobs,
            plugins=plugins,
            watcher=live,
            command=shlex.join(["rfaconv", *sys.argv[1:]]),
            measure_again=measure_again,
        )
    console.print(table(comparison))
    for sentence in comparison.conclusion:
        console.print(f"- {sentence}", highlight=False, markup=False)
    console.print(f"Report: {options.shown(folder / 'report.html')}", highlight=False, soft_wrap=True)
    if comparison.failed:
        raise typer.Exit(3)
