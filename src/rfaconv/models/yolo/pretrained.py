"""A trained YOLO with our layers put in: it goes on detecting what it detected, and learns from there."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from ultralytics.nn.modules import Conv
from ultralytics.nn.tasks import DetectionModel

from rfaconv.conversion import convert
from rfaconv.errors import UserError
from rfaconv.layers.base import ConvLayer
from rfaconv.layers.receptive_field import ReceptiveFieldConv2d
from rfaconv.models.yolo.model import AttentionDetectionModel
from rfaconv.models.yolo.rows import Where, chosen, ours, with_conv

EPS, MOMENTUM = 1e-3, 0.03
"""Of every batch norm in a model that Ultralytics builds; a training builds the model anew and loads the weights."""


def put_into(model: nn.Module, conv: str, where: Where = None) -> nn.Module:
    """Exchange convolutions of a trained model, in place, by layers that start as the very function they replace.

    Args:
        model: Ultralytics' DetectionModel, trained, not fused.
        conv: the layer's short name.
        where: as in `rfaconv.YOLO`.

    Returns:
        The model, now an AttentionDetectionModel.

    Raises:
        UserError: it has our layers already, or is fused, or is no model to detect; or see `rfaconv.convert`.
    """
    if not isinstance(model, DetectionModel):
        raise UserError(f"Our layers go into models to detect; this is a {type(model).__name__}.")
    config = dict(model.yaml)
    if ours(config):
        raise UserError("The model has attention convolutions already: they stay as they are.")
    changed = with_conv(config, conv, where)
    numbers = chosen(config, where)
    body: Any = model.model
    if any(not hasattr(part, "bn") for number in numbers for part in _convs(body[number])):
        raise UserError("The model is fused, its batch norms are gone: take the checkpoint as it was trained.")
    training = model.training
    convert(model.eval(), conv, where=[f"model.{number}.*conv" for number in numbers])
    for number in numbers:
        old = body[number]
        new: Any = nn.Sequential(*map(_lifted, old)) if isinstance(old, nn.Sequential) else _lifted(old)
        new.i, new.f, new.type = old.i, old.f, type(_convs(old)[0].conv).__qualname__
        new.np = sum(parameter.numel() for parameter in new.parameters())
        body[number] = new
    model.__class__ = AttentionDetectionModel
    model.yaml = changed
    return model.train(training)


def _convs(module: Any) -> list[Any]:
    return list(module) if isinstance(module, nn.Sequential) else [module]


def _lifted(old: Any) -> ConvLayer:
    """The layer inside of Ultralytics' Conv, with the Conv's batch norm and activation as its own.

    Inside of it `fuse` would take the layer for a plain convolution.
    """
    assert isinstance(old, Conv)
    layer = old.conv
    assert isinstance(layer, ConvLayer)
    layer.norm, layer.act = old.bn, old.act
    if layer.bias is None:
        layer.bias = nn.Parameter(torch.zeros_like(layer.weight[:, 0, 0, 0]))
    if isinstance(layer, ReceptiveFieldConv2d):
        _with_eps(layer.features.norm)
    return layer


def _with_eps(norm: nn.Module) -> None:
    """Give a batch norm Ultralytics' constants, and the weight with which it computes what it did."""
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_var is not None
    with torch.no_grad():
        before, after = norm.running_var.double() + norm.eps, norm.running_var.double() + EPS
        norm.weight.mul_((after / before).sqrt().to(norm.weight.dtype))
    norm.eps, norm.momentum = EPS, MOMENTUM
