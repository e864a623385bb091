"""What a robot does when things go wrong: each fault over real DDS, on real processes, seen from outside."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from smwm_ros.cli.environment import isolate
from smwm_ros.cli.fault_session import FaultSession
from smwm_ros.errors import ConfigError
from smwm_ros.resources import checkpoint_path, find_contract
from smwm_ros.runtime.testimony import Account

PATIENCE = 1.5
"""Seconds that a safe action is waited for; one that has not come by then is noted with that time."""
AFTERMATH = 0.3
"""Seconds that a cause lasts after the safe action."""
LASTS = 3.0
"""Seconds that a cause lasts which need not lead to a safe action."""
RECOVERY = 30.0
"""Seconds after the cause is gone within which plans must be played again."""
PLANS = 3
"""Planned actions that show so."""
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


@dataclass
class Verdict:
    """What was seen of one case, over all repeats."""

    safe: list[float] = field(default_factory=list)
    """Seconds from the last good evidence to the safe action, or see ``Case.safe``."""
    recovery: list[float] = field(default_factory=list)
    """Seconds from the end of the cause until plans were played again; those that did so."""
    silence: list[float] = field(default_factory=list)
    outside: int = 0
    reasons: set[str] = field(default_factory=set)

    def to_json(self, limit: float) -> dict[str, Any]:
        """Return the figures, times in ms."""
        return {
            "worst_safe_ms": _ms(max(self.safe)),
            "limit_ms": _ms(limit),
            "recovered": len(self.recovery) == len(self.safe),
            "outside_limits": self.outside,
            "longest_silence_ms": _ms(max(self.silence)),
            "passed": max(self.safe) <= limit
            and max(self.silence) <= limit
            and not self.outside
            and len(self.recovery) == len(self.safe),
            "safe_ms": _spread(self.safe),
            "recovery_ms": _spread(self.recovery),
            "reasons": sorted(self.reasons),
            "repeats": len(self.safe),
        }


def bench_faults(
    repeats: int,
    *,
    robot: str = "reacher",
    checkpoint: Path | None = None,
    replan: int = 1,
    only: Sequence[str] = (),
    seed: int = 0,
    progress: Callable[[str, int], None] = lambda name, done: None,
) -> dict[str, Any]:
    """
    Bring each fault upon a robot that moves towards a goal, take it away again, and watch its commands.

    Args:
        repeats: of each case.
        robot: name or path of a contract.
        checkpoint: the robot's shipped one if absent.
        replan: control ticks of a plan that are played before the next.
        only: names of cases; all if empty.
        seed: of the moments at which faults begin.
        progress: called with the name of a case and the repeats done, of all cases.

    Returns:
        ``faults`` (see docs/faults.md), ``skipped`` (names, and why), ``passed``, ``seconds``.

    Raises:
        ConfigError: an unknown case.
        StackError: the robot would not start, or move.
    """
    isolate()
    started = time.monotonic()
    contract = find_contract(robot)
    cases, skipped = chosen_cases(only)
    limit = contract.action.timeout + replan * contract.period
    generator = np.random.default_rng(seed)
    figures: dict[str, Any] = {}
    done = 0
    for clock in (False, True):
        chosen = [case for case in cases if case.clock is clock]
        if not chosen:
            continue
        with FaultSession(
            robot,
            checkpoint or checkpoint_path(contract.name),
            replan=replan,
            clock=clock,
            generator=generator,
        ) as session:
            for case in chosen:
                verdict = Verdict()
                for _ in range(repeats):
                    _try(case, session, verdict)
                    done += 1
                    progress(case.name, done)
                figures[case.name] = verdict.to_json(limit)
    return {
        "faults": figures,
        "skipped": skipped,
        "passed": all(row["passed"] for row in figures.values()),
        "seconds": round(time.monotonic() - started, 1),
    }


def _try(case: Case, session: FaultSession, verdict: Verdict) -> None:
    """Bring about a fault once, and note what was seen."""
    session.move()
    witness = session.witness
    moment = case.begin(session)
    try:
        if case.safe:
            session.wait(lambda: witness.testimony(moment).first_safe() is not None, PATIENCE)
            session.wait(lambda: False, AFTERMATH)
        else:
            session.wait(lambda: False, LASTS)
    finally:
        case.end(session)
    gone = time.monotonic()
    if session.wait(lambda: witness.testimony(gone).planned(gone) >= PLANS, RECOVERY):
        verdict.recovery.append(time.monotonic() - gone)
    judge(case, witness.testimony(moment), moment, time.monotonic(), session, verdict)


def judge(
    case: Case, heard: Account, moment: float, now: float, session: FaultSession, verdict: Verdict
) -> None:
    """
    Add what was heard of one fault to a verdict.

    Args:
        case: the fault.
        heard: since ``moment``.
        moment: of the last good evidence, steady seconds.
        now: when listening ended.
        session: whose contract and clock count.
        verdict: to add to.
    """
    safe = heard.first_safe()
    if case.safe:
        verdict.safe.append(PATIENCE if safe is None else safe - moment)
    else:
        verdict.safe.append(heard.oldest_evidence(session.offset))
    verdict.reasons |= {note.reason for note in heard.applied if note.safe}
    verdict.silence.append(heard.longest_silence(now))
    verdict.outside += heard.outside(session.contract)


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
    yield Case("dds_restart_world_model", _cycle, lambda session: None)
    yield _injected("camera", "burst", safe=False)
    yield _injected("plan", "burst", safe=False)
    yield _starved("cpu")
    yield _starved("gpu")
    for kind in ("paused", "stops", "jumps_back"):
        yield _injected("clock", kind, clock=True)


def _injected(what: str, kind: str, *, safe: bool = True, clock: bool = False) -> Case:
    return Case(
        f"{what}_{kind}",
        lambda session: session.order(**{what: kind}),
        lambda session: void(session.order(**{what: ""})),
        safe=safe,
        clock=clock,
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


def _cycle(session: FaultSession) -> float:
    moment = time.monotonic()
    session.witness.cycle("world_model")
    return moment


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


def _ms(seconds: float) -> float:
    return round(1e3 * seconds, 2)


def _spread(seconds: Sequence[float]) -> dict[str, Any]:
    if not seconds:
        return {"p50": None, "max": None, "all": []}
    return {
        "p50": _ms(float(np.median(seconds))),
        "max": _ms(max(seconds)),
        "all": [_ms(value) for value in seconds],
    }
