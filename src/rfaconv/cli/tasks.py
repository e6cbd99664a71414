"""From the command line's words to a task: its data, model and recipe."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, cast

import typer

from rfaconv.cli import options
from rfaconv.errors import UserError, require, unknown_name

if TYPE_CHECKING:
    from rfaconv.tasks.classify.task import ClassifyTask
    from rfaconv.tasks.detect.task import DetectTask
    from rfaconv.tasks.segment.task import SegmentTask
    from rfaconv.tasks.training import Machine

TASKS = ("classify", "detect", "segment")

TaskOption: TypeAlias = Annotated[str, typer.Option("--task", metavar="NAME", help="classify, detect or segment.")]
ModelOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        help="resnet10s, resnet18, resnet34 or resnet50 (segment: resnet10 instead of resnet10s, as the encoder; "
        "detect: yolov8n, yolov5s, yolo11n, yolov7-tiny, ... or a YAML); default: a small one for small images, else "
        "resnet18; detect: yolov8n."
    ),
]
ArchitectureOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--arch",
        metavar="NAME",
        help="segment: deeplabv3plus, unet, fpn, ... (segmentation_models_pytorch's); default: deeplabv3plus.",
        show_default=False,
    ),
]
StrideOption: TypeAlias = Annotated[
    int | None,
    typer.Option("--output-stride", help="segment: 8 or 16 for the DeepLabs; default: 16.", show_default=False),
]
WhereOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--where",
        metavar="PLACE",
        help="segment: exchange convolutions in the encoder (default), the atrous pyramid too (aspp), or the whole "
        "decoder too (decoder). detect: backbone, neck, or numbers of layers with commas; default: the paper's.",
        show_default=False,
    ),
]
ArgumentOption: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--arg", metavar="NAME=VALUE", help="segment: an argument of the architecture, decoder_channels=64."),
]
WeightsOption: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--weights",
        metavar="FILE",
        help="segment: a classifier's weights for the encoder (model.safetensors of `rfaconv train`, or a folder): of "
        "the plain network, each layer starting as its convolution, or of the same convolution ({conv} in it). detect: "
        "a plain YOLO checkpoint (yolov8n.pt), each layer starting as its convolution.",
    ),
]


@dataclass(frozen=True)
class DataWords:
    """What was said of the data."""

    folder: str | None
    channels: int | None
    skip_broken: bool
    check: bool
    seed: int


@dataclass(frozen=True)
class ModelWords:
    """What was said of the model; all but the first are not for classification."""

    model: str | None
    architecture: str | None
    output_stride: int | None
    where: str | None
    arguments: list[str] | None
    weights: Path | None


@dataclass(frozen=True)
class RecipeWords:
    """What was said of the training."""

    name: str
    epochs: int | None
    settings: list[str] | None


def make_task(
    task: str,
    data: DataWords,
    model: ModelWords,
    recipe: RecipeWords,
    machine: Machine,
    tensorboard: bool,
    start: Path | None = None,
) -> ClassifyTask | DetectTask | SegmentTask:
    """The task of that name, its data read and checked.

    Raises:
        UserError: an unknown task, an option of another task, or whatever is wrong with data, model or recipe.
    """
    if task not in TASKS:
        unknown_name("task", task, TASKS)
    if task == "segment":
        if start is not None:
            raise UserError("--start is for --task classify; --weights gives a segmenter's encoder its weights.")
        return _segment(data, model, recipe, machine, tensorboard)
    if task == "detect":
        if start is not None:
            raise UserError("--start is for --task classify.")
        return _detect(data, model, recipe, machine)
    return _classify(data, model, recipe, machine, tensorboard, start)


def _classify(
    data: DataWords,
    model: ModelWords,
    recipe: RecipeWords,
    machine: Machine,
    tensorboard: bool,
    start: Path | None,
) -> ClassifyTask:
    from rfaconv.tasks.classify.task import ClassifyTask

    given = {
        "--arch": model.architecture,
        "--output-stride": model.output_stride,
        "--where": model.where,
        "--arg": model.arguments,
        "--weights": model.weights,
    }
    wrong = next((name for name, value in given.items() if value), None)
    if wrong is not None:
        raise UserError(f"{wrong} is for --task segment{' or detect' if wrong == '--where' else ''}.")
    images = options.read_data(data.folder, data.channels, data.skip_broken, data.check, data.seed)
    return ClassifyTask(
        model.model or options.default_model(images),
        images,
        options.read_recipe(recipe.name, recipe.epochs, recipe.settings),
        machine,
        tensorboard,
        options.read_start(start),
    )


def _segment(
    data: DataWords, model: ModelWords, recipe: RecipeWords, machine: Machine, tensorboard: bool
) -> SegmentTask:
    require("segmentation_models_pytorch", "segment")
    from rfaconv.tasks.segment.fit import Network
    from rfaconv.tasks.segment.recipe import SegmentRecipe
    from rfaconv.tasks.segment.task import SegmentTask

    training = options.read_recipe(recipe.name, recipe.epochs, recipe.settings, SegmentRecipe)
    images = read_masked_data(data)
    architecture, arguments = model.architecture or "deeplabv3plus", options.read_arguments(model.arguments)
    small = images.image_size is not None and max(images.image_size) <= 160
    encoder = model.model or ("resnet10" if small else "resnet18")
    if encoder == "resnet10" and architecture.startswith("deeplab"):
        arguments = {"decoder_channels": 64, **arguments}  # what fits an encoder of 128 channels
    stride = 16 if model.output_stride is None and architecture.startswith("deeplab") else model.output_stride
    network = Network(architecture, encoder, stride, model.where or "encoder", arguments)
    return SegmentTask(network, images, training, machine, tensorboard, model.weights)


def _detect(data: DataWords, model: ModelWords, recipe: RecipeWords, machine: Machine) -> DetectTask:
    require("rfaconv.models.yolo", "detect")  # not ultralytics itself, which it sets up
    from rfaconv.models.yolo.rows import Where
    from rfaconv.tasks.detect.fit import configuration, one_process
    from rfaconv.tasks.detect.recipe import DetectRecipe
    from rfaconv.tasks.detect.task import DetectTask

    given = {
        "--arch": model.architecture,
        "--output-stride": model.output_stride,
        "--arg": model.arguments,
    }
    wrong = next((name for name, value in given.items() if value), None)
    if wrong is not None:
        raise UserError(f"{wrong} is for --task segment.")
    weights = model.weights
    if weights is not None and (weights.suffix != ".pt" or not weights.is_file()):
        raise UserError(f"--weights takes a YOLO checkpoint (.pt) in detection; '{weights}' is none.")
    if weights is not None and model.model is not None:
        raise UserError("--weights says what model it is: leave --model out.")
    training = options.read_recipe(recipe.name, recipe.epochs, recipe.settings, DetectRecipe)
    place, where = model.where, cast("Where", model.where)
    if place is not None and place.replace(",", "").replace(" ", "").isdigit():
        where = tuple(int(number) for number in place.split(",") if number.strip())
    name = model.model or "yolov8n"
    one_process(machine)
    # A wrong name is said before the data are read, which may take a while.
    config = configuration(name, "rfa", where, weights)
    if weights is not None:
        name = Path(str(config.get("yaml_file", weights))).stem
    return DetectTask(name, read_boxed_data(data), training, machine, where, weights)


def as_detector(path: Path) -> Path | None:
    """The detector's file, where `path` is one (.pt, .onnx) or the folder of a run that trained one."""
    if path.is_dir() and (path / "model.pt").is_file():
        return path / "model.pt"
    if path.suffix.lower() not in (".pt", ".onnx"):
        return None
    if not path.is_file():
        raise UserError(f"There is no model '{path}'; `rfaconv train --task detect` writes one as OUT/model.pt.")
    return path


def read_boxed_data(data: DataWords) -> Any:
    """Images with boxes."""
    from rfaconv.data.detection import load_detection

    if data.channels not in (None, 3):
        raise UserError("Detection reads all images as colour: --channels is for --task classify.")
    if data.skip_broken:
        raise UserError("--skip-broken is not for --task detect: `rfaconv data convert --lenient` mends a data set.")
    with options.checking() as progress:
        return load_detection(data.folder, verify=data.check, progress=progress)


def read_masked_data(data: DataWords) -> Any:
    """Images with masks, with a progress bar while they are checked."""
    from rfaconv.data.segmentation import load_segmentation

    if data.channels not in (None, 3):
        raise UserError("Segmentation reads all images as colour: --channels is for --task classify.")
    with options.checking() as progress:
        found = load_segmentation(
            data.folder, seed=data.seed, skip_broken=data.skip_broken, verify=data.check, progress=progress
        )
    options.tell_skipped(found.skipped)
    return found
