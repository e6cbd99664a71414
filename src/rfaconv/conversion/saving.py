"""Converted models on disk: the state dict and a small record of what hangs where, as one safetensors file.

Nothing in the file is code and nothing is unpickled. The record says how each layer is built and how the plain model
around them is, where that was said when saving; otherwise `load` is given the plain model.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from rfaconv.conversion.folding import Folded
from rfaconv.conversion.places import slots_of
from rfaconv.conversion.surgery import hang, padder_from, padder_record, take_over, with_padding
from rfaconv.errors import UserError, require, unknown_name
from rfaconv.files import replacing
from rfaconv.layers.base import ConvLayer
from rfaconv.layers.registry import conv_factory, conv_names, create_conv

_VERSION = 1
_KEY = "rfaconv.conversion"
_ARGUMENTS = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups", "bias")
# Arguments with which these libraries read or fetch other files.
_FILES = ("pretrained", "checkpoint", "weights", "cache")


def save(model: nn.Module, path: str | Path, base: str | None = None, **arguments: Any) -> None:
    """Write a converted model as a safetensors file, from which `load` rebuilds it.

    Args:
        model: any model with layers of the family in it.
        path: of the file; a file there is replaced, whole or not at all.
        base: how the plain model was made, for `load` to make it without help: "timm:resnet18" (timm.create_model),
            "torchvision:resnet18" (torchvision.models.get_model) or "smp:unet" (segmentation_models_pytorch's
            create_model). None: `load` is given the plain model.
        **arguments: of that function, plain values (num_classes=10, ...).

    Raises:
        UserError: an argument is no plain value, or the state dict holds other things than tensors.
    """
    layers, folded = layer_records(model), folded_norms(model)
    record = {"version": _VERSION, "base": base, "arguments": arguments, "layers": layers, "folded": folded}
    if base is not None:
        check_base(base, arguments)
    try:
        text = json.dumps(record)
    except TypeError as error:
        raise UserError(f"The base model's arguments must be plain values, to be written as JSON: {error}.") from error
    weights: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, value in model.state_dict().items():
        if not isinstance(value, Tensor):
            raise UserError(f"'{name}' of the state dict is a {type(value).__name__}: only tensors can be saved.")
        value = value.detach().cpu().contiguous()
        # A module that hangs in two places is written twice; safetensors refuses shared memory.
        weights[name] = value.clone() if value.untyped_storage().data_ptr() in seen else value
        seen.add(value.untyped_storage().data_ptr())
    with replacing(Path(path)) as file:
        file.write(require("safetensors.torch", "classify").save(weights, {_KEY: text}))


def load(path: str | Path, model: nn.Module | None = None) -> nn.Module:
    """The model of a file that `save` wrote.

    Args:
        path: of the file.
        model: the plain model, freshly built (or the converted one); it is changed in place. None: it is built as
            `save` was told, and returned in eval mode.

    Raises:
        UserError: no such file, not one of `save`'s, no word in it on the plain model, or a model that does not fit.
    """
    path = Path(path).expanduser()
    weights, record = _read(path)
    if model is None:
        if not record["base"]:
            raise UserError(f"'{path}' does not say how its plain model is built: give it, rfaconv.load(path, model).")
        model = build_base(record["base"], record["arguments"])
    for name, layer in record["layers"].items():
        _rebuild(model, name, layer, str(path))
    for name, conv in record["folded"].items():
        _fold_away(model, name, conv, str(path))
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise UserError(f"The weights in '{path}' do not fit this {type(model).__name__}: {reason}") from error
    return model


def layer_records(model: nn.Module) -> dict[str, dict[str, Any]]:
    """For the name of each layer that can be built from a short name, how to build it, as plain data.

    A layer with a norm or activation of its own was built into the model by hand; the plain model has it too.
    """
    found = {}
    modules = dict(model.named_modules())
    for name, layer in modules.items():
        if not isinstance(layer, ConvLayer) or layer.norm is not None or layer.act is not None:
            continue
        short = layer.short_name or _short_name(layer)
        if short is None:
            continue
        arguments = {what: getattr(layer, what) for what in _ARGUMENTS if what != "bias"}
        parent = modules.get(name.rpartition(".")[0])
        padded = type(parent) is nn.Sequential and tuple(parent._modules) == ("pad", "conv")
        found[name.rpartition(".")[0] if padded else name] = {
            "conv": short,
            **arguments,
            "bias": layer.bias is not None,
            "pad": padder_record(parent.pad) if padded else None,  # type: ignore[union-attr]
        }
    return found


def folded_norms(model: nn.Module) -> dict[str, str]:
    """For the name of each batch norm that `simplify` folded, the name of the convolution it went into."""
    names = {id(module): name for name, module in model.named_modules()}
    return {name: names[id(norm.into[0])] for name, norm in model.named_modules() if isinstance(norm, Folded)}


def _short_name(layer: ConvLayer) -> str | None:
    return next((name for name in conv_names() if conv_factory(name) is type(layer)), None)


def _rebuild(model: nn.Module, name: str, record: dict[str, Any], path: str) -> None:
    """Hang the recorded layer at `name`, unless it hangs there."""
    try:
        old: Any = model.get_submodule(name)
    except AttributeError:
        raise UserError(f"'{path}' has a layer at '{name}', where this {type(model).__name__} has nothing.") from None
    if isinstance(old, ConvLayer | nn.Sequential):
        return  # converted already; the weights will tell
    if not isinstance(old, nn.Conv2d):
        raise UserError(
            f"'{path}' has a layer at '{name}', where this {type(model).__name__} has a {type(old).__name__}."
        )
    try:
        arguments = {key: tuple(v) if isinstance(v, list) else v for key, v in record.items() if key in _ARGUMENTS}
        layer = create_conv(record["conv"], **arguments, device=old.weight.device, dtype=old.weight.dtype)
        new = with_padding(padder_from(record["pad"]), layer)
    except (KeyError, TypeError, IndexError) as error:
        raise UserError(f"'{path}' has a damaged record of the layer at '{name}' ({error!r}).") from error
    layer.short_name = record["conv"]
    take_over(new, layer, old)
    hang(next(slots_of(model, lambda module: module is old)), new)


def _fold_away(model: nn.Module, name: str, conv_name: str, path: str) -> None:
    """Take the recorded batch norm out, and give the convolution it went into a bias to be filled."""
    try:
        norm, conv = model.get_submodule(name), model.get_submodule(conv_name)
    except AttributeError:
        raise UserError(
            f"'{path}' has a batch norm '{name}' folded into '{conv_name}', and this {type(model).__name__} lacks one."
        ) from None
    if isinstance(conv, nn.Conv2d) and conv.bias is None:
        conv.bias = nn.Parameter(conv.weight.new_zeros(conv.out_channels), conv.weight.requires_grad)
    hang(next(slots_of(model, lambda module: module is norm)), Folded(conv))


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    if not path.is_file():
        raise UserError(f"There is no file '{path}'; rfaconv.save writes one.")
    safetensors = require("safetensors", "classify")
    try:
        with safetensors.safe_open(path, "pt") as file:
            record = json.loads((file.metadata() or {})[_KEY])
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        if record["version"] != _VERSION:
            raise UserError(f"'{path}' was written by another version of rfaconv (format {record['version']}).")
        return weights, {key: record[key] for key in ("base", "arguments", "layers", "folded")}
    except (safetensors.SafetensorError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"'{path}' is no model that rfaconv.save wrote ({error!r}).") from error


def build_base(base: str, arguments: Mapping[str, Any]) -> nn.Module:
    """The plain model, without weights and in eval mode.

    Raises:
        UserError: the library or the model's name is unknown, or it does not take these arguments.
    """
    builder = check_base(base, arguments)
    try:
        model: nn.Module = builder(**arguments)
    except (TypeError, ValueError) as error:
        raise UserError(f"{base} cannot be built with {dict(arguments)}: {' '.join(str(error).split())}") from error
    return model.eval()


def check_base(base: str, arguments: Mapping[str, Any]) -> Any:
    """What builds the plain model; a UserError if the name is unknown or an argument would read other files."""
    for name in arguments:
        if any(word in name for word in _FILES):
            raise UserError(f"{base} is built without weights and files of its own: leave out '{name}'.")
    return _builder(base)


def _builder(base: str) -> Any:
    """The function that makes the plain model, without weights, from the arguments."""
    library, _, name = base.partition(":")
    if library == "timm":
        timm = require("timm", "classify")
        if not timm.is_model(name):
            unknown_name("timm model", name, timm.list_models(f"{name[:4]}*") or ["resnet18"])
        return lambda **arguments: timm.create_model(name, pretrained=False, **arguments)
    if library == "torchvision":
        models = require("torchvision.models", "classify")
        if name not in models.list_models():
            unknown_name("torchvision model", name, models.list_models())
        extra = (
            {} if "weights_backbone" not in _parameters(models.get_model_builder(name)) else {"weights_backbone": None}
        )
        return lambda **arguments: models.get_model(name, weights=None, **extra, **arguments)
    if library == "smp":
        smp = require("segmentation_models_pytorch", "segment")
        return lambda **arguments: smp.create_model(name, encoder_weights=None, **arguments)
    raise UserError(f"base='{base}' must begin with timm:, torchvision: or smp:.")


def _parameters(function: Any) -> set[str]:
    return set(inspect.signature(function).parameters)
