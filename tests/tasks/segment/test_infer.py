"""Looking at images of any size: padding, scales, mirroring and windows leave nothing out and shift nothing."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from rfaconv.errors import UserError
from rfaconv.tasks.segment.infer import Manner, _spans, logits_of, probabilities


class Local(nn.Module):
    """Logits that a pixel gives itself, and that refuse what an architecture would refuse."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[tuple[int, int]] = []

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        assert height % 32 == width % 32 == 0
        self.sizes.append((height, width))
        return torch.stack([x[:, 0] * 3, -x[:, 1], x[:, 2] + 0.5], 1)


@pytest.mark.parametrize("size", [(1, 1), (1, 200), (33, 47), (64, 64), (96, 31)])
def test_padding_changes_no_pixel_of_a_local_model(size: tuple[int, int]) -> None:
    model, x = Local(), torch.randn(2, 3, *size)
    torch.testing.assert_close(logits_of(model, x), torch.stack([x[:, 0] * 3, -x[:, 1], x[:, 2] + 0.5], 1))


@pytest.mark.parametrize("manner", [Manner(), Manner(flip=True), Manner(window=64), Manner((1.0, 1.0), True, 64)])
def test_mirroring_and_windows_give_a_local_model_the_same(manner: Manner) -> None:
    model, x = Local(), torch.randn(1, 3, 150, 211)
    wanted = logits_of(Local(), x).softmax(1)
    torch.testing.assert_close(probabilities(model, x, manner), wanted)
    if manner.window:
        assert max(max(size) for size in model.sizes) == 64


def test_scales_average() -> None:
    smooth = torch.linspace(-1, 1, 80)[None, None, None].expand(1, 3, 64, 80)
    found = probabilities(Local(), smooth, Manner((0.5, 1.0, 2.0)))
    wanted = logits_of(Local(), smooth).softmax(1)
    assert found.shape == wanted.shape
    torch.testing.assert_close(found.sum(1), torch.ones(1, 64, 80))
    assert (found - wanted).abs()[..., 3:-3].max() < 0.01


@pytest.mark.parametrize(("length", "window"), [(10, 64), (64, 64), (65, 64), (500, 64), (129, 64)])
def test_windows_cover_everything(length: int, window: int) -> None:
    spans = list(_spans(length, window))
    assert {place for span in spans for place in range(span.start, span.stop)} == set(range(length))
    assert all(span.stop - span.start == min(window, length) for span in spans)


def test_strange_manners_are_refused() -> None:
    for wrong in ({"scales": ()}, {"scales": (0.0,)}, {"scales": (float("nan"),)}, {"window": 3}):
        with pytest.raises(UserError):
            Manner(**wrong)
