"""
Run the processes of a stack, start again those that die, and see to it that all of them end.

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
from smwm_ros.stack.restarts import NEVER, RestartPolicy

POLL = 0.02
LAST_LINES = 12
GRACE = ((signal.SIGINT, 6.0), (signal.SIGTERM, 4.0), (signal.SIGKILL, 20.0))
"""What ends a process, and the seconds each gets before the next; the first also gets those to settle."""
PR_SET_PDEATHSIG = 1


@dataclass
class _Process:
    """A node's process; another one after each restart."""

    spec: ProcessSpec
    process: subprocess.Popen[bytes]
    log: Path
    notices: socket.socket
    began: float
    """Steady seconds."""
    is_ready: bool = False
    refusal: str = ""
    """Why it cannot start, by its own words."""
    restarts: int = 0
    """In a row; see RestartPolicy."""
    was_ready: bool = False
    """This or an earlier process of the node: what it was told is in order."""
    due: float | None = None
    """When it is started again, steady seconds; it is dead then."""

    def listen(self) -> None:
        """Hear what the process says of itself; see sd_notify(3)."""
        with contextlib.suppress(BlockingIOError):
            said = dict(line.split("=", 1) for line in self.notices.recv(65536).decode().splitlines())
            self.is_ready = said.get("READY") == "1"
            self.was_ready |= self.is_ready
            if "ERRNO" in said:
                self.refusal = said.get("STATUS", "it does not say why")

    def how_it_ended(self, code: int) -> str:
        """Say it for people."""
        if self.refusal:
            return f"could not start: {self.refusal}"
        return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"

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
        restarts: RestartPolicy = NEVER,
        tell: Callable[[str, str], None] = lambda name, event: None,
    ) -> None:
        """
        Prepare; nothing is started yet.

        Args:
            specs: the processes, in the order in which they start.
            logs: directory for one log file per process, made if missing. If absent, a temporary one
                that is kept only when something goes wrong.
            environment: of the processes; this one's if absent.
            restarts: what becomes of a node that dies after it was up, or is killed before. By default,
                that is an error.
            tell: called with a node's name and what became of it, when it died or is up again.
        """
        self._specs = specs
        self._temporary = logs is None
        self.logs = logs or Path(tempfile.mkdtemp(prefix="smwm-logs-"))
        self._environment = {**(os.environ if environment is None else environment), "PYTHONUNBUFFERED": "1"}
        self._restarts = restarts
        self._tell = tell
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
        """Process ids by node name; a node that was started again has another one."""
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
            self.check()
            for process in waiting:
                if process.is_ready and progress:
                    progress(process.spec.name)
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

        Here dead nodes are started again, when their time has come: it never waits for that.

        Raises:
            StackError: one died and may not be started again; with how it ended and the end of its log.
        """
        for process in self._processes:
            if process.due is not None:
                if time.monotonic() >= process.due:
                    self._start_again(process, died=process.was_ready)
                continue
            if not process.is_ready:
                process.listen()
                if process.is_ready and process.restarts:
                    self._tell(process.spec.name, "is ready again")
            code = process.process.poll()
            if code is not None and not (code == 0 and process.spec.ends):
                process.listen()  # its last word may have come after the look above
                self._plan_restart(process, code)

    def restart(self, name: str) -> None:
        """
        End a node's process in good order, if it lives, and start it again; ``wait_ready`` then waits for it.
        One that had died before, or does not end in good order, is told what it is told after a death.

        Raises:
            StackError: there is no such node.
        """
        process = next((p for p in self._processes if p.spec.name == name), None)
        if process is None:
            raise StackError(f"no node {name} runs here; there are {', '.join(self.processes) or 'none'}")
        self._end([process])
        self._start_again(process, died=process.process.returncode != 0)

    def finished(self, name: str) -> bool:
        """Tell whether a process has ended."""
        return any(p.spec.name == name and p.process.poll() is not None for p in self._processes)

    def follow(self) -> Iterator[tuple[str, str]]:
        """Yield new log lines as (node, line), for ever; an empty pair after each look at the files."""
        with contextlib.ExitStack() as opened:
            files = {
                p.spec.name: opened.enter_context(p.log.open(encoding="utf-8", errors="replace"))
                for p in self._processes
            }
            begun = dict.fromkeys(files, "")  # lines that are half written yet
            while True:
                for name, file in files.items():
                    *lines, begun[name] = (begun[name] + file.read()).split("\n")
                    for line in lines:
                        yield name, line
                yield "", ""

    def stop(self) -> None:
        """End all processes: ask, insist, kill. A Ctrl-C or SIGTERM meanwhile goes straight to the last."""
        self._end(self._processes)
        for process in self._processes:
            process.notices.close()
        self._processes.clear()

    def _plan_restart(self, process: _Process, code: int) -> None:
        name, now, policy = process.spec.name, time.monotonic(), self._restarts
        if now - process.began > policy.healthy:
            process.restarts = 0
        ended = process.how_it_ended(code)
        # What gave up before it was ready was told something wrong: no use in telling it again. What was
        # killed then (middleware has been seen to crash while a node is made) had begun nothing, and may.
        allowed = process.spec.restart if process.was_ready else code < 0
        if not (allowed and process.restarts < policy.most):
            often = f" after {process.restarts} restarts in a row" if process.restarts else ""
            if process.refusal:
                raise StackError(f"{name} {ended}{often} (log: {process.log})")
            raise StackError(
                f"{name} {ended}{often}. Its last lines ({process.log}):\n{process.last_lines()}"
            )
        delay = policy.delay(process.restarts)
        process.restarts += 1
        process.due, process.is_ready = now + delay, False
        self._tell(name, f"{ended}; starts again in {delay:g} s ({process.restarts} of {policy.most})")

    def _start_again(self, process: _Process, *, died: bool) -> None:
        process.notices.close()
        fresh = self._start(process.spec.after_death() if died else process.spec, again=True)
        process.process, process.notices, process.began = fresh.process, fresh.notices, fresh.began
        process.refusal, process.due, process.is_ready = "", None, False

    def _end(self, processes: Sequence[_Process]) -> None:
        """End some processes: ask, insist, kill."""
        (ask, seconds), *others = GRACE
        steps = [(ask, seconds + max((p.spec.settling for p in processes), default=0.0)), *others]
        while steps:
            number, seconds = steps.pop(0)
            try:
                for process in processes:
                    if process.process.poll() is None:
                        os.killpg(process.process.pid, number)
                if _ended(processes, seconds):
                    return
            except (KeyboardInterrupt, SystemExit):
                steps = steps[-1:]

    def _start(self, spec: ProcessSpec, again: bool = False) -> _Process:
        # An abstract socket (Linux): no file to clean up, and systemd writes its name with an @.
        address = f"smwm-{os.getpid()}-{id(self)}-{spec.name}"
        notices = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        notices.bind("\0" + address)
        notices.setblocking(False)
        log = self.logs / f"{spec.name}.log"
        with log.open("ab" if again else "wb") as file:  # why the last one died stands in there
            process = subprocess.Popen(
                [sys.executable, "-m", spec.module, *spec.ros_arguments],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env={**self._environment, **spec.environment, ADDRESS: "@" + address},
                start_new_session=True,  # a Ctrl-C in the terminal reaches the supervisor alone
                preexec_fn=_end_with_parent,  # noqa: PLW1509 - one system call, no lock is taken
            )
        return _Process(spec, process, log, notices, began=time.monotonic())


def _ended(processes: Sequence[_Process], seconds: float) -> bool:
    """Wait for processes; tell whether all of them have ended."""
    deadline = time.monotonic() + seconds
    while any(p.process.poll() is None for p in processes):
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL)
    return True


_libc = ctypes.CDLL(None)


def _end_with_parent() -> None:
    """Ask the kernel to end this process when the one that started it is gone, however it went."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
