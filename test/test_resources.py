"""The files that are shipped: which one is meant, and what there is instead."""

from __future__ import annotations

from pathlib import Path

import pytest

from smwm_ros import resources
from smwm_ros.errors import CheckpointError


def test_the_shipped_model_is_found_by_robot_and_preset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A robot has several; without a name it is the default preset's."""
    monkeypatch.setattr(resources, "share_directory", lambda: tmp_path)
    folder = tmp_path / "config" / "checkpoints"
    for name in ("arm/smwm", "arm/lewm", "base/smwm"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.safetensors").touch()
    assert resources.checkpoint_path("arm") == folder / "arm" / "smwm.safetensors"
    assert resources.checkpoint_path("arm", "lewm") == folder / "arm" / "lewm.safetensors"
    with pytest.raises(CheckpointError, match=r"'lewm'.*'base'; for it there are: smwm\. .*--checkpoint"):
        resources.checkpoint_path("base", "lewm")
    with pytest.raises(CheckpointError, match="'car'; there are arm: lewm; arm: smwm; base: smwm"):
        resources.checkpoint_path("car")
