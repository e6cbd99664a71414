"""The receptive-field column of the family: generate features for each tap, attend to them, contract them."""

from __future__ import annotations

import math
from typing import cast

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from rfaconv.layers.attention import (
    Attention,
    ChannelSpatialAttention,
    CoordinateAttention,
    GatedAttention,
    TapSoftmax,
)
from rfaconv.layers.base import ConvLayer
from rfaconv.layers.folding import has_call_hooks, has_fixed_statistics, is_hooked
from rfaconv.ops.call import GatedCall, RFACall
from rfaconv.ops.dispatch import compute, preferred_backend, takes, takes_gated
from rfaconv.ops.epilogue import Epilogue
from rfaconv.ops.gated import Features, batch_statistics, gated_conv2d
from rfaconv.ops.stages import contract, fold_batch_norm, generate, norm_as_line, update_running
from rfaconv.ops.window import Window


class ReceptiveFieldFeatures(nn.Module):
    """relu(batch_norm(depthwise convolution)) with one feature for each tap: [B, C, H, W] to [B, C, kh, kw, h, w].

    Args:
        channels: C.
        window: kernel size, stride, padding and dilation of the layer.

    Attributes:
        weight: [C*T, 1, kh, kw], channel-major. norm: BatchNorm2d over the C*T features.
    """

    def __init__(self, channels: int, window: Window) -> None:
        super().__init__()
        self.channels, self.window = channels, window
        self.weight = nn.Parameter(torch.empty(channels * window.taps, 1, *window.kernel_size))
        self.norm: nn.Module = nn.BatchNorm2d(channels * window.taps)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        norm = self.norm
        # The reference computes the norm as the paper has it: benchmarks and the MAC counter want to see it.
        if preferred_backend() != "reference" and has_fixed_statistics(norm) and not has_call_hooks(norm):
            assert norm.running_mean is not None
            assert norm.running_var is not None
            line = (norm.weight, norm.bias, norm.running_mean, norm.running_var, norm.eps)
            return F.relu(generate(x, *fold_batch_norm(self.weight, *line), self.window), inplace=True)
        features = generate(x, self.weight, None, self.window)
        return F.relu(norm(features.flatten(1, 3)), inplace=True).view_as(features)

    @property
    def batch_statistics(self) -> bool:
        """Whether the norm is by this batch's statistics rather than the running ones."""
        norm = self.norm
        return isinstance(norm, nn.BatchNorm2d) and (norm.training or norm.running_mean is None)

    def folded(self, x: Tensor) -> Features:
        """The features of x with the norm, a BatchNorm2d, folded into the filters; in training, by x's own statistics.

        Does to the norm what calling it would do.
        """
        norm = self.norm
        assert isinstance(norm, nn.BatchNorm2d)
        mean, var = norm.running_mean, norm.running_var
        if not self.batch_statistics:
            assert mean is not None
            assert var is not None
            line = (norm.weight, norm.bias, mean, var, norm.eps)
            return Features(*fold_batch_norm(self.weight.float(), *line), None, self.window)
        weight = self.weight.double()
        found = batch_statistics(x.float(), weight, self.window)
        momentum = _count_batch(norm)
        if norm.training and mean is not None and var is not None:
            update_running(mean, var, found.mean, found.var, found.values, momentum)
        # Around their mean the filters make features of mean zero: the norm is a scale, and its bias.
        scale, _ = norm_as_line(norm.weight, None, found.mean, found.var, norm.eps)
        bias = weight.new_zeros(weight.shape[0]) if norm.bias is None else norm.bias.double()
        return Features(weight * scale.view(-1, 1, 1, 1), bias, found.centre, self.window)

    def extra_repr(self) -> str:
        return f"{self.channels}, taps={self.window.taps}"


class ReceptiveFieldConv2d(ConvLayer):
    """A convolution over receptive-field features, weighed by an attention (section 3 of the paper).

    Without an attention it is the ablation `rf`. With a module of yours it is that module's receptive-field form::

        ReceptiveFieldConv2d(64, 64, 3, attention=lambda channels: SEModule(channels))

    Such a module sees the taps laid out in the plane, [B, C, h*kh, w*kw]. Arguments and errors: as `ConvLayer`.
    """

    features: ReceptiveFieldFeatures

    def _own_features(self) -> ReceptiveFieldFeatures:
        return ReceptiveFieldFeatures(self.in_channels, self.window)

    _takes_epilogue = True

    def _convolve(self, x: Tensor, epilogue: Epilogue) -> Tensor:
        if self._kernels_can(x):
            return self._convolve_gated(x, epilogue)
        features = self.features(x)
        if self.attention is not None:
            features = self.attention(features, x, self.window)
        return epilogue.apply(contract(features, self.weight, self.bias, self.groups))

    def _kernels_can(self, x: Tensor) -> bool:
        """Whether kernels take it: nobody put other modules in, or wants to see them called one by one."""
        attention, features = self.attention, self.features
        if not isinstance(attention, GatedAttention) or attention.survey is None:
            return False
        if type(features.norm) is not nn.BatchNorm2d or is_hooked(features) or is_hooked(attention):
            return False
        return takes_gated(GatedCall(x, features.weight, self.weight, self.window, features.batch_statistics))

    def _convolve_gated(self, x: Tensor, epilogue: Epilogue) -> Tensor:
        attention = self.attention
        assert isinstance(attention, GatedAttention)
        assert attention.survey is not None
        return gated_conv2d(
            x,
            self.features.folded(x),
            attention.survey,
            lambda first, second: attention.gates(first, second, x, self.window),
            self.weight,
            self.bias,
            self.groups,
            epilogue,
        )


class RFAConv(ReceptiveFieldConv2d):
    """Receptive-field attention convolution: a softmax over the taps of each receptive field. Short name `rfa`.

    Computed as `rfaconv.ops.rfa_conv2d` is; the attribute `backend` names who computes it (None: the first that can).
    Inside `rfaconv.ops.use_backend` that choice goes before it.
    """

    backend: str | None = None

    def _own_attention(self, channels: int) -> Attention:
        return TapSoftmax(channels, self.window.taps)

    def _convolve(self, x: Tensor, epilogue: Epilogue) -> Tensor:
        features, attention = self.features, self.attention
        # Another norm or attention in their place, or someone who wants to see them called: the composition serves it.
        if type(features.norm) not in (nn.BatchNorm2d, nn.SyncBatchNorm) or type(attention) is not TapSoftmax:
            return super()._convolve(x, epilogue)
        if has_call_hooks(features) or has_call_hooks(features.norm) or has_call_hooks(attention):
            return super()._convolve(x, epilogue)
        norm = cast("nn.BatchNorm2d | nn.SyncBatchNorm", features.norm)
        group = _processes(norm)
        call = RFACall(
            x,
            features.weight,
            attention.weight,
            self.weight,
            self.bias,
            norm.weight,
            norm.bias,
            norm.running_mean,
            norm.running_var,
            norm.training,
            0.0,
            norm.eps,
            self.window,
            self.groups,
            epilogue,
            group,
        )
        # The process's choice, where there is one, is for the layers too: a benchmark or a counter relies on it.
        backend = self.backend if preferred_backend() == "auto" else None
        if group is not None and x.device.type != "cpu" and not takes(backend, call):
            return super()._convolve(x, epilogue)  # where SyncBatchNorm itself can run
        call = call._replace(momentum=_count_batch(norm))
        return compute(call, backend)


class RFCBAMConv(ReceptiveFieldConv2d):
    """Receptive-field CBAM: channel weights from the mean of x (hidden 16), 3x3 spatial ones. Short name `rfcbam`."""

    def _own_attention(self, channels: int) -> Attention:
        return ChannelSpatialAttention(channels, hidden=16, pools=("avg",), kernel_size=3, spatial_sees="raw")


class RFCAConv(ReceptiveFieldConv2d):
    """Receptive-field coordinate attention: CAConv's attention over the receptive-field map. Short name `rfca`."""

    def _own_attention(self, channels: int) -> Attention:
        return CoordinateAttention(channels)


def _processes(norm: nn.Module) -> dist.ProcessGroup | None:
    """The processes that share the statistics in training; None where it is this one alone."""
    if type(norm) is not nn.SyncBatchNorm or not norm.training or not dist.is_available() or not dist.is_initialized():
        return None
    group = norm.process_group or dist.group.WORLD
    return group if dist.get_world_size(group) > 1 else None


def _count_batch(norm: nn.BatchNorm2d | nn.SyncBatchNorm) -> float:
    """Count a training batch as BatchNorm2d's forward would; returns the momentum (cumulative where it is None)."""
    if norm.training and norm.track_running_stats and norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
        if norm.momentum is None:
            return 1.0 / float(norm.num_batches_tracked)
    return 0.0 if norm.momentum is None else norm.momentum
