"""The faults that `smwm bench faults` brings about; docs/faults.md says what the robot does."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from smwm_ros.cli.fault_session import FaultSession
from smwm_ros.errors import ConfigError
from smwm_ros.runtime.testimony import Account

NODES = ("perception", "world_model", "planner")


@dataclass(frozen=True)
class Case:
    """A fault: how it is brought about, and what counts."""

    name: str
    begin: Callable[[FaultSession], float]
    """Brings it about; returns the time of the last good evidence before it, steady seconds."""
    end: Callable[[FaultSession], None]
    """Takes the cause away, as far as the stack does not do so itself."""
    safe: bool = True
    """Must lead to a safe action; otherwise it counts on how old images planned actions still rest."""
    clock: bool = False
    """Needs /clock."""
    anew: bool = False
    """An action planned in a new time will do in place of the safe one."""

    def answer(self, heard: Account) -> float | None:
        """Return when the robot had answered the fault as it must, steady seconds; None if it has not."""
        times = (heard.first_safe(), heard.first_anew() if self.anew else None)
        return min((time for time in times if time is not None), default=None)


def chosen_cases(only: Sequence[str]) -> tuple[list[Case], dict[str, str]]:
    """Return the cases of these names, or all, and why others are skipped."""
    cases = list(all_cases())
    if unknown := set(only) - {case.name for case in cases}:
        raise ConfigError(
            f"unknown faults: {', '.join(sorted(unknown))}; known: {', '.join(case.name for case in cases)}"
        )
    chosen = [case for case in cases if not only or case.name in only]
    if any(case.name == "gpu_starved" for case in chosen):
        import torch

        if not torch.cuda.is_available():
            chosen = [case for case in chosen if case.name != "gpu_starved"]
            return chosen, {"gpu_starved": "there is no GPU that CUDA can use"}
    return chosen, {}


def all_cases() -> Iterable[Case]:
    """Yield every fault, in the order in which they are tried."""
    for kind in ("stops", "freezes", "repeats", "nan", "wrong_size", "old_stamps", "future_stamps"):
        yield _injected("camera", kind)
    for kind in ("nan", "too_long", "stale", "future", "wrong_model"):
        yield _injected("plan", kind)
    yield _injected("plan", "one_nan")
    for node in NODES:
        yield _stopped(node)
    for node in NODES:
        yield _killed(node)
    for node in NODES:
        yield _restarted(node)
    yield Case(
        "dds_restart_world_model", lambda session: session.witness.cycle("world_model"), lambda session: None
    )
    yield _injected("camera", "burst", safe=False)
    yield _injected("plan", "burst", safe=False)
    yield _starved("cpu")
    yield _starved("gpu")
    for kind in ("paused", "stops", "jumps_back", "jumps_forward"):
        yield _injected("clock", kind, clock=True)


def _injected(what: str, kind: str, *, safe: bool = True, clock: bool = False) -> Case:
    return Case(
        f"{what}_{kind}",
        lambda session: session.order(**{what: kind}),
        lambda session: void(session.order(**{what: ""})),
        safe=safe,
        clock=clock,
        anew=kind.startswith("jumps"),
    )


def _stopped(node: str) -> Case:
    return Case(
        f"{node}_stopped",
        lambda session: session.send(node, signal.SIGSTOP),
        lambda session: void(session.send(node, signal.SIGCONT)),
    )


def _killed(node: str) -> Case:
    return Case(f"{node}_killed", lambda session: session.send(node, signal.SIGKILL), lambda session: None)


def _restarted(node: str) -> Case:
    def begin(session: FaultSession) -> float:
        moment = time.monotonic()
        session.stack.restart(node)
        return moment

    return Case(f"{node}_restarted", begin, lambda session: None)


def _starved(device: str) -> Case:
    busy: list[subprocess.Popen[bytes]] = []

    def begin(session: FaultSession) -> float:
        busy.extend(session.starve("cuda" if device == "gpu" else device))
        return time.monotonic()

    def end(session: FaultSession) -> None:
        while busy:
            process = busy.pop()
            process.kill()
            process.wait()

    return Case(f"{device}_starved", begin, end, safe=False)


def void(_: object) -> None:
    """Return nothing, whatever was returned."""
