"""Where the tests of the Triton kernels run: in Triton's interpreter on any machine, and on a GPU if there is one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

CUDA = pytest.param("cuda", marks=pytest.mark.gpu)


@pytest.fixture(params=["cpu", CUDA], ids=["interpreter", "gpu"])
def device(request: pytest.FixtureRequest) -> Iterator[str]:
    """Where the backend "triton" computes: by the interpreter on CPU tensors, or on a GPU."""
    if request.param == "cuda":
        if not torch.cuda.is_available():
            pytest.skip("this machine has no CUDA device that torch can use")
        yield "cuda"
        return
    pytest.importorskip("triton", reason="triton is not installed")
    from interpreter import interpreted

    with interpreted():
        yield "cpu"


@pytest.fixture(autouse=True)
def _no_tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    """The measure is the float32 reference on a CPU, which has no TF32."""
    monkeypatch.setattr("rfaconv.ops.triton.precision.convolution_allows_tf32", lambda: False)
    monkeypatch.setattr("rfaconv.ops.triton.operators.convolution_allows_tf32", lambda: False)
