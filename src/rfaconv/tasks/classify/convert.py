"""A trained plain classifier into one with attention convolutions, checked image by image."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from rfaconv.conversion import Summary, convert
from rfaconv.data import ClassificationData
from rfaconv.errors import UserError
from rfaconv.models.pretrained import add_biases
from rfaconv.tasks.checkpoint import ModelRecord, load_model, save_model
from rfaconv.tasks.classify.evaluate import Evaluation, check_fit, evaluate
from rfaconv.tasks.classify.start import calibration_batches


@dataclass(frozen=True)
class ConvertedClassifier:
    """What `convert_classifier` did, and what both models say of the validation images."""

    record: ModelRecord
    summary: Summary
    before: Evaluation
    after: Evaluation

    @property
    def same(self) -> int:
        """To how many images both models give the same class."""
        return sum(a == b for a, b in zip(self.before.predictions, self.after.predictions, strict=True))


def convert_classifier(
    path: Path, out: Path, conv: str, data: ClassificationData, *, device: str = "cpu"
) -> ConvertedClassifier:
    """Convert what `rfaconv train --conv conv` left, in the paper's places; `rfaconv eval` takes the result.

    Training images calibrate and verify it; both models are evaluated on the validation images.

    Raises:
        UserError: it is no plain model, was trained on other classes, or the converted one deviates.
    """
    model, record = load_model(path)
    if record.task != "classify":
        raise UserError(f"'{path}' is no classifier; convert it in Python, with rfaconv.convert.")
    if record.conv != "conv":
        raise UserError(f"'{path}' has '{record.conv}' convolutions already; a plain model (--conv conv) is needed.")
    check_fit(record, data)
    before = evaluate(model, record, data, device=device)
    summary = _convert(model.to("cpu"), conv, record, data)
    record = replace(record, conv=conv)
    after = evaluate(model, record, data, device=device)
    save_model(out, model, record)
    return ConvertedClassifier(record, summary, before, after)


def _convert(model: nn.Module, conv: str, record: ModelRecord, data: ClassificationData) -> Summary:
    summary = convert(model, conv, where="resnet", calibrate=calibration_batches(record, data))
    add_biases(model)
    return summary
