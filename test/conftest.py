"""What every test runs under: a ROS network of its own, checked tensor shapes, and no process left behind."""

from __future__ import annotations

import ctypes
import gc
import os
from collections.abc import Iterator
from contextlib import suppress

import psutil
import pytest
from jaxtyping import install_import_hook

from smwm_ros.cli.environment import isolate
from smwm_ros.stack.transport import no_shared_memory

# Inherited by every process that a test starts.
isolate()
# Tests stop and kill processes: none shall hold up another one, nor the next test.
os.environ.update(no_shared_memory("rmw_fastrtps_cpp"))
# Several processes share the cores: one thread in each is faster than all threads in all.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Tensors are checked against the shapes in the annotations, in these packages, while testing.
install_import_hook(["smwm_ros.models", "smwm_ros.planning"], "beartype.beartype")

PR_SET_CHILD_SUBREAPER = 36


def pytest_configure() -> None:
    """Make orphaned grandchildren ours, so that ``no_process_left_behind`` finds them."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


@pytest.fixture(scope="module", autouse=True)
def nobody_left_in_the_graph() -> Iterator[None]:
    """Fail where the tests of a file leave nodes in this process: others would go on meeting them."""
    yield
    gc.collect()
    left = psutil.Process().net_connections("udp")
    assert not left, f"participants left: {[connection.laddr for connection in left]}"


@pytest.fixture(scope="module", autouse=True)
def no_process_left_behind() -> Iterator[None]:
    """End what the tests of a file left running, and fail for it."""
    yield
    left = {child: _command(child) for child in psutil.Process().children(recursive=True)}
    # multiprocessing's helpers live as long as pytest; what has ended has no command line any more
    running = {
        child: command for child, command in left.items() if command and "multiprocessing" not in command
    }
    for child in running:
        with suppress(psutil.NoSuchProcess):
            child.kill()
    psutil.wait_procs(running, timeout=10)
    assert not running, f"processes left running: {list(running.values())}"


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
