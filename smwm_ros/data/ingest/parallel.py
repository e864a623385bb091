"""Many bags at once, in processes of their own."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any

import cv2

from smwm_ros.data.ingest.part import Job, Record, make_part
from smwm_ros.errors import DataError, SmwmError

LOOK = 0.2
"""Seconds between two looks at how far the others are."""
BROKEN = (
    "a process that read bags was ended from outside, perhaps because memory ran out; what was finished is "
    "kept, so run the same command again, with fewer --jobs"
)

Progress = Callable[[int], None]
"""Called with the messages read so far, of all bags together."""


def make_parts(
    jobs: Sequence[Job], processes: int, progress: Progress | None = None
) -> list[Record | SmwmError]:
    """
    Read bags into their parts.

    Args:
        jobs: the bags.
        processes: that read at the same time; with one, or for one bag, it is this one.
        progress: called now and then.

    Returns:
        For each bag its record, or what is wrong with it.
    """
    if processes == 1 or len(jobs) <= 1:
        with one_thread_of_opencv():
            return _here(jobs, progress)
    # A process that is forked would share this one's threads and open files, as far as they survive.
    context = multiprocessing.get_context("spawn")
    counts = context.Array("Q", len(jobs))
    stop = context.Event()
    with ProcessPoolExecutor(
        min(processes, len(jobs)), context, initializer=_start, initargs=(counts, stop)
    ) as pool:
        try:
            # The largest first, so that at the end nobody waits for it alone.
            order = sorted(range(len(jobs)), key=lambda number: -jobs[number].size)
            futures = {number: pool.submit(_there, number, jobs[number]) for number in order}
            open_ = set(futures.values())
            while open_:
                _, open_ = wait(open_, timeout=LOOK)
                if progress is not None:
                    progress(sum(counts[:]))
            return [futures[number].result() for number in range(len(jobs))]
        except BrokenProcessPool as error:
            raise DataError(BROKEN) from error
        finally:
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def one_thread_of_opencv() -> Iterator[None]:
    """Let OpenCV work in the calling thread alone, as there are others that call it."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


def _here(jobs: Sequence[Job], progress: Progress | None) -> list[Record | SmwmError]:
    results: list[Record | SmwmError] = []
    read = 0
    for job in jobs:
        count = 0

        def step(done: int, _: int, before: int = read) -> None:
            nonlocal count
            count = done
            if progress is not None:
                progress(before + done)

        try:
            results.append(make_part(job, step))
        except SmwmError as error:
            results.append(error)
        read += count
    return results


class _Worker:
    """What a process that reads bags was given at its start."""

    counts: Any = None
    stop: Any = None


def _start(counts: Any, stop: Any) -> None:
    _Worker.counts, _Worker.stop = counts, stop
    cv2.setNumThreads(1)
    # Ctrl-C reaches all processes of a terminal; the first one tells the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _there(number: int, job: Job) -> Record | SmwmError:
    def step(done: int, _: int) -> None:
        _Worker.counts[number] = done
        if _Worker.stop.is_set():
            raise DataError(f"{job.bag}: interrupted")

    try:
        return make_part(job, step)
    except SmwmError as error:
        return error
