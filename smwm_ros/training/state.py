"""The state of an unfinished training run, as safetensors: weights, AdamW's moments, the step."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from smwm_ros.errors import ConfigError


def save_state(
    path: Path,
    modules: Mapping[str, nn.Module],
    optimiser: torch.optim.AdamW,
    run: dict[str, str],
    step: int,
) -> None:
    """
    Write the state, all or nothing.

    Args:
        path: the file.
        modules: their weights and buffers are kept, under these names.
        optimiser: its moments are kept.
        run: what identifies the run; must be the same to resume it.
        step: steps done.
    """
    tensors = {
        f"{key}.{name}": tensor
        for key, module in modules.items()
        for name, tensor in module.state_dict().items()
    }
    for number, moments in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{number}.{name}": tensor for name, tensor in moments.items()}
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    save_file(tensors, temporary, metadata=run | {"step": str(step)})
    temporary.replace(path)


def load_state(
    path: Path, modules: Mapping[str, nn.Module], optimiser: torch.optim.AdamW, run: dict[str, str]
) -> int:
    """
    Put a saved state back.

    Returns:
        The steps done.

    Raises:
        ConfigError: no state there, a damaged one, or one of another version or run; names what differs.
    """
    try:
        with safe_open(path, "pt") as file:
            found = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (OSError, SafetensorError) as error:
        raise ConfigError(
            f"{path}: no training state to resume from ({error}); train without --resume"
        ) from error
    step = int(found.pop("step", -1))
    if found.get("state_format") != run.get("state_format"):
        raise ConfigError(
            f"{path}: was saved by another version of smwm_ros (state format {found.get('state_format')}, "
            f"expected {run.get('state_format')}); resume with that version, or train anew in another folder"
        )
    if different := [key for key in run if found.get(key) != run[key]]:
        raise ConfigError(
            f"{path}: belongs to a run with another {', '.join(different)}; "
            "resume with the settings it began with, or choose another folder"
        )
    for key, module in modules.items():
        prefix = f"{key}."
        module.load_state_dict(
            {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
        )
    moments: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimiser."):
            _, number, key = name.split(".")
            moments.setdefault(int(number), {})[key] = tensor
    optimiser.load_state_dict({"state": moments, "param_groups": optimiser.state_dict()["param_groups"]})
    return step
