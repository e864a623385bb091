"""`smwm bench windows`: what it counts, with and without a peer. How fast is no business of a test."""

from __future__ import annotations

from pathlib import Path

import pytest

from smwm_ros.cli.bench_windows import bench_windows
from smwm_ros.errors import ConfigError


def test_figures_without_a_peer() -> None:
    figures = bench_windows(rows=1000, frameskip=5, repeats=2, seconds=0.01, peer_python=None)
    least, most = figures["windows_per_s_spread"]
    assert 0 < least <= figures["windows_per_s"] <= most
    assert figures["peer_windows_per_s"] is None
    assert "--peer-python" in figures["peer"]
    # Four images of 64x64 and the three blocks of five actions between them.
    assert figures["window_bytes"] == 4 * 64 * 64 * 3 + 3 * 5 * 2 * 4
    assert figures["store_bytes"] > 1000 * 64 * 64 * 3


def test_a_peer_takes_turns(tmp_path: Path) -> None:
    """Its first round is not counted; both of its ways of reading are told apart."""
    peer = tmp_path / "python"
    peer.write_text(
        '#!/bin/sh\necho \'"stable-worldmodel 9.9"\'\nfor n in 1 2 3; do read line; echo "[$n, 7]"; done\n'
    )
    peer.chmod(0o755)
    figures = bench_windows(rows=1000, frameskip=1, repeats=2, seconds=0.01, peer_python=peer)
    assert figures["peer"] == "stable-worldmodel 9.9"
    assert figures["peer_windows_per_s_spread"] == [2, 3]
    assert figures["peer_in_memory_windows_per_s"] == 7


@pytest.mark.parametrize(
    ("peer", "reason"), [("/bin/false", "env,format"), ("/bin/none", "cannot be started")]
)
def test_a_peer_that_does_not_work(peer: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        bench_windows(rows=1000, frameskip=5, repeats=1, seconds=0.01, peer_python=Path(peer))
