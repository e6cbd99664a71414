"""Image classification: fit, evaluate, predict; on Lightning (extra: classify)."""

from rfaconv.tasks.classify.evaluate import Evaluation, evaluate
from rfaconv.tasks.classify.fit import ClassifyJob, fit

__all__ = ["ClassifyJob", "Evaluation", "evaluate", "fit"]
