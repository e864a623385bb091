"""
Run the processes of a stack, and see to it that all of them end.

Each node is a process of its own, in its own process group, with a log file. None outlives the
supervisor: it ends them on the way out, and where it is killed itself, the kernel does.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from smwm_ros.errors import StackError
from smwm_ros.stack.description import ProcessSpec
from smwm_ros.stack.notify import ADDRESS

POLL = 0.02
LAST_LINES = 12
GRACE = ((signal.SIGINT, 6.0), (signal.SIGTERM, 4.0), (signal.SIGKILL, 20.0))
"""What ends a process, and the seconds each gets before the next."""
PR_SET_PDEATHSIG = 1


@dataclass
class _Process:
    spec: ProcessSpec
    process: subprocess.Popen[bytes]
    log: Path
    notices: socket.socket
    is_ready: bool = False

    def listen(self) -> None:
        """
        Hear what the process says of itself; see sd_notify(3).

        Raises:
            StackError: it says that it cannot start.
        """
        with contextlib.suppress(BlockingIOError):
            said = dict(line.split("=", 1) for line in self.notices.recv(65536).decode().splitlines())
            if "ERRNO" in said:
                raise StackError(f"{self.spec.name} could not start: {said.get('STATUS')} (log: {self.log})")
            self.is_ready = said.get("READY") == "1"

    def last_lines(self) -> str:
        """Return the end of the log, where the reason usually stands."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(f"  {line}" for line in lines[-LAST_LINES:]) or "  (it wrote nothing)"


class Supervisor:
    """
    The running processes of a stack; use it as a context manager.

    ``with Supervisor(specs) as stack: stack.wait_ready(); ...; stack.check()``
    """

    def __init__(
        self,
        specs: Sequence[ProcessSpec],
        *,
        logs: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """
        Prepare; nothing is started yet.

        Args:
            specs: the processes, in the order in which they start.
            logs: directory for one log file per process, made if missing. If absent, a temporary one
                that is kept only when something goes wrong.
            environment: of the processes; this one's if absent.
        """
        self._specs = specs
        self._temporary = logs is None
        self.logs = logs or Path(tempfile.mkdtemp(prefix="smwm-logs-"))
        self._environment = dict(os.environ if environment is None else environment)
        self._processes: list[_Process] = []

    def __enter__(self) -> Supervisor:
        """Start all processes; they become ready side by side."""
        self.logs.mkdir(parents=True, exist_ok=True)
        try:
            for spec in self._specs:
                self._processes.append(self._start(spec))
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End all processes."""
        self.stop()
        if self._temporary and not isinstance(error, Exception):
            shutil.rmtree(self.logs, ignore_errors=True)

    @property
    def processes(self) -> dict[str, int]:
        """Process ids by node name."""
        return {p.spec.name: p.process.pid for p in self._processes}

    def wait_ready(self, timeout: float = 120.0, progress: Callable[[str], None] | None = None) -> None:
        """
        Wait until every node says that it is up.

        Args:
            timeout: seconds for all of them together.
            progress: called with the name of each node as it becomes ready.

        Raises:
            StackError: one died, or was not up in time; with the end of its log.
        """
        deadline = time.monotonic() + timeout
        while waiting := [p for p in self._processes if not p.is_ready]:
            for process in waiting:
                process.listen()
                if process.is_ready and progress:
                    progress(process.spec.name)
            self.check()
            if time.monotonic() > deadline:
                late = waiting[0]
                raise StackError(
                    f"{late.spec.name} was not ready after {timeout:.0f} s. Its last lines "
                    f"({late.log}):\n{late.last_lines()}"
                )
            time.sleep(POLL)

    def check(self) -> None:
        """
        Make sure that all processes live, or have ended as they should; call it now and then.

        Raises:
            StackError: one ended otherwise; with its exit code and the end of its log.
        """
        for process in self._processes:
            code = process.process.poll()
            if code is not None and not (code == 0 and process.spec.ends):
                how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
                raise StackError(
                    f"{process.spec.name} {how}. Its last lines ({process.log}):\n{process.last_lines()}"
                )

    def finished(self, name: str) -> bool:
        """Tell whether a process has ended."""
        return any(p.spec.name == name and p.process.poll() is not None for p in self._processes)

    def follow(self) -> Iterator[tuple[str, str]]:
        """Yield new log lines as (node, line), for ever; an empty pair after each look at the files."""
        files = [(p.spec.name, p.log.open(encoding="utf-8", errors="replace")) for p in self._processes]
        with contextlib.ExitStack() as opened:
            for _, file in files:
                opened.enter_context(file)
            while True:
                for name, file in files:
                    for line in file:
                        yield name, line.rstrip("\n")
                yield "", ""

    def stop(self) -> None:
        """End all processes: ask, insist, kill. A Ctrl-C meanwhile goes straight to the last."""
        steps = list(GRACE)
        while steps:
            number, seconds = steps.pop(0)
            try:
                for process in self._processes:
                    if process.process.poll() is None:
                        os.killpg(process.process.pid, number)
                if self._ended(seconds):
                    break
            except KeyboardInterrupt:
                steps = steps[-1:]
        for process in self._processes:
            process.notices.close()
        self._processes.clear()

    def _ended(self, seconds: float) -> bool:
        """Wait for the processes; tell whether all of them have ended."""
        deadline = time.monotonic() + seconds
        while any(p.process.poll() is None for p in self._processes):
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL)
        return True

    def _start(self, spec: ProcessSpec) -> _Process:
        # An abstract socket (Linux): no file to clean up, and systemd writes its name with an @.
        address = f"smwm-{os.getpid()}-{id(self)}-{spec.name}"
        notices = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        notices.bind("\0" + address)
        notices.setblocking(False)
        log = self.logs / f"{spec.name}.log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", spec.module, *spec.ros_arguments],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env={
                    **self._environment,
                    **spec.environment,
                    ADDRESS: "@" + address,
                    "PYTHONUNBUFFERED": "1",
                },
                start_new_session=True,  # a Ctrl-C in the terminal reaches the supervisor alone
                preexec_fn=_end_with_parent,  # noqa: PLW1509 - one system call, no lock is taken
            )
        return _Process(spec, process, log, notices)


_libc = ctypes.CDLL(None)


def _end_with_parent() -> None:
    """Ask the kernel to end this process when the one that started it is gone, however it went."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
