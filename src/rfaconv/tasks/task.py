"""What a comparison needs to know of a task; classification, detection and segmentation each answer it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from torch import nn

from rfaconv.tasks.callbacks import Progress
from rfaconv.tasks.results import Metric, Plot, RunResult

if TYPE_CHECKING:
    from rfaconv.tasks.training import Machine


class Task(Protocol):
    """A model, data and a recipe, open only in the convolution and the seed. Must pickle: runs may be in workers."""

    @property
    def name(self) -> str:
        """classify, segment or detect."""

    @property
    def title(self) -> str:
        """What is trained on what, e.g. "resnet10s on Fashion-MNIST subset"."""

    @property
    def metric(self) -> Metric:
        """What the models are compared by."""

    @property
    def test_size(self) -> int:
        """How many images the metric is computed on."""

    @property
    def accelerator(self) -> str:
        """Where to train: "auto", "cpu" or "gpu"."""

    @property
    def input_size(self) -> tuple[int, int, int]:
        """Channels, height and width of one input, for counting and timing."""

    @property
    def cost_batch(self) -> int:
        """Images in the batch that latency and memory are measured on."""

    def identity(self) -> dict[str, Any]:
        """What tells this task from another, as plain JSON data; a comparison resumes only where it is the same."""

    def facts(self) -> dict[str, str]:
        """The same for people who want to repeat it."""

    def build(self, conv: str) -> nn.Module:
        """The model with that convolution, freshly initialised."""

    def fit(self, conv: str, seed: int, run_dir: Path, report: Callable[[Progress], None] | None = None) -> RunResult:
        """Train in `run_dir`, go on where a killed run stopped, or read what a finished one left."""

    def pictures(self, folder: Callable[[str], Path], ranking: Sequence[str], baseline: str) -> list[Plot]:
        """The task's own pictures of finished runs.

        Args:
            folder: where the run of a conv lies, with the seed to be shown.
            ranking: all convs, the best mean first.
        """


class JobTask(ABC):
    """What the tasks answer alike, from their jobs: one training, by a convolution and a seed."""

    data: Any
    machine: Machine

    @abstractmethod
    def _job(self, conv: str, seed: int) -> Any:
        """The training of that convolution from that seed; its `facts()` tell it from every other."""

    @property
    def test_size(self) -> int:
        return len(self.data.val)

    @property
    def accelerator(self) -> str:
        return self.machine.accelerator

    def identity(self) -> dict[str, Any]:
        facts = self._job("conv", 0).facts()
        return {name: value for name, value in facts.items() if name not in ("conv", "seed")}
