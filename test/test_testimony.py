"""What follows from what a witness heard: known answers, and figures of the benches that rest on them."""

from __future__ import annotations

import numpy as np
import pytest

from smwm_ros.cli.bench_faults import Verdict
from smwm_ros.cli.bench_fuzz_messages import FuzzReport
from smwm_ros.cli.bench_soak import drift, growths
from smwm_ros.cli.fault_cases import all_cases, chosen_cases
from smwm_ros.contract import load_contract
from smwm_ros.errors import ConfigError
from smwm_ros.runtime.testimony import Account, Applied, Sent

REACHER = load_contract("config/robots/reacher.yaml")
FAST, SAFE = np.array([1.0, -1.0]), np.zeros(2)


def heard(*notes: tuple[float, np.ndarray, bool], lag: float = 0.0) -> Account:
    """Return commands, each with what the gate says of it; the commands come later by ``lag``."""
    return Account(
        tuple(Sent(time + lag, values) for time, values, _ in notes),
        tuple(Applied(time, values, safe, "", 0) for time, values, safe in notes),
    )


def test_the_safe_action_counts_from_when_the_robot_has_it_too() -> None:
    """Pins that the gate's word alone does not stop the clock: the command itself has to come."""
    assert heard((1.0, FAST, False), (1.1, FAST, False)).first_safe() is None
    assert heard((1.0, FAST, False), (1.1, SAFE, True), (1.2, SAFE, True)).first_safe() == 1.1
    late = heard((1.0, FAST, False), (1.1, SAFE, True), lag=0.03)
    assert late.first_safe() == pytest.approx(1.13)


def test_since_keeps_the_command_before_for_silence_and_change() -> None:
    testimony = heard((1.0, FAST, False), (1.2, FAST, False), (1.5, SAFE, True)).since(1.3)
    assert [note.time for note in testimony.sent] == [1.2, 1.5]
    assert [note.time for note in testimony.applied] == [1.5]
    assert testimony.longest_silence(1.6) == pytest.approx(0.3)
    assert testimony.longest_silence(2.0) == pytest.approx(0.5), "silence at the end counts"
    assert testimony.planned(1.0) == 0


@pytest.mark.parametrize(
    ("values", "count"),
    [
        ([[0.0, 0.0], [2.0, -2.0], [0.0, 0.0]], 0),
        ([[0.0, 0.0], [2.001, 0.0]], 1),
        ([[1.5, 0.0], [-1.5, 0.0], [-1.5, 0.0]], 1),
        ([[0.0, float("nan")]], 1),
        ([[float("inf"), 0.0]], 1),
    ],
)
def test_commands_outside_the_limits_are_counted(values: list[list[float]], count: int) -> None:
    """The reacher may have +-2 rad/s, and change by 2 in one period."""
    sent = tuple(Sent(0.05 * i, np.array(row)) for i, row in enumerate(values))
    assert Account(sent, ()).outside(REACHER) == count


def test_the_oldest_evidence_is_that_of_planned_actions_alone() -> None:
    second = 10**9
    notes = (
        Applied(10.1, FAST, safe=False, reason="", evidence=1010 * second),
        Applied(10.3, FAST, safe=False, reason="", evidence=1010 * second),
        Applied(10.9, SAFE, safe=True, reason="too old", evidence=0),
    )
    assert Account((), notes).oldest_evidence(1000 * second) == pytest.approx(0.3)
    assert Account((), notes[2:]).oldest_evidence(1000 * second) == 0.0


def test_a_plan_of_a_new_time_is_known_by_its_image() -> None:
    def note(time: float, evidence: int) -> Applied:
        return Applied(time, FAST, safe=False, reason="", evidence=evidence)

    old = (note(1.0, 500), note(1.1, 500), note(1.2, 600))
    assert Account((), old).first_anew() is None
    jumped = Account((), (*old, note(1.3, 100), note(1.4, 200)))
    assert jumped.first_anew() == jumped.since(1.25).first_anew() == 1.3
    ahead = note(1.3, 10_000_000_600)
    assert Account((), (*old, ahead)).first_anew() == 1.3
    back, forward = (case for case in all_cases() if case.anew)
    assert (back.name, forward.name) == ("clock_jumps_back", "clock_jumps_forward")
    assert back.answer(Account((), (*old, note(1.3, 100)))) == 1.3
    assert forward.answer(Account((), (*old, ahead))) == 1.3


def test_a_case_passes_only_if_all_of_it_is_right() -> None:
    good = {"safe": [0.1, 0.2], "recovery": [0.1, 0.1], "silence": [0.05, 0.07]}
    assert Verdict(**good).to_json(0.3)["passed"]
    for name, bad in {"safe": [0.1, 0.31], "recovery": [0.1], "silence": [0.05, 0.31]}.items():
        assert not Verdict(**{**good, name: bad}).to_json(0.3)["passed"], name
    figures = Verdict(**good, outside=1).to_json(0.3)
    assert not figures["passed"]
    assert (figures["worst_safe_ms"], figures["limit_ms"], figures["safe_ms"]["all"]) == (
        200,
        300,
        [100, 200],
    )


def test_faults_are_chosen_by_name() -> None:
    names = [case.name for case in all_cases()]
    assert len(set(names)) == len(names)
    chosen, skipped = chosen_cases(["plan_nan", "clock_stops"])
    assert [case.name for case in chosen] == ["plan_nan", "clock_stops"]
    assert not skipped
    with pytest.raises(ConfigError, match="plan_nun"):
        chosen_cases(["plan_nun"])


def test_growth_is_that_of_a_line_after_the_warm_up() -> None:
    """A rise at the beginning does not count; what goes on does."""
    seconds = np.arange(0.0, 100.0)
    settled = [(t, 50 if t < 10 else 100) for t in seconds]
    leak = [(t, round(1e6 * (1 + 0.1 * max(t - 10, 0) / 89))) for t in seconds]
    figures = growths({"settled": settled, "leak": leak}, 100.0)
    assert figures["processes"]["settled"]["growth_percent"] == 0.0
    assert figures["processes"]["leak"]["growth_percent"] == pytest.approx(10.0, abs=0.01)
    assert figures["worst_growth_percent"] == figures["processes"]["leak"]["growth_percent"]
    assert figures["memory_growth_percent"] == pytest.approx(10.0, abs=0.01)


def test_drift_compares_the_first_tenth_with_the_last() -> None:
    times = np.arange(0.0, 100.0, 0.1)
    figures = drift(times, 10.0 + times / 10, 100.0)
    assert figures["latency_first"]["p50_ms"] == pytest.approx(10.5, abs=0.02)
    assert figures["latency_last"]["p50_ms"] == pytest.approx(19.5, abs=0.02)
    assert figures["latency_drift_percent"] == pytest.approx(85.7, abs=0.2)
    assert drift(times[:0], times[:0], 100.0)["latency_drift_percent"] is None


def test_the_report_of_the_fuzzer_tells_the_first_failing_case() -> None:
    report = FuzzReport()
    report.add(3, "message plan", "refused")
    report.add(4, "message plan", "unnoticed: not finite")
    report.add(5, "request predict", "crash: ValueError()")
    report.add(6, "message plan", "used", outside=2)
    figures = report.to_json()
    assert (figures["sent"], figures["crashes"], figures["hangs"], figures["unnoticed"]) == (4, 1, 0, 1)
    assert figures["first_failing"] == "4 (message plan): unnoticed: not finite"
    assert figures["outside_limits"] == 2
    assert figures["kinds"]["message plan"] == {"sent": 3, "used": 1, "refused": 1, "unnoticed": 1}
