"""Where the package's own files lie: robot contracts, presets and shipped checkpoints."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from smwm_ros.errors import CheckpointError, ConfigError, ContractError


def config_directory() -> Path:
    """
    Find the package's ``config`` directory: the checkout's, else the installed one.

    Raises:
        ConfigError: neither is there.
    """
    checkout = Path(__file__).resolve().parents[1]
    if (checkout / "package.xml").is_file():
        return checkout / "config"
    prefixes = [*os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep), sys.prefix]
    for prefix in filter(None, prefixes):
        installed = Path(prefix) / "share" / "smwm_ros" / "config"
        if installed.is_dir():
            return installed
    raise ConfigError(
        f"the package's config directory is neither beside {checkout} nor under share/smwm_ros of "
        f"{', '.join(filter(None, prefixes))}. Source the workspace, or install the package again."
    )


def contract_path(name: str | Path) -> Path:
    """
    Find a robot contract by the name of a shipped robot, or by its path.

    Raises:
        ContractError: neither a file nor a shipped robot; names those there are.
    """
    path = Path(name).expanduser()
    if path.suffix in (".yaml", ".yml") or path.is_file():
        if path.is_file():
            return path.resolve()
        raise ContractError(f"{path}: no such file. Give a robot contract: see config/robots/reacher.yaml.")
    robots = config_directory() / "robots"
    shipped = robots / f"{name}.yaml"
    if shipped.is_file():
        return shipped
    known = ", ".join(sorted(p.stem for p in robots.glob("*.yaml"))) or "none"
    raise ContractError(
        f"no robot is called {str(name)!r} (shipped: {known}). Give one of these, or a YAML file."
    )


def checkpoint_path(robot: str) -> Path:
    """
    Find the checkpoint shipped for a robot.

    Args:
        robot: the name of its contract.

    Raises:
        CheckpointError: none is shipped for it.
    """
    path = config_directory() / "checkpoints" / robot / "smwm.safetensors"
    if path.is_file():
        return path
    raise CheckpointError(
        f"{path}: no checkpoint is shipped for the robot {robot!r}. Give one with --checkpoint, "
        "or train one: `smwm train`."
    )
