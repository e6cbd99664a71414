"""Which trainings a comparison consists of, and where each has its folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rfaconv.errors import UserError
from rfaconv.layers.registry import conv_factory
from rfaconv.tasks.task import Task


@dataclass(frozen=True)
class Plan:
    """A task, the convolutions to compare and the seeds each is trained with. The first convolution is the baseline."""

    task: Task
    convs: tuple[str, ...]
    seeds: tuple[int, ...]

    @property
    def baseline(self) -> str:
        return self.convs[0]

    @property
    def runs(self) -> list[tuple[str, int]]:
        """All (conv, seed), a whole seed first, so that a part of the runs can already be compared."""
        return [(conv, seed) for seed in self.seeds for conv in self.convs]

    def facts(self) -> dict[str, Any]:
        """What tells this plan from every other, as plain JSON data."""
        return {**self.task.identity(), "convs": list(self.convs), "seeds": list(self.seeds)}

    def default_folder(self) -> Path:
        """A folder of its own for each plan, so that the same command goes on with the same comparison."""
        digest = hashlib.sha256(json.dumps(self.facts(), sort_keys=True).encode()).hexdigest()[:8]
        return Path("runs") / f"compare-{self.task.name}-{digest}"


def make_plan(task: Task, convs: Sequence[str], seeds: Sequence[int], baseline: str = "conv") -> Plan:
    """A checked plan; the baseline is put first, and added if it is not among `convs`.

    Raises:
        UserError: an unknown convolution, nothing to compare the baseline to, no seed or one twice.
    """
    for conv in [baseline, *convs]:
        conv_factory(conv)
    ordered = tuple(dict.fromkeys([baseline, *convs]))
    if len(ordered) < 2:
        raise UserError(f"There is nothing to compare '{baseline}' to; name another convolution with --convs.")
    if not seeds:
        raise UserError("A comparison needs at least one seed.")
    if len(set(seeds)) != len(seeds):
        raise UserError(f"A seed is named twice: {', '.join(map(str, seeds))}.")
    return Plan(task, ordered, tuple(seeds))
