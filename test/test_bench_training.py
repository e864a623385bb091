"""`smwm bench training`: what it counts, with and without a peer. How fast is no business of a test."""

from __future__ import annotations

from pathlib import Path

import pytest

from smwm_ros.cli.bench_training import bench_models, bench_training
from smwm_ros.errors import ConfigError

QUICK = {"repeats": 2, "seconds": 0.01, "batch": 8}


def checkout(folder: Path) -> Path:
    """Return what looks like the official code."""
    (folder / "planning").mkdir()
    (folder / "planning" / "train.py").touch()
    return folder


def test_figures_without_a_peer() -> None:
    """Batches of eight windows of three model steps are 32 images; what is missing says what to do."""
    figures = bench_models(["smwm"], **QUICK)
    least, most = figures["images_per_s_spread"]
    assert 0 < least <= figures["images_per_s"] <= most
    assert figures["batch_images"] == 32
    assert figures["peer_images_per_s"] is figures["speedup"] is None
    assert "--peer-python" in figures["peer"]


def test_a_peer_takes_turns(tmp_path: Path) -> None:
    """Its first round is not counted, and it is told the same sizes."""
    peer = tmp_path / "python"
    peer.write_text(
        f'#!/bin/sh\necho "$5" > {tmp_path}/told\necho \'"official 9.9"\'\n'
        'for n in 1 2 3; do read line; echo "$n"; done\n'
    )
    peer.chmod(0o755)
    figures = bench_training("smwm", **QUICK, peer_python=peer, peer_code=checkout(tmp_path))
    assert figures["peer"] == "official 9.9"
    assert figures["peer_images_per_s_spread"] == [2, 3]
    assert figures["speedup"] == figures["images_per_s"] / 2.5
    told = (tmp_path / "told").read_text()
    assert '"window": 3' in told
    assert '"batch": 8' in told
    assert '"bfloat16": false' in told


def test_a_peer_that_does_not_work(tmp_path: Path) -> None:
    """A wrong checkout, a wrong interpreter and a preset without a peer are the user's to mend."""
    with pytest.raises(ConfigError, match=r"planning/train\.py"):
        bench_training("smwm", **QUICK, peer_python=Path("/bin/false"), peer_code=tmp_path)
    with pytest.raises(ConfigError, match="stable-pretraining"):
        bench_training("smwm", **QUICK, peer_python=Path("/bin/false"), peer_code=checkout(tmp_path))
    with pytest.raises(ConfigError, match=r"lewm.*vit_tiny_224"):
        bench_models(["lewm"], **QUICK)
