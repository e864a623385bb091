"""Work that must not hold up the messages: the newest job, in a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

Job = TypeVar("Job")


class Worker(Generic[Job]):
    """
    Does one job after another in a thread, but never an old one: a newer job replaces one that waits.

    So what takes too long leaves out jobs instead of falling behind.
    """

    def __init__(self, name: str, work: Callable[[Job], None]) -> None:
        """
        Start the thread.

        Args:
            name: of the thread.
            work: called with each job; it handles its own exceptions.
        """
        self._work = work
        self._jobs: list[Job] = []
        self._changed = threading.Condition()
        self._working = True
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def offer(self, job: Job) -> bool:
        """Leave a job; False if it replaced one that was waiting."""
        with self._changed:
            free = not self._jobs
            self._jobs = [job]
            self._changed.notify()
        return free

    def stop(self) -> None:
        """Finish the job in hand, leave any other, and end the thread."""
        with self._changed:
            self._working = False
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._jobs or not self._working)
                if not self._working:
                    return
                job = self._jobs.pop()
            self._work(job)
