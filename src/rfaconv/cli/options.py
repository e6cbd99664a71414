"""Options that several commands share, and what they are turned into.

What loads Lightning, timm or torchvision is imported where it is used, here and in the commands: `--help` is for people
who wait.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from rfaconv.errors import UserError
from rfaconv.plugins import load_plugins

if TYPE_CHECKING:
    from rfaconv.data import ClassificationData
    from rfaconv.tasks.classify.start import Start
    from rfaconv.tasks.training import Machine

# A file or a pipe has no width of its own: wide enough for the tables.
console = Console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else 110)

DataOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="DIR",
        help="Images: a folder of class folders, one with train/ and val/, ImageNet's or Places365's layout, or IDX "
        "files; with masks: images/ and masks/, VOC 2012, Cityscapes or COCO; with boxes: a data.yaml. Without it: the "
        "embedded images.",
        show_default=False,
    ),
]
ChannelsOption: TypeAlias = Annotated[
    int | None,
    typer.Option(help="Read images as grey (1) or colour (3); default: grey for IDX files, colour for folders."),
]
SkipBrokenOption: TypeAlias = Annotated[
    bool, typer.Option("--skip-broken", help="Leave unreadable images out, and say how many, instead of stopping.")
]
CheckOption: TypeAlias = Annotated[
    bool, typer.Option("--check/--no-check", help="Decode every image before training, once a data set.")
]
DataSeedOption: TypeAlias = Annotated[
    int, typer.Option(help="Splits a data set that has no validation part; the same for every run.")
]
RecipeOption: TypeAlias = Annotated[
    str, typer.Option(help="How to train: small, paper (segment: small, voc), or a YAML file.")
]
EpochsOption: TypeAlias = Annotated[int | None, typer.Option(help="Instead of the recipe's.", show_default=False)]
SetOption: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="Change a field of the recipe, e.g. --set lr=0.05."),
]
ScalesOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="NUMBERS", help="segment: look at each image at these scales, 0.75,1,1.25.", show_default=False
    ),
]
FlipOption: TypeAlias = Annotated[bool, typer.Option("--flip", help="segment: look at the mirrored image too.")]
WindowOption: TypeAlias = Annotated[
    int | None,
    typer.Option(
        metavar="PIXELS",
        help="segment: look at larger images in overlapping windows of this size; default: twice the size it was "
        "trained on, 512 at least (eval: whole images).",
        show_default=False,
    ),
]
PluginOption: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--plugin", metavar="FILE", help="A Python file that registers layers of your own."),
]
StartOption: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--start",
        metavar="FILE",
        help="classify: go on from a plain model's weights (model.safetensors of `rfaconv train --conv conv`, or a "
        "state dict of timm's or torchvision's): each layer starts as the convolution it stands for.",
    ),
]
AcceleratorOption: TypeAlias = Annotated[str, typer.Option(help="auto, cpu or gpu.")]
WorkersOption: TypeAlias = Annotated[
    int, typer.Option(help="Processes that read images, for each training; 0 reads in the training itself.")
]


@contextmanager
def checking() -> Iterator[Callable[[int, int], None]]:
    """A progress bar, shown once it is told of (images done, images in all)."""
    columns = (TextColumn("checking images"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("check", total=None, visible=False)
        yield lambda done, total: bar.update(task, completed=done, total=total, visible=True)


def read_data(
    folder: str | None, channels: int | None, skip_broken: bool, check: bool, seed: int
) -> ClassificationData:
    """The data set, with a progress bar while its images are checked."""
    from rfaconv.data import load_classification

    with checking() as progress:
        data = load_classification(
            folder, seed=seed, channels=channels, skip_broken=skip_broken, verify=check, progress=progress
        )
    tell_skipped(data.skipped)
    return data


def tell_skipped(names: Sequence[str]) -> None:
    """How many files were left out."""
    if names:
        console.print(f"Left out {len(names)} unreadable images, e.g. {names[0]}", highlight=False)


def read_recipe(name: str, epochs: int | None, settings: list[str] | None, kind: Any = None) -> Any:
    """The recipe of that kind (None: classification's) with the command line's changes."""
    from rfaconv.tasks.recipe import Recipe, load_recipe, parse_setting

    kind = kind or Recipe
    changes: dict[str, Any] = dict(parse_setting(setting, kind) for setting in settings or [])
    if epochs is not None:
        changes["epochs"] = epochs
    return load_recipe(name, kind).changed(changes)


def read_start(path: Path | None) -> Start | None:
    """The weights to go on from."""
    from rfaconv.tasks.classify.start import Start

    return None if path is None else Start.of(path)


def read_arguments(arguments: list[str] | None) -> dict[str, Any]:
    """{"num_classes": 10} from "num_classes=10"; values as in YAML."""
    import yaml

    found = {}
    for argument in arguments or []:
        name, equals, value = argument.partition("=")
        if not equals or not name.strip().isidentifier():
            raise UserError(f"--arg takes name=value, e.g. --arg num_classes=10; got '{argument}'.")
        try:
            found[name.strip()] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise UserError(f"--arg {name}: '{value}' is no valid value.") from error
    return found


def read_machine(accelerator: str, workers: int, devices: int = 1) -> Machine:
    """Where to train, checked."""
    from rfaconv.tasks.training import Machine

    if accelerator not in ("auto", "cpu", "gpu"):
        raise UserError(f"--accelerator is auto, cpu or gpu, not '{accelerator}'.")
    if workers < 0 or devices < 1:
        raise UserError("--workers must be at least 0 and --devices at least 1.")
    return Machine(accelerator, devices, workers)


def read_manner(task: str, scales: str | None, flip: bool, window: int | None) -> Any:
    """How a segmentation model looks at images; None where nothing was said."""
    if scales is None and not flip and window is None:
        return None
    if task != "segment":
        raise UserError("--scales, --flip and --window are for segmentation models.")
    from rfaconv.tasks.segment.infer import Manner

    try:
        numbers = tuple(float(scale) for scale in (scales or "1").split(","))
    except ValueError:
        raise UserError(f"--scales takes numbers with commas, e.g. 0.75,1,1.25; got '{scales}'.") from None
    return Manner(numbers, flip, window)


def default_model(data: ClassificationData) -> str:
    """The small model for small images, else the paper's smallest."""
    return "resnet10s" if data.image_size and max(data.image_size) <= 64 else "resnet18"


def use_plugins(plugins: list[str] | None) -> list[str]:
    """Load the user's layers, so that their names are known from here on."""
    load_plugins(plugins or [])
    return plugins or []


def shown(path: Path) -> str:
    """`path` as a user would type it from here."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def is_first_process() -> bool:
    """Whether this is the process that talks, of those torchrun or Lightning started."""
    return int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", 0))) == 0


def best_device() -> str:
    """CUDA where there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"
