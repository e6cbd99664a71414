"""`rfaconv.YOLO`: Ultralytics' YOLO with our layers."""

from __future__ import annotations

import os
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from torch import nn
from ultralytics.cfg import DEFAULT_CFG_DICT
from ultralytics.models import YOLO as PlainYOLO  # noqa: N811 - a class, whatever its case
from ultralytics.nn.tasks import guess_model_task, yaml_model_load

from rfaconv.errors import UserError, unknown_name
from rfaconv.layers.base import ConvLayer
from rfaconv.layers.registry import conv_names
from rfaconv.models.yolo import library
from rfaconv.models.yolo.anchors import ANCHORS
from rfaconv.models.yolo.model import AttentionDetectionModel
from rfaconv.models.yolo.pretrained import put_into
from rfaconv.models.yolo.rows import ANCHOR_HEAD, Config, Where, ours, rows, with_anchors, with_conv
from rfaconv.models.yolo.trainer import AttentionDetectionTrainer
from rfaconv.ops import use_backend
from rfaconv.plugins import loaded_plugins


class YOLO(PlainYOLO):
    """Ultralytics' YOLO, whose detection models may have our layers: train, val, predict, export and reload keep them.

    Args:
        model: the name of a model to build anew ("yolov8n", "yolov5s", "yolo11n", any that Ultralytics has a YAML for,
            or ours: "yolov7-tiny", and with the heads they were published with "yolov5n-anchors" to "yolov5x-anchors"
            and "yolov7-tiny-anchors"); a YAML of your own, in which our layers go by their short names; or a
            checkpoint (.pt) or an exported model (.onnx, ...).
        conv: the layer to put in: rfa, rfcbam, rfca, cam, cbam, ca, rf, conv, or one you registered. None leaves the
            model as it is. In a checkpoint each layer starts as the very convolution it replaces: the detections stay
            the same, and training goes on from there.
        where: which convolutions: numbers of layers in the YAML, "backbone" or "neck"; None for the paper's places
            (3x3 with stride 2, but for the stem; in yolov7-tiny the second 3x3 of each block of the backbone).
        task: Ultralytics'; only "detect" may have our layers.
        verbose: let Ultralytics print the model.

    Raises:
        UserError: an unknown model, layer or place, or a file that is not there.
    """

    model: Any
    ckpt: dict[str, Any] | None
    cfg: str | None

    def __init__(
        self,
        model: str | Path = "yolov8n",
        conv: str | None = None,
        where: Where = None,
        task: str | None = None,
        verbose: bool = False,
    ) -> None:
        name = str(model).strip()
        if conv is None and where is not None:
            raise UserError("where says which convolutions `conv` takes the place of: give conv too.")
        self._wanted = (conv, where)
        if not Path(name).suffix:
            if name not in model_names():
                unknown_name("YOLO", name, model_names())
            name += ".yaml"
        elif not name.lower().endswith((".yaml", ".yml")):
            _existing(name)
        super().__init__(name, task=task, verbose=verbose)
        if conv is not None and self.cfg is None and conv != "conv":
            if not isinstance(self.model, nn.Module):
                raise UserError(f"'{name}' is an exported model: layers can be put into a checkpoint (.pt) only.")
            self.model = put_into(self.model, conv, where)

    def _new(self, cfg: str, task: str | None = None, verbose: bool = False) -> None:
        conv, where = self.__dict__.pop("_wanted")
        config = load_config(cfg)
        if conv is not None and conv != "conv":
            config = with_conv(config, conv, where)
        elif where is not None:
            with_conv(config, "conv", where)  # for its refusals
        self.cfg, self.task = cfg, task or guess_model_task(config)
        if self.task != "detect":
            if ours(config):
                raise UserError(f"'{cfg}' is a model to {self.task}; our layers go into models to detect.")
            super()._new(cfg, task, verbose)
            return
        self.model = AttentionDetectionModel(config, verbose=verbose)
        self.overrides["model"], self.overrides["task"] = cfg, self.task
        self.model.args = {**DEFAULT_CFG_DICT, **self.overrides}
        self.model.task = self.task
        self.model_name = cfg

    def _load(self, weights: str, task: str | None = None) -> None:
        self.__dict__.pop("_wanted", None)
        try:
            super()._load(weights, task)
        except ModuleNotFoundError as error:
            if error.name and error.name.startswith("rfaconv_plugin_"):
                raise UserError(
                    f"'{weights}' has layers of the plugin '{error.name[15:]}.py': load that first (--plugin FILE)."
                ) from error
            raise

    @property
    def task_map(self) -> dict[str, dict[str, Any]]:
        """Ultralytics' map, with our model and trainer for detection."""
        found = super().task_map
        found["detect"] = {
            **found["detect"], "model": AttentionDetectionModel, "trainer": AttentionDetectionTrainer
        }  # fmt: skip
        return found

    def train(self, trainer: Any = None, **kwargs: Any) -> Any:
        """Ultralytics' train; a model from a name or YAML starts from fresh weights, drawn by its `seed`."""
        self._check_is_pytorch_model()
        os.environ[library.PLUGINS] = os.pathsep.join(str(path) for path in loaded_plugins())
        if self.task == "detect" and not self.ckpt:
            # Else Ultralytics would build the model again from the name of its YAML, which knows nothing of our layers.
            self.ckpt = {"model": self.model}
            kwargs.setdefault("pretrained", False)
        if str(kwargs.get("device", "")) == "cpu":
            kwargs.setdefault("amp", False)  # its check loads a model from the network
        return super().train(trainer, **kwargs)

    def export(self, **kwargs: Any) -> str:
        """Ultralytics' export; the layers go out as standard operators."""
        with use_backend("torch"):
            return super().export(**kwargs)

    @property
    def convs(self) -> dict[int, str]:
        """Our layers in this model: short names by the numbers of the layers."""
        config = getattr(self.model, "yaml", None)
        if not config or self.task != "detect":
            return {}
        return {
            number: name
            for number, name in ours(config).items()
            if any(isinstance(module, ConvLayer) for module in self.model.model[number].modules())
        }


_ANCHORS = "-anchors"


def _anchored() -> list[str]:
    """Models that were published with anchors, under names of ours."""
    return [f"{name}{_ANCHORS}" for name in ("yolov5n", "yolov5s", "yolov5m", "yolov5l", "yolov5x", "yolov7-tiny")]


def model_names() -> list[str]:
    """The models that can be built by name: those of the installed Ultralytics that detect, and ours."""
    return list(_model_names())


@cache
def _model_names() -> tuple[str, ...]:
    found = {*_own(), *_anchored()}
    for path in (Path(library.ultralytics.__file__).parent / "cfg" / "models").glob("*/yolo*.yaml"):
        config = yaml.safe_load(path.read_text("utf-8"))
        head = config["head"][-1][2]
        if head in ("Detect", "v10Detect"):
            family = path.stem
            scales = config.get("scales") or {}
            scaled = [_scaled(family, scale) for scale in scales]
            found.update(scaled or [family])
    return tuple(sorted(found))


def load_config(name: str) -> Config:
    """The configuration of that name, or in that file.

    Raises:
        UserError: there is none, or it is no model's YAML.
    """
    if not Path(name).suffix:
        if name not in model_names():
            unknown_name("YOLO", name, model_names())
        name = f"{name}.yaml"
    stem = Path(name).stem
    if stem in _anchored():
        plain = load_config(f"{stem.removesuffix(_ANCHORS)}.yaml")
        return {**with_anchors(plain, ANCHORS[stem[:6]]), "yaml_file": f"{stem}.yaml"}
    if stem in _own() and not Path(name).is_file():
        text = (resources.files("rfaconv.models.yolo") / "configs" / f"{stem}.yaml").read_text("utf-8")
        config: Config = {**yaml.safe_load(text), "yaml_file": f"{stem}.yaml"}
        return config
    if stem not in model_names():
        _existing(name)
    try:
        config = yaml_model_load(name)
    except (OSError, ValueError, yaml.YAMLError, TypeError) as error:
        raise UserError(f"'{name}' cannot be read as a model's YAML: {' '.join(str(error).split()):.160}") from error
    _check_modules(config, name)
    return config


def _check_modules(config: Config, name: str) -> None:
    """A misspelt layer is a sentence with the nearest name, not a KeyError."""
    import ultralytics.nn.tasks as tasks

    known = {*ours(config), len(rows(config)) - 1} if rows(config)[-1][2] == ANCHOR_HEAD else set(ours(config))
    for number, row in enumerate(rows(config)):
        module = row[2]
        if number not in known and not module.startswith(("nn.", "torchvision.")) and not hasattr(tasks, module):
            unknown_name(f"layer in '{name}', row {number}:", module, [*conv_names(), "Conv", "C2f", "C3", "Concat"])


def _own() -> list[str]:
    folder = resources.files("rfaconv.models.yolo") / "configs"
    return [entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml")]


def _scaled(family: str, scale: str) -> str:
    """yolov8 and n as yolov8n, yolov8-p2 and n as yolov8n-p2; yolov10n has its n already."""
    stem, dash, rest = family.partition("-")
    return family if stem[-1].isalpha() else f"{stem}{scale}{dash}{rest}"


def _existing(name: str) -> None:
    if not Path(name).exists():
        raise UserError(f"There is no file '{name}'; models by name: {', '.join(_common())}.")


def _common() -> list[str]:
    wanted = ("yolov5n", "yolov5s", "yolov7-tiny", "yolov8n", "yolo11n")
    return [name for name in wanted if name in model_names()]
