"""What the tests put into checkpoints of untrained models."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors.numpy import save_file

from smwm_ros.contract import Contract
from smwm_ros.models.checkpoint import Calibration, CheckpointInfo
from smwm_ros.models.config import ModelConfig


def information(
    config: ModelConfig, contract: Contract, step_distance: float = 1.0, step_error: float = 1.0
) -> CheckpointInfo:
    """Describe a model that was trained on nothing."""
    return CheckpointInfo(
        preset="smwm",
        config=config,
        contract=contract,
        calibration=Calibration(step_distance=step_distance, step_error=step_error),
        data_fingerprint="",
        seed=0,
        code_version="",
        figures={},
    )


def write_header(path: Path) -> str:
    """Write a file that says which model it holds, but holds none; return its path."""
    said = {"preset": "smwm", "contract": {"name": "arm"}}
    save_file({}, path, metadata={"smwm": json.dumps(said)})
    return str(path)
