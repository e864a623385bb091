"""What a robot does when things go wrong: each fault over real DDS, on real processes, seen from outside."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from smwm_ros.cli.environment import isolate
from smwm_ros.cli.fault_cases import Case, chosen_cases
from smwm_ros.cli.fault_session import FaultSession
from smwm_ros.errors import StackError
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
    broken: list[str] = field(default_factory=list)
    """Why repeats could not be brought to an end."""

    def to_json(self, limit: float) -> dict[str, Any]:
        """Return the figures, times in ms."""
        safe, silence = (max(times, default=PATIENCE) for times in (self.safe, self.silence))
        recovered = len(self.recovery) == len(self.safe) and not self.broken
        return {
            "worst_safe_ms": _ms(safe),
            "limit_ms": _ms(limit),
            "recovered": recovered,
            "outside_limits": self.outside,
            "longest_silence_ms": _ms(silence),
            "passed": safe <= limit and silence <= limit and not self.outside and recovered,
            "safe_ms": _spread(self.safe),
            "recovery_ms": _spread(self.recovery),
            "reasons": sorted(self.reasons),
            "repeats": len(self.safe) + len(self.broken),
            "broken": self.broken,
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
    verdicts = {case.name: Verdict() for case in cases}
    done = 0

    def session(clock: bool) -> FaultSession:
        path = checkpoint or checkpoint_path(contract.name)
        return FaultSession(robot, path, replan=replan, clock=clock, generator=generator)

    def work(pending: list[Case], running: FaultSession) -> None:
        nonlocal done
        while pending:
            case = pending.pop(0)
            try:
                _try(case, running, verdicts[case.name])
            except StackError as error:
                verdicts[case.name].broken.append(str(error))
                raise
            finally:
                done += 1
                progress(case.name, done)

    for clock in (False, True):
        pending = [case for case in cases if case.clock is clock for _ in range(repeats)]
        while pending:
            left = len(pending)
            try:
                with session(clock) as running:
                    work(pending, running)
            except StackError:
                if len(pending) == left:
                    raise  # it did not even start; otherwise a new robot goes on
    figures = {name: verdict.to_json(limit) for name, verdict in verdicts.items()}
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
            session.wait(lambda: case.answer(witness.testimony(moment)) is not None, PATIENCE)
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
    safe = case.answer(heard)
    if case.safe:
        verdict.safe.append(PATIENCE if safe is None else safe - moment)
    else:
        verdict.safe.append(heard.oldest_evidence(session.offset))
    verdict.reasons |= {note.reason for note in heard.applied if note.safe}
    verdict.silence.append(heard.longest_silence(now))
    verdict.outside += heard.outside(session.contract)


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
