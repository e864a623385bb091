"""The worker thread: newest job only, none lost while idle, and a clean end."""

from __future__ import annotations

import threading

from smwm_ros.runtime.worker import Worker


def test_job_that_waits_is_replaced_by_a_newer_one() -> None:
    """Pins that slow work leaves out jobs instead of falling behind."""
    done: list[int] = []
    begun, go_on = threading.Event(), threading.Event()

    def work(job: int) -> None:
        begun.set()
        go_on.wait(10)
        done.append(job)

    worker = Worker("test", work)
    assert worker.offer(0)
    assert begun.wait(10)
    assert [worker.offer(job) for job in (1, 2, 3)] == [True, False, False]
    begun.clear()
    go_on.set()
    assert begun.wait(10)
    worker.stop()
    assert done == [0, 3]


def test_stop_ends_the_thread_at_rest_and_leaves_waiting_jobs() -> None:
    Worker("idle", print).stop()
    done: list[int] = []
    begun, go_on = threading.Event(), threading.Event()

    def work(job: int) -> None:
        begun.set()
        go_on.wait(10)
        done.append(job)

    worker = Worker("busy", work)
    worker.offer(0)
    assert begun.wait(10)
    worker.offer(1)
    stopper = threading.Thread(target=worker.stop)
    stopper.start()
    while worker._working:
        pass
    go_on.set()
    stopper.join(10)
    assert done == [0]
