"""Where the package's own files (configuration, checkpoints) lie, in a checkout or installed."""

from __future__ import annotations

import sys
from pathlib import Path

from smwm_ros.contract import Contract, load_contract
from smwm_ros.errors import CheckpointError, ConfigError, ContractError

PACKAGE = "smwm_ros"


def share_directory() -> Path:
    """
    Find the directory that holds ``config/``: the checkout when running from one (as an editable
    install does), else ``<prefix>/share/smwm_ros``.

    Raises:
        ConfigError: the installation is incomplete.
    """
    checkout = Path(__file__).resolve().parents[1]
    if (checkout / "package.xml").is_file():
        return checkout
    # The prefix above lib/python3.x/site-packages (pip, colcon) or local/lib/... (Debian's colcon).
    for prefix in (*Path(__file__).resolve().parents, Path(sys.prefix)):
        if (prefix / "share" / PACKAGE / "config").is_dir():
            return prefix / "share" / PACKAGE
    raise ConfigError(
        f"no share/{PACKAGE}/config above {checkout} or in {sys.prefix}: the installation is incomplete. "
        "Install the package again, with pip or colcon."
    )


def contract_path(name_or_path: str | Path) -> Path:
    """
    Find a robot contract by name (``reacher``: one of ``config/robots``) or by path.

    Anything with a directory separator or a file suffix is a path.

    Raises:
        ContractError: no such contract.
    """
    path = Path(name_or_path)
    if path.suffix or len(path.parts) > 1:
        return path.expanduser().absolute()
    robots = share_directory() / "config" / "robots"
    file = robots / f"{path}.yaml"
    if not path.parts or not file.is_file():
        known = ", ".join(sorted(found.stem for found in robots.glob("*.yaml")))
        raise ContractError(
            f"no robot contract named '{name_or_path}'; there are: {known}. Give one of these names, "
            "or the path of a contract file."
        )
    return file


def find_contract(name_or_path: str | Path) -> Contract:
    """
    Load a robot contract by name or by path, as :func:`contract_path` finds it.

    Raises:
        ContractError: no such contract, or not a valid one.
    """
    return load_contract(contract_path(name_or_path))


def checkpoint_path(robot: str, model: str = "smwm") -> Path:
    """
    Find a checkpoint shipped for a robot.

    Args:
        robot: the name in its contract.
        model: the preset that it was trained with.

    Raises:
        CheckpointError: there is none; says which ones there are.
    """
    folder = share_directory() / "config" / "checkpoints"
    file = folder / robot / f"{model}.safetensors"
    if not model or not file.is_file():
        shipped = sorted(f"{found.parent.name}: {found.stem}" for found in folder.glob("*/*.safetensors"))
        own = ", ".join(shipped_models(robot))
        there = f"for it there are: {own}" if own else f"there are {'; '.join(shipped) or 'none'}"
        raise CheckpointError(
            f"no model '{model}' is shipped for the robot '{robot}'; {there}. "
            "Train one with 'smwm train', and give its path with --checkpoint."
        )
    return file


def shipped_models(robot: str) -> list[str]:
    """Return the presets of which a checkpoint is shipped for a robot, by the name in its contract."""
    return sorted(
        file.stem for file in (share_directory() / "config" / "checkpoints" / robot).glob("*.safetensors")
    )
