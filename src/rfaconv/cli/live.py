"""Trainings as they go: bars on a terminal, a line a finished run elsewhere."""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from rfaconv.tasks.results import Metric, RunResult

if TYPE_CHECKING:
    from rfaconv.tasks.callbacks import Progress as FitProgress

Run = tuple[str, int]


class Live:
    """Shows `total` runs; used as a context manager and as the watcher of a comparison."""

    def __init__(self, console: Console, total: int, metric: Metric) -> None:
        self.console, self.total, self.metric = console, total, metric
        self.bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self.overall = self.bars.add_task(f"{total} runs", total=total, note="", visible=total > 1)
        self.running: dict[Run, TaskID] = {}
        self.done = 0
        self.started = time.perf_counter()

    def __enter__(self) -> Live:
        self.bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bars.stop()
        if kind is not None and issubclass(kind, KeyboardInterrupt):
            self.console.print("Stopped; the same command goes on where it was.")
            raise typer.Exit(130)

    def progress(self, run: Run, progress: FitProgress) -> None:
        conv, seed = run
        if run not in self.running:
            self.running[run] = self.bars.add_task(f"{conv}, seed {seed}", total=progress.total, note="")
        self.bars.update(self.running[run], completed=progress.done, note=self._note(progress.figures))

    def finished(self, run: Run, result: RunResult) -> None:
        self.done += 1
        if run in self.running:
            self.bars.remove_task(self.running.pop(run))
        self.bars.update(self.overall, completed=self.done)
        width = len(str(self.total))
        figure = f"{self.metric.label} {result.metrics[self.metric.key]:.2%}" if result.diverged is None else ""
        self.console.print(
            f"[{self.done:>{width}}/{self.total}] {run[0]:<8} seed {run[1]}  "
            f"{figure or f'diverged at epoch {result.diverged}'}  {result.seconds:.0f} s",
            highlight=False,
            markup=False,
        )

    def measuring(self, what: str) -> None:
        self.bars.update(self.overall, note=f"measuring {what}")

    def _note(self, figures: dict[str, float]) -> str:
        value = figures.get(f"val_{self.metric.key}")
        return "" if value is None else f"{self.metric.label} {value:.2%}"
