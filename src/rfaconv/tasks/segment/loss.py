"""Cross-entropy and Dice over the pixels that count, the same whatever number of processes shares the batch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from segmentation_models_pytorch.losses import MULTILABEL_MODE, DiceLoss
from torch import Tensor, nn

from rfaconv.data.segmentation import IGNORE

Share = Callable[[Tensor], Tensor]
"""From a count on this process to its mean over all processes."""


class SegmentationLoss(nn.Module):
    """Mean cross-entropy over the pixels that count, plus `dice` times the mean of 1 - Dice.

    Dice is taken for each image and each class that is in it. Both means are over the whole batch: processes divide by
    the counts of all of them, so that their averaged gradients are those of one process with all images.

    Args:
        dice: weight of the second part; 0 leaves it out.
        label_smoothing: of the cross-entropy.
    """

    def __init__(self, dice: float = 0.0, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.weight, self.label_smoothing = dice, label_smoothing
        self.dice = DiceLoss(MULTILABEL_MODE, from_logits=False)

    def forward(self, logits: Tensor, masks: Tensor, share: Share = lambda count: count) -> Tensor:
        """From logits [B, classes, H, W] and class numbers [B, H, W] (255: does not count) to a scalar."""
        logits = logits.float()
        counts = masks != IGNORE
        total = nn.functional.cross_entropy(
            logits, masks, ignore_index=IGNORE, reduction="sum", label_smoothing=self.label_smoothing
        )
        loss = total / share(counts.sum().float()).clamp(min=1)
        if self.weight:
            loss = loss + self.weight * self._dice(logits, masks, counts, share)
        return loss

    def _dice(self, logits: Tensor, masks: Tensor, counts: Tensor, share: Share) -> Tensor:
        numbers = torch.arange(logits.shape[1], device=masks.device)[None, :, None, None]
        truth = (masks[:, None] == numbers).float()
        shares = logits.softmax(1) * counts[:, None]
        there = truth.sum((2, 3)) > 0
        number = there.sum()
        mean = self.dice(shares[there][None], truth[there][None]) if number else logits.sum() * 0
        return mean * number / share(number.float()).clamp(min=1)
