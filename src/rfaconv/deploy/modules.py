"""`rfa` and `rf` in a form made for other runtimes: four dimensions, norms folded, one constant a tap."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rfaconv.layers.attention import TapSoftmax
from rfaconv.layers.folding import has_fixed_statistics
from rfaconv.layers.receptive_field import ReceptiveFieldConv2d
from rfaconv.ops.stages import fold_batch_norm, window_mean


class TapSum(nn.Module):
    """sum over taps t of conv1x1(relu(dwconv_t(x)) * share_t), equal to `layer` in eval mode.

    share_t is e_t / sum e with e_t = exp(m * a_t - top), m the mean of the receptive field and
    top = max(m * max a, m * min a) the exact largest logit; one where `layer` has no attention.

    Args:
        layer: an `RFAConv`, or a `ReceptiveFieldConv2d` without attention, that `can_deploy` takes.

    Shape:
        [B, C, H, W] to [B, O, h, w].
    """

    bias: Tensor | None
    largest: Tensor
    smallest: Tensor

    def __init__(self, layer: ReceptiveFieldConv2d) -> None:
        super().__init__()
        features, norm, attention = layer.features, layer.features.norm, layer.attention
        assert isinstance(norm, nn.BatchNorm2d)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        self.window, self.groups = layer.window, layer.groups
        line = (norm.weight, norm.bias, norm.running_mean, norm.running_var, norm.eps)
        generate, shift = fold_batch_norm(features.weight, *line)
        taps = self.window.taps
        for tap in range(taps):
            self._constant(f"generate{tap}", generate[tap::taps])
            self._constant(f"shift{tap}", shift[tap::taps])
            self._constant(f"contract{tap}", layer.weight.flatten(2)[:, :, tap, None, None])
        self._constant("bias", layer.bias)
        self.softmax = isinstance(attention, TapSoftmax)
        if isinstance(attention, TapSoftmax):
            slopes = attention.weight.t()[:, None, :, None, None]
            self._constant("largest", slopes.amax(0))
            self._constant("smallest", slopes.amin(0))
            for tap in range(taps):
                self._constant(f"slope{tap}", slopes[tap])
        self.norm, self.act = layer.norm, layer.act

    def _constant(self, name: str, value: Tensor | None) -> None:
        self.register_buffer(name, None if value is None else value.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        taps = range(self.window.taps)
        shares = self._shares(x) if self.softmax else None
        out: Tensor | None = None
        for tap in taps:
            features = self._features(x, tap)
            if shares is not None:
                features = features * shares[tap]
            bias = self.bias if tap == 0 else None
            term = F.conv2d(features, getattr(self, f"contract{tap}"), bias, groups=self.groups)
            out = term if out is None else out + term
        assert out is not None
        if self.norm is not None:
            out = self.norm(out)
        return out if self.act is None else self.act(out)

    def _features(self, x: Tensor, tap: int) -> Tensor:
        _, stride, padding, dilation = self.window
        weight, shift = getattr(self, f"generate{tap}"), getattr(self, f"shift{tap}")
        return F.relu(F.conv2d(x, weight, shift, stride, padding, dilation, groups=x.shape[1]))

    def _shares(self, x: Tensor) -> list[Tensor]:
        mean = window_mean(x, self.window)
        top = torch.maximum(mean * self.largest, mean * self.smallest)
        parts = [torch.exp(mean * getattr(self, f"slope{tap}") - top) for tap in range(self.window.taps)]
        scale = 1 / sum(parts[1:], start=parts[0])
        return [part * scale for part in parts]


def can_deploy(module: nn.Module) -> bool:
    """Whether `module` is a layer that `TapSum` equals: `rfa` or `rf` with a BatchNorm2d in eval mode."""
    return (
        isinstance(module, ReceptiveFieldConv2d)
        and type(module)._convolve is ReceptiveFieldConv2d._convolve
        and has_fixed_statistics(module.features.norm)
        and (module.attention is None or type(module.attention) is TapSoftmax)
    )


def deployed(model: nn.Module) -> nn.Module:
    """A copy of `model` in eval mode whose `rfa` and `rf` layers are `TapSum`; other layers stay as they are."""
    return _replaced(copy.deepcopy(model).eval())


def _replaced(module: nn.Module) -> nn.Module:
    if can_deploy(module):
        assert isinstance(module, ReceptiveFieldConv2d)
        return TapSum(module).eval()
    for name, child in module.named_children():
        setattr(module, name, _replaced(child))
    return module
