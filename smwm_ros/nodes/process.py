"""The process around one node: signals, readiness, exit code."""

from __future__ import annotations

import faulthandler
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import rclpy
from rclpy.duration import Duration
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.task import Future
from rclpy.utilities import get_rmw_implementation_identifier

from smwm_ros.errors import SmwmError
from smwm_ros.nodes.lifecycle import SmwmNode
from smwm_ros.runtime.encoder import device_lost
from smwm_ros.stack.notify import notify_failed, notify_ready
from smwm_ros.stack.transport import no_shared_memory

LAST_WORD = Duration(seconds=1)
"""How long a node that could not start waits until its diagnostics have arrived."""

TOGETHER = 3.0
"""
Seconds after the first signal in which others mean no more than that one. One wish to end often brings
several: systemd signals every process of a service, and `smwm up` or launch, signalled too, its nodes once
more; that a terminal is gone is told by the kernel and by the shell. Whoever insists does so later: launch
after 5 s, `smwm up` after 6 s.
"""

SWITCH = 1e-4
"""
Seconds after which a thread that holds the interpreter gives way to one that waits for it. Python's own 5 ms
are longer than most of what the nodes do: a worker would wait until the executor has nothing left to do.
"""


def run(make_node: Callable[[], SmwmNode]) -> None:
    """
    Be the process of one node: start it, spin until a signal or ``finish``, end in good order.

    With Fast DDS, it shares memory with other processes only if its environment says so: whoever shares it
    can be held up by a process that was stopped or killed, or that begins.

    SIGINT, SIGTERM and SIGHUP (the terminal is gone; not under nohup) end the process with exit code 0
    after the node's ``stop`` and ``tear_down`` have run. Any more within ``TOGETHER`` of the first are
    ignored; a later one ends the process at once. Without a signal, the exit code is that of ``finish``, or 1
    if the node could not start.
    """
    faulthandler.enable()
    sys.setswitchinterval(SWITCH)
    os.environ.update(no_shared_memory(get_rmw_implementation_identifier()))
    # rclpy's own handlers would shut the context down before the node could say its last word, and
    # Python's run only once rcl_wait returns. The interpreter's note in a socket comes at once, and
    # whichever thread the signal reached: libraries (OpenBLAS) have started some while being imported.
    signalled: Future[int] = Future()
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    signal.set_wakeup_fd(writer.fileno())
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as nohup leaves it
        numbers.append(signal.SIGHUP)
    for number in numbers:
        signal.signal(number, lambda *_: None)

    def wait_for_signals() -> None:
        # Nothing comes once the process has ended meanwhile.
        if reader.recv(1):
            first = time.monotonic()
            signalled.set_result(0)
            while another := reader.recv(1):
                if time.monotonic() - first > TOGETHER:
                    os._exit(128 + another[0])

    threading.Thread(target=wait_for_signals, name="signals", daemon=True).start()
    code = _spin(make_node, signalled)
    # All is said and let go. The destructors of native libraries, run while threads of theirs still live,
    # could only crash or hang.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def prioritise(priority: int) -> str:
    """
    Let this process go before all ordinary ones: its threads, and those that they will start (SCHED_FIFO).

    Args:
        priority: 1 to 99.

    Returns:
        Why the system does not allow it; empty if it does.
    """
    for thread in Path("/proc/self/task").iterdir():
        try:
            os.sched_setscheduler(int(thread.name), os.SCHED_FIFO, os.sched_param(priority))
        except ProcessLookupError:
            continue  # it has ended meanwhile
        except OSError as error:
            return str(error)
    return ""


@contextmanager
def end_if_device_lost(node: SmwmNode) -> Iterator[None]:
    """
    End the process with exit code 1 where what runs in this context finds that the GPU has failed.

    CUDA does nothing more for this process then, but may for a new one, which `smwm up` or launch starts.
    The exception goes on to whoever calls. Any thread may use it.
    """
    try:
        yield
    except Exception as error:
        if device_lost(error):
            node.get_logger().error(f"the GPU has failed, so this process ends; start a new one: {error}")
            node.finish(1)
        raise


def _work(node: SmwmNode, executor: SingleThreadedExecutor) -> None:
    """Spin until the node has finished, whatever requests come: rclpy's own services raise for some."""
    while not node.finished.done():
        try:
            executor.spin_until_future_complete(node.finished)
        except ExternalShutdownException:
            raise
        except Exception as error:
            node.defect("handling a request or a message", error)
            # rclpy forgets to, when it raises before the callback: nothing would be called any more.
            group = node.default_callback_group
            if (entity := group._active_entity) is not None:
                entity._executor_event = False
                group.ending_execution(entity)


def _spin(make_node: Callable[[], SmwmNode], signalled: Future[int]) -> int:
    try:
        rclpy.init(signal_handler_options=rclpy.SignalHandlerOptions.NO)
        node = make_node()
        node.own_process()
    except (SmwmError, rclpy_implementation.RCLError) as error:
        print(error, file=sys.stderr)
        notify_failed(str(error))
        return 1
    # Either a signal or the node itself ends the spinning.
    signalled.add_done_callback(lambda _: node.finish(0))
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        if not signalled.done():
            if node.value("autostart") and not node.bring_up():
                node.publish_diagnostics(LAST_WORD)
                notify_failed(node.failure)
                return 1
            notify_ready()
            _work(node, executor)
    except ExternalShutdownException:
        return 1
    finally:
        node.shut_down()
        executor.shutdown()
        node.destroy_node()
        rclpy.try_shutdown()
    return node.finished.result() or 0
