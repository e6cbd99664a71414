"""The receptive-field column of the family: generate features for each tap, attend to them, contract them."""

from __future__ import annotations

import math
from typing import Any, cast

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from rfaconv.layers.attention import Attention, ChannelSpatialAttention, CoordinateAttention, TapSoftmax
from rfaconv.layers.base import ConvLayer
from rfaconv.layers.folding import has_call_hooks, has_fixed_statistics, is_hooked
from rfaconv.ops.backend import Backend, Call, Features
from rfaconv.ops.dispatch import choose_backend, preferred_backend
from rfaconv.ops.epilogue import Epilogue
from rfaconv.ops.stages import contract, contract_map, fold_batch_norm, generate, update_running
from rfaconv.ops.window import Window, output_size

PART = 2**20
"""Feature values computed at a time in inference on a CPU without kernels: 4 MiB in float32, which caches hold
(docs/benchmarks.md)."""


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

    def forward(self, x: Tensor, fold: bool = True) -> Tensor:
        """Args: fold: compute a norm by running statistics with the convolution, which is the same."""
        norm = self.norm
        if fold and has_fixed_statistics(norm) and not has_call_hooks(norm):
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
        return isinstance(norm, nn.BatchNorm2d | nn.SyncBatchNorm) and (norm.training or norm.running_mean is None)

    def folded(self, x: Tensor, backend: Backend) -> Features:
        """The features of x with the norm folded into the filters; does to the norm what calling it would do."""
        norm = cast("nn.BatchNorm2d | nn.SyncBatchNorm", self.norm)
        moments, mean, var = None, norm.running_mean, norm.running_var
        if self.batch_statistics:
            mean = var = None
            moments = backend.patch_moments(x, self.window)
            if (group := shared_statistics(norm)) is not None:
                moments = _SumOverProcesses.apply(moments, group)
        features, found_mean, found_var = backend.fold_norm(
            self.weight, norm.weight, norm.bias, mean, var, moments, norm.eps
        )
        if moments is not None:
            momentum = _count_batch(norm)
            if norm.training and norm.running_mean is not None and norm.running_var is not None:
                count = moments.detach()[0, 0]
                update_running(norm.running_mean, norm.running_var, found_mean, found_var, count, momentum)
        return features

    def extra_repr(self) -> str:
        return f"{self.channels}, taps={self.window.taps}"


class ReceptiveFieldConv2d(ConvLayer):
    """A convolution over receptive-field features, weighed by an attention (section 3 of the paper).

    Without an attention it is the ablation `rf`. With a module of yours it is that module's receptive-field form::

        ReceptiveFieldConv2d(64, 64, 3, attention=lambda channels: SEModule(channels))

    Such a module sees the taps laid out in the plane, [B, C, h*kh, w*kw]. Arguments and errors: as `ConvLayer`.
    """

    features: ReceptiveFieldFeatures
    backend: str | None = None
    """Who computes this layer: a name of `rfaconv.ops.backends()`, which then goes before that of
    `rfaconv.ops.use_backend`. None: that one, else the first that can."""

    def _own_features(self) -> ReceptiveFieldFeatures:
        return ReceptiveFieldFeatures(self.in_channels, self.window)

    def _is_plain(self) -> bool:
        """Whether it is computed as the paper has it: a benchmark or the MAC counter wants to see that."""
        return (self.backend or preferred_backend()) == "reference"

    def _folds_norm(self) -> bool:
        return not self._is_plain()

    def _convolve(self, x: Tensor, epilogue: Epilogue) -> Tensor:
        backend, attention = self._kernels(x), self.attention
        if backend is None or attention is None:
            return epilogue.apply(self._compose_parts(x))
        features = self.features.folded(x, backend)

        def pooled(over_channels: bool) -> tuple[Tensor, Tensor]:
            first, second = backend.pool_features(x, features, self.window, over_channels)
            return first.to(self.weight.dtype), second.to(self.weight.dtype)

        operands = attention.operands(x, pooled, self.window)
        return backend.rf_conv2d(x, features, operands, self.weight, self.bias, self.window, self.groups, epilogue)

    def _kernels(self, x: Tensor) -> Backend | None:
        """The backend whose operators compute it; None where its modules do.

        So it is where others were put in, where some are to be seen called, and for the backends that compose.
        """
        attention, features = self.attention, self.features
        if attention is None or not attention.has_operands or self._is_watched():
            return None
        if type(features.norm) not in (nn.BatchNorm2d, nn.SyncBatchNorm):
            return None
        by_batch, shares = features.batch_statistics, shared_statistics(features.norm) is not None
        if by_batch and _is_exporting():
            return None  # a program that others are to switch to eval must have the norm as a norm
        call = Call(x, features.weight, self.weight, self.window, by_batch, shares, attention.pools_features)
        chosen = choose_backend(self.backend, call)
        return None if chosen.composes_modules else chosen

    def _compose_parts(self, x: Tensor) -> Tensor:
        """Of the modules; in inference on a CPU some images at a time, since large tensors cost more than all else."""
        traced = torch.compiler.is_compiling() or torch.jit.is_tracing()  # type: ignore[attr-defined]
        if torch.is_grad_enabled() or traced or x.device.type != "cpu" or not x.numel() or self._is_plain():
            return self._compose(x)
        values = x.shape[1] * self.window.taps * max(1, math.prod(output_size(x, self.window)))
        images = max(1, PART // values)
        if images >= x.shape[0] or self._is_watched() or not self._takes_images_apart():
            return self._compose(x)
        return torch.cat([self._compose(part) for part in x.split(images)])

    def _takes_images_apart(self) -> bool:
        """Whether an image's output hangs on no other: a known attention, and no norm by the batch's statistics."""
        if self.attention is None or not self.attention.has_operands or self.features.batch_statistics:
            return False
        norms = [norm for norm in self.attention.modules() if isinstance(norm, nn.BatchNorm2d | nn.SyncBatchNorm)]
        return all(has_fixed_statistics(norm) for norm in norms)

    def _compose(self, x: Tensor) -> Tensor:
        plain = self._is_plain()
        features = self.features(x, not plain)
        if self.attention is not None:
            features = self.attention(features, x, self.window)
        out = (contract_map if plain else contract)(features, self.weight, self.bias, self.groups)
        last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
        return out.contiguous(memory_format=torch.channels_last) if last else out

    def _is_watched(self) -> bool:
        """Whether someone wants to see its parts called."""
        return is_hooked(self.features) or is_hooked(self.attention)


class RFAConv(ReceptiveFieldConv2d):
    """Receptive-field attention convolution: a softmax over the taps of each receptive field. Short name `rfa`."""

    def _own_attention(self, channels: int) -> Attention:
        return TapSoftmax(channels, self.window.taps)


class RFCBAMConv(ReceptiveFieldConv2d):
    """Receptive-field CBAM: channel weights from the mean of x (hidden 16), 3x3 spatial ones. Short name `rfcbam`."""

    def _own_attention(self, channels: int) -> Attention:
        return ChannelSpatialAttention(channels, hidden=16, pools=("avg",), kernel_size=3, spatial_sees="raw")


class RFCAConv(ReceptiveFieldConv2d):
    """Receptive-field coordinate attention: CAConv's attention over the receptive-field map. Short name `rfca`."""

    def _own_attention(self, channels: int) -> Attention:
        return CoordinateAttention(channels)


class _SumOverProcesses(torch.autograd.Function):
    """The sum of a tensor over the processes of a group, whose gradient is the sum of their gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: dist.ProcessGroup) -> Tensor:
        ctx.group, total = group, x.clone()
        dist.all_reduce(total, group=group)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _SumOverProcesses.apply(grad.contiguous(), ctx.group), None


def shared_statistics(norm: nn.Module) -> dist.ProcessGroup | None:
    """The processes that share the statistics in training; None where it is this one alone."""
    if type(norm) is not nn.SyncBatchNorm or not norm.training or not dist.is_available() or not dist.is_initialized():
        return None
    group = norm.process_group or dist.group.WORLD
    return group if dist.get_world_size(group) > 1 else None


def _is_exporting() -> bool:
    """Whether torch.export is tracing."""
    found = getattr(torch.compiler, "is_exporting", None)
    return found is not None and found()


def _count_batch(norm: nn.BatchNorm2d | nn.SyncBatchNorm) -> float:
    """Count a training batch as BatchNorm2d's forward would; returns the momentum (cumulative where it is None)."""
    if norm.training and norm.track_running_stats and norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
        if norm.momentum is None:
            return 1.0 / float(norm.num_batches_tracked)
    return 0.0 if norm.momentum is None else norm.momentum
