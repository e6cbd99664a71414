"""SyncBatchNorm in RFAConv on the CPU: processes with a share of the batch each equal one process with all of it."""

from __future__ import annotations

import copy
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn

from rfaconv import RFAConv, create_conv

pytestmark = pytest.mark.skipif(not dist.is_available() or not dist.is_gloo_available(), reason="torch without gloo")

SHARED = ("input", "out")
"""What each process has a share of; the gradients of parameters are to be added up, the statistics the same in all."""


def step(layer: Any, x: Tensor) -> dict[str, Tensor]:
    """Two training passes, the second one backward too: its output and gradients, and the statistics after both."""
    with torch.no_grad():
        layer(x / 2)
    x = x.clone().requires_grad_()
    out = layer(x)
    out.sin().sum().backward()
    assert x.grad is not None
    grads = {f"grad of {name}": parameter.grad for name, parameter in layer.named_parameters()}
    return {"out": out.detach(), "input": x.grad, **grads, **dict(layer.named_buffers())}


def process(rank: int, folder: Path, layer: nn.Module, shares: list[Tensor]) -> None:
    """One of the processes: a step on its share, the results into a file."""
    torch.set_num_threads(1)
    store, timeout = f"file://{folder}/store", timedelta(seconds=60)
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=len(shares), timeout=timeout)
    own = nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(layer))  # as it comes, its memory is shared by all
    torch.save(step(own, shares[rank]), folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.parametrize("name", ["rfa", "rfcbam", "rfca"])
@pytest.mark.parametrize(
    ("images", "stride"),
    [((2, 3), 1), ((4, 1, 0), 2)],
    ids=["unequal", "one with too few values for statistics of its own, one with none"],
)
def test_processes_equal_one_with_the_joint_batch(
    name: str, images: tuple[int, ...], stride: int, tmp_path: Path
) -> None:
    layer: Any = create_conv(name, 6, 5, 3, stride)
    if name == "rfca":  # its attention's own norm would be torch's SyncBatchNorm, which runs on GPUs alone
        layer.attention.norm = nn.Identity()
    x = torch.randn(sum(images), 6, 9, 9)
    layer.features.norm.momentum = 0.3
    arguments = (tmp_path, layer, [*x.split(images)])
    spawn(process, arguments, nprocs=len(images))
    found = [torch.load(tmp_path / f"{rank}.pt") for rank in range(len(images))]
    for name, wanted in step(copy.deepcopy(layer), x).items():
        values = [one[name] for one in found]
        if name in SHARED:
            values = [torch.cat(values)]
        elif name.startswith("grad"):
            values = [torch.stack(values).sum(0)]
        for value in values:
            torch.testing.assert_close(value, wanted, rtol=1e-4, atol=1e-5, msg=f"{name}: {value} is not {wanted}")


def test_alone_it_is_an_ordinary_batch_norm() -> None:
    layer, x = RFAConv(6, 5), torch.randn(4, 6, 7, 7)
    alone = nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(layer))
    torch.testing.assert_close(step(alone, x), step(layer, x))
    torch.testing.assert_close(alone.eval()(x), layer.eval()(x))
