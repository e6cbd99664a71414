"""Object detection: fit, evaluate, compare; on Ultralytics (extra: detect)."""

from rfaconv.models.yolo import library
from rfaconv.tasks.detect.evaluate import Evaluation, evaluate
from rfaconv.tasks.detect.fit import DetectJob, fit

__all__ = ["DetectJob", "Evaluation", "evaluate", "fit", "library"]  # library first: see there
