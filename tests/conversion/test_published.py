"""Checkpoints with the paper's names, made here by a module written from its formulas, read into our layers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from conversion_helpers import deviation, outputs, realistic
from torch import Tensor, nn

import rfaconv
from rfaconv import UserError


class Published(nn.Module):
    """A layer whose parameters have the published names; `yolo`: with a batch norm and SiLU at the end."""

    def __init__(self, channels: int, out: int, k: int = 3, stride: int = 1, yolo: bool = False) -> None:
        super().__init__()
        self.channels, self.k, self.stride = channels, k, stride
        conv = nn.Conv2d(channels, out, k, *self.contraction())
        self.conv = nn.Sequential(conv, *([nn.BatchNorm2d(out), nn.SiLU()] if yolo else []))

    def contraction(self) -> tuple[int, int]:
        """Stride and padding of the last convolution: over the map of taps, or over the input."""
        return self.k, 0

    def generator(self) -> nn.Sequential:
        wide, window = self.channels * self.k**2, (self.k, self.stride, self.k // 2)
        depthwise = nn.Conv2d(self.channels, wide, *window, groups=self.channels, bias=False)
        return nn.Sequential(depthwise, nn.BatchNorm2d(wide), nn.ReLU())

    def plane(self, features: Tensor) -> Tensor:
        """Tap (i, j) of position (y, x) at (y*k + i, x*k + j)."""
        b, _, h, w = features.shape
        features = features.view(b, self.channels, self.k, self.k, h, w)
        out = features.new_zeros(b, self.channels, h * self.k, w * self.k)
        for i in range(self.k):
            for j in range(self.k):
                out[:, :, i :: self.k, j :: self.k] = features[:, :, i, j]
        return out


class PublishedRFA(Published):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        k, c = self.k, self.channels
        pool = nn.AvgPool2d(k, self.stride, k // 2)
        self.get_weight = nn.Sequential(pool, nn.Conv2d(c, c * k * k, 1, groups=c, bias=False))
        self.generate_feature = self.generator()

    def forward(self, x: Tensor) -> Tensor:
        logits, features = self.get_weight(x), self.generate_feature(x)
        shape = (x.shape[0], self.channels, self.k**2, *features.shape[2:])
        weighed = features.view(shape) * logits.view(shape).softmax(2)
        return self.conv(self.plane(weighed.flatten(1, 2)))


class Squeeze(nn.Module):
    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        layers = [nn.Linear(channels, hidden, bias=False), nn.ReLU(), nn.Linear(hidden, channels, bias=False)]
        self.fc = nn.Sequential(*layers, nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x.mean((2, 3)))[:, :, None, None]


class PublishedRFCBAM(Published):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.generate = self.generator()
        self.get_weight = nn.Sequential(nn.Conv2d(2, 1, 3, padding=1, bias=False), nn.Sigmoid())
        self.se = Squeeze(self.channels, 16)

    def forward(self, x: Tensor) -> Tensor:
        plane = self.plane(self.generate(x))
        pooled = torch.cat([plane.max(1, keepdim=True).values, plane.mean(1, keepdim=True)], 1)
        return self.conv(plane * self.se(x) * self.get_weight(pooled))


def coordinate_parts(module: Any, channels: int) -> None:
    hidden = max(8, channels // 32)
    module.conv1, module.bn1 = nn.Conv2d(channels, hidden, 1), nn.BatchNorm2d(hidden)
    module.conv_h, module.conv_w = nn.Conv2d(hidden, channels, 1), nn.Conv2d(hidden, channels, 1)


def coordinate(module: Any, plane: Tensor) -> Tensor:
    h, w = plane.shape[2:]
    line = torch.cat([plane.mean(3, keepdim=True), plane.mean(2, keepdim=True).transpose(2, 3)], 2)
    line = module.bn1(module.conv1(line))
    line = line * F.relu6(line + 3) / 6
    rows, columns = line.split([h, w], 2)
    return plane * module.conv_h(rows).sigmoid() * module.conv_w(columns.transpose(2, 3)).sigmoid()


class PublishedRFCA(Published):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.generate = self.generator()
        coordinate_parts(self, self.channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(coordinate(self, self.plane(self.generate(x))))


class Spatial(Published):
    def contraction(self) -> tuple[int, int]:
        return self.stride, self.k // 2


class PublishedCAM(Spatial):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        c = self.channels
        self.mlp = nn.Sequential(nn.Conv2d(c, c // 16, 1, bias=False), nn.ReLU(), nn.Conv2d(c // 16, c, 1, bias=False))

    def weighed(self, x: Tensor) -> Tensor:
        return x * (self.mlp(x.amax((2, 3), keepdim=True)) + self.mlp(x.mean((2, 3), keepdim=True))).sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.weighed(x))


class PublishedCBAM(PublishedCAM):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.spatital = nn.Conv2d(2, 1, 7, padding=3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.weighed(x)
        pooled = torch.cat([x.max(1, keepdim=True).values, x.mean(1, keepdim=True)], 1)
        return self.conv(x * self.spatital(pooled).sigmoid())


class PublishedCA(Spatial):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        coordinate_parts(self, self.channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(coordinate(self, x))


PUBLISHED: dict[str, Callable[..., Published]] = {
    "rfa": PublishedRFA,
    "rfcbam": PublishedRFCBAM,
    "rfca": PublishedRFCA,
    "cam": PublishedCAM,
    "cbam": PublishedCBAM,
    "ca": PublishedCA,
}


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("yolo", [False, True], ids=["resnet form", "yolo form"])
def test_single_layers_equal_the_formulas(name: str, stride: int, yolo: bool, tmp_path: Path) -> None:
    theirs, x = realistic(PUBLISHED[name](32, 8, 3, stride, yolo)), torch.randn(2, 32, 9, 12)
    torch.save(theirs.state_dict(), tmp_path / "layer.pth")
    form = {"norm_layer": "batchnorm2d", "act_layer": "silu"} if yolo else {}
    ours = rfaconv.create_conv(name, 32, 8, 3, stride, **form).eval()
    assert deviation(outputs(theirs, x), outputs(ours, x)) > 0.01
    rfaconv.load_published(ours, tmp_path / "layer.pth")
    assert deviation(outputs(theirs, x), outputs(ours, x)) < 2e-6


@pytest.mark.parametrize(("name", "depth"), [*((name, 18) for name in PUBLISHED), ("rfa", 34), ("cam", 34)])
def test_whole_resnets(name: str, depth: int, tmp_path: Path) -> None:
    """torchvision's ResNet with the published layer as conv1 of every block, and none of their `bias=False`."""
    import torchvision

    theirs = torchvision.models.get_model(f"resnet{depth}", num_classes=6)
    for block in theirs.modules():
        if type(block).__name__ == "BasicBlock":
            conv = block.conv1
            block.conv1 = PUBLISHED[name](conv.in_channels, conv.out_channels, 3, conv.stride[0])
    realistic(theirs)
    wrapped = {f"module.{key}": value for key, value in theirs.state_dict().items()}
    torch.save({"epoch": 3, "state_dict": wrapped}, tmp_path / "checkpoint.pth")
    ours, x = rfaconv.create_model(f"resnet{depth}", name, num_classes=6).eval(), torch.randn(2, 3, 40, 40)
    rfaconv.load_published(ours, tmp_path / "checkpoint.pth")
    assert deviation(outputs(theirs, x), outputs(ours, x)) < 2e-5


def test_a_key_that_does_not_fit_is_named_and_nothing_changes(tmp_path: Path) -> None:
    state = PublishedRFA(4, 8).state_dict()
    layer = rfaconv.RFAConv(4, 8)
    before = {name: value.clone() for name, value in layer.state_dict().items()}

    def refused(words: str, target: nn.Module = layer, **changes: Any) -> None:
        changed = {**state, **changes}
        changed = {name.replace("__", "."): value for name, value in changed.items() if value is not None}
        with pytest.raises(UserError, match=words):
            rfaconv.load_published(target, changed)

    weight = "generate_feature.0.weight"
    refused("'extra.weight' has no place in this RFAConv", extra__weight=torch.ones(1))
    refused(r"lacks 1 of the model's tensors, e\.g\. what is here 'features\.weight'", **{weight: None})
    refused(
        r"'generate_feature\.0\.weight' has shape \[3\], and this model's has \[36, 1, 3, 3\]",
        **{weight: torch.ones(3)},
    )
    refused(r"'conv\.0\.bias' has no place .*, whose layer was made with bias=False", rfaconv.RFAConv(4, 8, bias=False))
    refused(r"'conv\.1\.weight' has no place .* needs norm_layer='batchnorm2d'", conv__1__weight=torch.ones(8))
    refused("'get_weight.1.weight' has no place in this CAConv", rfaconv.CAConv(4, 8))
    assert all(torch.equal(value, before[name]) for name, value in layer.state_dict().items())
    for name, content in {"none.pth": None, "broken.pth": b"PK\x03", "broken.safetensors": b"{}"}.items():
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=name.replace(".", r"\.")):
            rfaconv.load_published(layer, tmp_path / name)


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"state_dict": PublishedRFA(4, 8).state_dict(), "evil": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(UserError, match=r"cannot be read as weights alone .* could run code"):
        rfaconv.load_published(rfaconv.RFAConv(4, 8), tmp_path / "evil.pth")
    assert not (tmp_path / "ran").exists()
