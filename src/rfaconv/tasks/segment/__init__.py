"""Semantic segmentation: fit, evaluate, predict; on Lightning and segmentation_models_pytorch (extra: segment)."""

from rfaconv.tasks.segment.evaluate import Evaluation, evaluate
from rfaconv.tasks.segment.fit import Network, SegmentJob, fit
from rfaconv.tasks.segment.infer import Manner

__all__ = ["Evaluation", "Manner", "Network", "SegmentJob", "evaluate", "fit"]
