"""`create_segmenter`: segmentation_models_pytorch's architectures on our encoders (extra: segment)."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

from timm.models import is_model
from torch import nn

from rfaconv.errors import UserError, require, unknown_name
from rfaconv.layers.registry import conv_factory
from rfaconv.models.blocks import layer_like
from rfaconv.models.create import model_names, register
from rfaconv.models.pretrained import start_layers
from rfaconv.models.weights import EncoderWeights

PLACES = ("encoder", "aspp", "decoder")
"""What `where` may name."""


def architecture_names() -> list[str]:
    """The architectures `create_segmenter` knows: those of the installed segmentation_models_pytorch."""
    return sorted(_architectures())


def encoder_names() -> list[str]:
    """The encoders `create_segmenter` knows: our ResNets but for the one for tiny images, whose strides do not fit."""
    return [name for name in model_names() if name != "resnet10s"]


def create_segmenter(
    architecture: str = "deeplabv3plus",
    encoder: str = "resnet18",
    conv: str = "conv",
    *,
    output_stride: int | None = None,
    classes: int = 21,
    where: str = "encoder",
    weights: str | Path | None = None,
    **kwargs: Any,
) -> nn.Module:
    """A segmentation model whose encoder has the layer `conv` in the paper's places.

    It maps images [B, 3, H, W] to logits [B, classes, H, W]; H and W must be multiples of 32 (DeepLab: of the output
    stride).

    Args:
        architecture: deeplabv3plus, deeplabv3, unet, unetplusplus, fpn, pspnet, pan, linknet, manet, upernet,
            segformer or dpt.
        encoder: resnet10, resnet18, resnet34 or resnet50.
        conv: a short name: conv, rf, rfa, rfcbam, rfca, cam, cbam, ca, or one you registered.
        output_stride: how much smaller than the image the encoder's last features are: 8 or 16 for the DeepLabs, 16 or
            32 for pan; the encoder's strides beyond it become dilations. None: the architecture's own. The other
            architectures have 32 and no choice.
        classes: channels of the logits.
        where: "encoder" (the paper's places), or that and more: "aspp" (the 3x3 convolutions of the DeepLabs' atrous
            pyramid too; depthwise ones unless decoder_aspp_separable=False), "decoder" (all 3x3 convolutions of the
            decoder too, the pyramid included).
        weights: a classifier's weights for the encoder: what `rfaconv train` left (a file or its folder) with the same
            encoder, or another state dict with timm's names, .safetensors or .pth. They are those of the same `conv`,
            or of the plain network: then each layer starts as the convolution it stands for (`rfaconv.convert`).
        **kwargs: the architecture's, e.g. decoder_channels, decoder_atrous_rates, decoder_aspp_dropout.

    Raises:
        UserError: an unknown name, with the nearest valid one; an encoder, stride or argument that the architecture
            does not take; weights that do not fit.
    """
    known = _architectures()
    if architecture not in known:
        unknown_name("architecture", architecture, known)
    if encoder not in encoder_names():
        unknown_name("encoder", encoder, encoder_names())
    if where not in PLACES:
        unknown_name("place", where, PLACES)
    if classes < 1:
        raise UserError(f"A segmentation model needs at least one class, got {classes}.")
    conv_factory(conv)
    if not is_model(f"{encoder}_{conv}"):
        register(encoder, conv)  # a convolution of the user's own
    trained = None if weights is None else EncoderWeights(Path(weights), encoder)
    built = "conv" if trained is not None and trained.is_plain else conv
    model = _build(known[architecture], architecture, f"tu-{encoder}_{built}", output_stride, classes, kwargs)
    if trained is not None:
        trained.load_into(model.encoder.model, built)
        if built != conv:
            start_layers(model.encoder.model, conv)
    if where != "encoder" and conv != "conv":
        _exchange(model, architecture, conv, where)
    return model


def _architectures() -> dict[str, Any]:
    found: dict[str, Any] = require("segmentation_models_pytorch", "segment").MODEL_ARCHITECTURES_MAPPING
    return found


def _build(
    made: Any, architecture: str, encoder: str, output_stride: int | None, classes: int, kwargs: dict[str, Any]
) -> Any:
    options = {**kwargs, **({} if output_stride is None else {"encoder_output_stride": output_stride})}
    names = list(inspect.signature(made.__init__).parameters)
    if output_stride is not None and "encoder_output_stride" not in names:
        raise UserError(f"{architecture} has no choice of output stride; leave it out.")
    unknown = next((name for name in kwargs if name not in names), None)
    if unknown is not None:
        unknown_name(f"argument of {architecture}", unknown, [name for name in names if name != "self"])
    try:
        return made(encoder, encoder_weights=None, classes=classes, **options)
    except (ValueError, TypeError, KeyError, AttributeError, NotImplementedError) as error:
        raise UserError(f"{architecture} cannot be built on {encoder[3:]}: {' '.join(str(error).split())}") from error


def _exchange(model: nn.Module, architecture: str, conv: str, where: str) -> None:
    """Put `conv` in place of the decoder's convolutions that `where` means, with their own arguments."""
    pattern = r"decoder\.(.*\.)?aspp\." if where == "aspp" else r"decoder\."
    places = [
        (name, module)
        for name, module in model.named_modules()
        if type(module) is nn.Conv2d and max(module.kernel_size) > 1 and re.match(pattern, name)
    ]
    if not places:
        raise UserError(f"{architecture} has no convolution larger than 1x1 at '{where}'; use where='encoder'.")
    for name, module in places:
        owner, _, attribute = name.rpartition(".")
        new = layer_like(module, conv)
        nn.init.kaiming_normal_(new.weight, mode="fan_in", nonlinearity="relu")
        setattr(model.get_submodule(owner), attribute, new)
