"""A property test of the safety gate: nothing that comes may make it send what the contract forbids."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

from smwm_ros.cli.gate_sessions import Session
from smwm_ros.contract import Contract
from smwm_ros.runtime.limiter import Limiter

EVENTS = 100
"""Plans, or other nodes' commands, in one session."""


def bench_gate(
    count: int,
    *,
    seed: int = 0,
    make_limiter: Callable[[Contract], Limiter] = Limiter,
    progress: Callable[[int], None] = lambda done: None,
) -> dict[str, Any]:
    """
    Give random plans at random times to gates of random robots, and judge what they send.

    Args:
        count: plans, and other nodes' commands.
        seed: of everything; session s of it depends on (seed, s) alone.
        make_limiter: of the gates: another one than the real one shows whether the judge notices.
        progress: called with the plans done.

    Returns:
        ``plans``, ``commands`` (sent), ``safe`` (of these, safe actions), ``later`` (trajectories' further
        points), ``sessions``, ``violations``, ``by_kind`` (of violations), ``examples`` (the first few, in
        words), ``interventions`` (by reason), ``seed``, ``seconds``.
    """
    begin = time.monotonic()
    plans = commands = safe = later = sessions = 0
    faults: Counter[str] = Counter()
    interventions: Counter[str] = Counter()
    examples: list[str] = []
    while plans < count:
        session = Session(np.random.default_rng([seed, sessions]), make_limiter)
        session.run(min(EVENTS, count - plans))
        for fault in session.checker.faults:
            faults[fault.partition(":")[0]] += 1
            if len(examples) < 5:
                examples.append(f"seed {seed}, session {sessions}, {session.what}: {fault}")
        interventions += session.interventions
        plans, commands, safe = plans + session.plans, commands + session.commands, safe + session.safe
        later, sessions = later + session.later, sessions + 1
        progress(plans)
    return {
        "plans": plans,
        "commands": commands,
        "safe": safe,
        "later": later,
        "sessions": sessions,
        "violations": faults.total(),
        "by_kind": dict(faults),
        "examples": examples,
        "interventions": dict(interventions.most_common()),
        "seed": seed,
        "seconds": time.monotonic() - begin,
    }
