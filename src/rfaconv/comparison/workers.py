"""Running the trainings of a plan: in this process, or several at a time in workers that die with it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.connection import wait as wait_for
from pathlib import Path
from queue import Empty
from typing import Any

import torch

from rfaconv.errors import UserError
from rfaconv.plugins import load_plugins
from rfaconv.tasks.allocator import keep_freed_memory
from rfaconv.tasks.callbacks import Progress
from rfaconv.tasks.results import RunResult
from rfaconv.tasks.task import Task

Run = tuple[str, int]
Report = Callable[[Run, Progress], None]

_messages: Any = None  # in a worker: the queue its progress goes to


def run_all(
    task: Task,
    runs: Sequence[Run],
    folder: Callable[[str, int], Path],
    *,
    jobs: int = 1,
    plugins: Sequence[str] = (),
    report: Report | None = None,
) -> Iterator[tuple[Run, RunResult]]:
    """Train each of `runs` in its folder; yields each as it is done.

    Args:
        jobs: how many at a time. More than one are trained in processes of their own, each with its share of the
            threads; for small models that is faster than all threads on one.
        plugins: files with layers of the user's own, loaded in the workers too.
        report: called with the progress of each.
    """
    if jobs == 1:
        for run in runs:
            yield run, task.fit(*run, folder(*run), _reporter(report, run))
        return
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    threads = max(1, torch.get_num_threads() // jobs)
    with ProcessPoolExecutor(jobs, context, _start_worker, (queue, threads, tuple(plugins))) as pool:
        with _ignoring_interrupts():
            waiting: dict[Future[RunResult], Run] = {
                pool.submit(_train, task, conv, seed, folder(conv, seed)): (conv, seed) for conv, seed in runs
            }
        try:
            while waiting:
                done, _ = wait(waiting, timeout=0.2, return_when=FIRST_COMPLETED)
                _forward(queue, report)
                for future in done:
                    yield waiting.pop(future), future.result()
        except BrokenProcessPool as error:
            raise UserError(
                "A training process was ended from outside, perhaps for lack of memory; run the same command again, "
                "with --jobs 1 if it happens again."
            ) from error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in multiprocessing.active_children():
                process.kill()  # Lightning takes a mere SIGTERM as a wish; every file is whole at any moment
            raise


def default_jobs(input_size: tuple[int, int, int], accelerator: str) -> int:
    """One training a core for small images on a CPU, which a single one cannot keep busy; else one at a time."""
    small = max(input_size[1:]) <= 128
    on_cpu = accelerator == "cpu" or (accelerator == "auto" and not torch.accelerator.is_available())
    return min(4, torch.get_num_threads()) if small and on_cpu else 1


def _reporter(report: Report | None, run: Run) -> Callable[[Progress], None] | None:
    return None if report is None else lambda progress: report(run, progress)


def _forward(queue: Any, report: Report | None) -> None:
    while True:
        try:
            run, progress = queue.get_nowait()
        except Empty:
            return
        if report is not None:
            report(run, progress)


@contextmanager
def _ignoring_interrupts() -> Iterator[None]:
    """Processes started inside the block never hear Ctrl-C, which a terminal sends to all; their parent ends them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


def _start_worker(queue: Any, threads: int, plugins: tuple[str, ...]) -> None:
    global _messages
    _messages = queue
    torch.set_num_threads(threads)
    keep_freed_memory()
    load_plugins(plugins)
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    """A worker that outlived a killed comparison would write into the folders of the one started next."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait_for([parent.sentinel])
        os._exit(1)


def _train(task: Task, conv: str, seed: int, folder: Path) -> RunResult:
    try:
        return task.fit(conv, seed, folder, lambda progress: _messages.put(((conv, seed), progress)))
    except UserError as error:
        raise UserError(f"{conv}, seed {seed}: {error}") from None
