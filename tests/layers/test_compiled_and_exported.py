"""The layers in torch.compile, torch.export, fake tensors and vectorised or repeated differentiation."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch._subclasses.fake_tensor import FakeTensorMode

from rfaconv import create_conv
from rfaconv.ops import use_backend

LAYERS = ["rf", "rfa", "rfcbam", "rfca", "cam", "cbam", "ca"]
KERNELS = ["rfa", "rfcbam", "rfca"]
every_layer = pytest.mark.parametrize("name", LAYERS)


def scrambled(layer: nn.Module) -> nn.Module:
    """The layer with running statistics that do something."""
    for module in layer.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return layer


@pytest.mark.parametrize("name", KERNELS)
def test_hessian_vector_products_are_those_of_float64(name: str) -> None:
    layer = scrambled(create_conv(name, 4, 3)).eval()
    x, v = torch.randn(2, 4, 6, 6), torch.randn(2, 4, 6, 6)

    def product(dtype: torch.dtype) -> Tensor:
        own = copy.deepcopy(layer).to(dtype)
        return torch.autograd.functional.hvp(lambda y: own(y).sin().sum(), x.to(dtype), v.to(dtype))[1]

    wanted = product(torch.float64)
    assert wanted.norm() > 0.01
    assert (product(torch.float32) - wanted).norm() <= 1e-3 * wanted.norm()


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", KERNELS)
def test_gradients_of_a_batch_at_once_are_those_one_by_one(name: str, training: bool) -> None:
    layer = scrambled(create_conv(name, 4, 3)).train(training)
    x = torch.randn(2, 4, 6, 6, requires_grad=True)
    out = layer(x)
    upstream = torch.randn(3, *out.shape)
    (together,) = torch.autograd.grad(out, x, upstream, is_grads_batched=True, retain_graph=True)
    for one, grad in zip(together, upstream, strict=True):
        (alone,) = torch.autograd.grad(out, x, grad, retain_graph=True)
        torch.testing.assert_close(one, alone, rtol=1e-3, atol=1e-4)


@every_layer
def test_an_exported_program_has_gradients(name: str) -> None:
    layer, x = scrambled(create_conv(name, 4, 3)).eval(), torch.randn(2, 4, 6, 6)
    program = torch.export.export(layer, (x,)).module()
    program(x).sin().sum().backward()
    layer(x).sin().sum().backward()
    wanted = {key: parameter.grad for key, parameter in layer.named_parameters()}
    found = {key: parameter.grad for key, parameter in program.named_parameters()}
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


@every_layer
def test_a_training_program_is_saved_read_and_switched_to_eval(name: str) -> None:
    from torch.export import Dim, export, load, save

    layer, x = scrambled(create_conv(name, 4, 3)), torch.randn(4, 4, 6, 6)
    sizes = {0: Dim("batch", min=2), 2: Dim("height", min=4), 3: Dim("width", min=4)}
    program = export(copy.deepcopy(layer), (x,), dynamic_shapes=(sizes,))
    file = io.BytesIO()
    save(program, file)
    file.seek(0)
    read: Any = load(file).module()
    y = torch.randn(5, 4, 8, 7)
    torch.testing.assert_close(read(y), layer(y), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(dict(read.named_buffers()), dict(layer.named_buffers()), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", KERNELS)
def test_a_training_program_in_eval_has_the_running_statistics(name: str) -> None:
    pt2e = pytest.importorskip("torchao.quantization.pt2e", reason="torch moved the switch to torchao")
    layer, x = scrambled(create_conv(name, 4, 3)), torch.randn(4, 4, 6, 6)
    program: Any = torch.export.export(copy.deepcopy(layer), (x,)).module()
    pt2e.move_exported_model_to_eval(program)
    torch.testing.assert_close(program(x), layer.eval()(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", KERNELS)
def test_a_training_program_has_batch_norms_that_others_recognise(name: str) -> None:
    program = torch.export.export(create_conv(name, 4, 3), (torch.randn(4, 4, 6, 6),))
    targets = [str(node.target) for node in program.graph.nodes]
    assert sum("batch_norm" in target for target in targets) == 1 + (name == "rfca")
    assert not any("rfaconv" in target for target in targets)


@every_layer
def test_training_compiles_once_for_all_sizes(name: str) -> None:
    layer = create_conv(name, 4, 3)
    compiled, counter = copy.deepcopy(layer), CompileCounterWithBackend("aot_eager")
    compiled.compile(backend=counter, dynamic=True)
    graphs: list[int] = []
    for shape in ((6, 4, 8, 11), (3, 4, 12, 10), (5, 4, 9, 14), (2, 4, 16, 13)):  # equal sizes would be taken for one
        x = torch.randn(shape)
        one, two = x.clone().requires_grad_(), x.clone().requires_grad_()
        found, wanted = compiled(one), layer(two)
        found.sin().sum().backward()
        wanted.sin().sum().backward()
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(one.grad, two.grad, rtol=1e-3, atol=1e-4)
        graphs.append(counter.frame_count)
    assert len(set(graphs)) == 1


@pytest.mark.slow
@pytest.mark.parametrize(("name", "backend"), [("rf", "auto"), ("rf", "torch"), ("rfa", "auto")])
def test_inductor_trains_with_changing_sizes(name: str, backend: str) -> None:
    layer = create_conv(name, 4, 3)
    compiled = copy.deepcopy(layer)
    compiled.compile(dynamic=True)
    for shape in ((6, 4, 8, 11), (3, 4, 12, 10)):
        x = torch.randn(shape, requires_grad=True)
        with use_backend(backend):
            out = compiled(x)
        out.sin().sum().backward()
        torch.testing.assert_close(out, layer(x), rtol=1e-3, atol=1e-4)


@every_layer
def test_layers_are_built_and_run_with_fake_tensors(name: str) -> None:
    with FakeTensorMode():
        layer = create_conv(name, 4, 6, 3, 2, norm_layer="batchnorm2d")
        assert layer(torch.empty(2, 4, 8, 8)).shape == (2, 6, 4, 4)


@pytest.mark.parametrize("backend", ["auto", "torch"])
@pytest.mark.parametrize("training", [False, True])
@every_layer
def test_channels_last_stays(name: str, training: bool, backend: str) -> None:
    layer = create_conv(name, 4, 6).train(training)
    x = torch.randn(4, 4, 8, 8).contiguous(memory_format=torch.channels_last)
    for grad in (True, False):
        with torch.set_grad_enabled(grad), use_backend(backend):
            assert layer(x).is_contiguous(memory_format=torch.channels_last)


@every_layer
def test_an_input_without_rows_fares_as_with_conv2d(name: str) -> None:
    layer, plain = create_conv(name, 4, 6, 1, padding=0).eval(), nn.Conv2d(4, 6, 1)
    for shape in ((2, 4, 0, 5), (2, 4, 5, 0)):
        try:
            wanted = plain(torch.randn(shape)).shape
        except RuntimeError:
            with pytest.raises(RuntimeError):
                layer(torch.randn(shape))
        else:
            assert layer(torch.randn(shape)).shape == wanted
