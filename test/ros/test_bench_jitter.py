"""The bench of the action node alone: real processes, real DDS, for a moment."""

from __future__ import annotations

import pytest

from smwm_ros.cli import bench_jitter


def test_figures_are_of_commands_that_were_played(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pins that there is something to measure: a feeder that is not heard would leave only safe actions."""
    monkeypatch.setattr(bench_jitter, "WARM_UP", 0.5)
    figures = bench_jitter.bench_jitter(50.0, 1.5)
    assert figures["commands"] > 5
    assert 0 <= figures["p50_ms"] <= figures["p99_ms"] <= figures["max_ms"]
    assert 0 < figures["cpu_percent"] < 100
    assert figures["planned"] > 0
