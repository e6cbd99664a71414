"""`create_model`, and the same models under timm's registry."""

from __future__ import annotations

from typing import Any

from timm.models import build_model_with_cfg, register_model
from timm.models.resnet import BasicBlock, Bottleneck, ResNet
from torch import nn

from rfaconv.errors import unknown_name
from rfaconv.layers.registry import conv_factory, conv_names
from rfaconv.models.blocks import initialise_like_conv, use_conv
from rfaconv.models.small import SmallResNet

_MODELS: dict[str, tuple[type[ResNet], dict[str, Any]]] = {
    "resnet10s": (
        SmallResNet,
        {
            "block": BasicBlock,
            "layers": (1, 1, 1, 1),
            "channels": (16, 32, 64, 128),
            "stem_type": "deep",
            "stem_width": 8,
        },
    ),
    "resnet10": (
        ResNet,
        {
            "block": BasicBlock,
            "layers": (1, 1, 1, 1),
            "channels": (16, 32, 64, 128),
            "stem_type": "deep",
            "stem_width": 8,
        },
    ),
    "resnet18": (ResNet, {"block": BasicBlock, "layers": (2, 2, 2, 2)}),
    "resnet34": (ResNet, {"block": BasicBlock, "layers": (3, 4, 6, 3)}),
    "resnet50": (ResNet, {"block": Bottleneck, "layers": (3, 4, 6, 3)}),
}


def model_names() -> list[str]:
    """The models `create_model` knows."""
    return list(_MODELS)


def create_model(
    name: str,
    conv: str = "conv",
    *,
    num_classes: int = 1000,
    in_chans: int = 3,
    pretrained: bool | str = False,
    **kwargs: Any,
) -> nn.Module:
    """A ResNet with the layer `conv` in the places the paper puts it.

    Places: the first 3x3 convolution of every BasicBlock (resnet10s, resnet10, resnet18, resnet34), the 3x3 of every
    Bottleneck (resnet50). With conv="conv" the model is timm's own.

    Args:
        name: "resnet10s" (for images of 28 to 64 px), "resnet10" (the same with ResNet's pooling after
            the stem; for images of 64 to 160 px), "resnet18", "resnet34" or "resnet50".
        conv: a short name: conv, rf, rfa, rfcbam, rfca, cam, cbam, ca, or one you registered.
        num_classes: outputs of the classifier.
        in_chans: channels of the images.
        pretrained: True: timm's weights of the plain ResNet; a path: those of a file (a state dict of the plain ResNet,
            .safetensors or .pth, with timm's or torchvision's names). The layers then start as the convolutions they
            stand for (`rfaconv.convert`), so that the model computes what the plain one does. A classifier for another
            number of classes starts anew.
        **kwargs: timm's, e.g. drop_rate, drop_path_rate, output_stride, features_only.

    Raises:
        UserError: an unknown name, with the nearest valid one, or weights that cannot be had or do not fit.
    """
    if name not in _MODELS:
        unknown_name("model", name, _MODELS)
    conv_factory(conv)
    return _build(name, conv, num_classes=num_classes, in_chans=in_chans, pretrained=pretrained, **kwargs)


def _build(name: str, conv: str, pretrained: bool | str = False, **kwargs: Any) -> nn.Module:
    if pretrained:
        from rfaconv.models.pretrained import fetch, load_file, start_layers

        if pretrained is True:
            model = fetch(name, **kwargs)
        else:
            model = _build(name, "conv", **kwargs)
            load_file(model, pretrained)
        start_layers(model, conv)
        return model
    model_class, arguments = _MODELS[name]
    config = {
        "input_size": (kwargs.get("in_chans", 3), 224, 224),
        "first_conv": "conv1.0" if "stem_type" in arguments else "conv1",
        "classifier": "fc",
    }
    kwargs["pretrained_cfg"] = kwargs.get("pretrained_cfg") or config
    model = build_model_with_cfg(model_class, f"{name}_{conv}", False, **use_conv(arguments, conv), **kwargs)
    if conv != "conv":
        initialise_like_conv(model)
    return model


def register(name: str, conv: str) -> None:
    """Make timm know `{name}_{conv}`; timm files an entry point under its function's name and module."""

    def entry(pretrained: bool | str = False, **kwargs: Any) -> nn.Module:
        return _build(name, conv, pretrained=pretrained, **kwargs)

    entry.__name__ = entry.__qualname__ = f"{name}_{conv}"
    entry.__module__ = __name__
    entry.__doc__ = f"{name} with `{conv}` convolutions; see rfaconv.create_model."
    register_model(entry)


__all__ = ["create_model", "model_names", "register"]
for _name in _MODELS:
    for _conv in conv_names():
        register(_name, _conv)
