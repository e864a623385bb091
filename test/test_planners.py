"""A robot's planner settings: one place for them, whose every wrong value is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from checkpoints import information

from smwm_ros.contract import Contract, load_contract
from smwm_ros.errors import ConfigError, PlanningError
from smwm_ros.models.checkpoint import Checkpoint
from smwm_ros.models.config import load_model_config
from smwm_ros.models.world_model import WorldModel
from smwm_ros.planning.config import PlannerConfig
from smwm_ros.planning.imagined import Imagined
from smwm_ros.planning.mpc import MPC
from smwm_ros.planning.planners import make_planner, planner_config
from smwm_ros.planning.protocol import Planner

ROBOTS = sorted(Path(__file__).parents[1].glob("config/robots/*.yaml"))
REACHER = load_contract("config/robots/reacher.yaml")


def robot(**section: Any) -> Contract:
    return REACHER.model_copy(update={"planner": section})


def test_overrides_win_over_the_contract_which_wins_over_the_defaults() -> None:
    assert planner_config(robot()) == PlannerConfig()
    config = planner_config(robot(horizon=8, samples=256, std=1), {"samples": 32})
    assert config == PlannerConfig(horizon=8, samples=32, std=1.0)


@pytest.mark.parametrize("path", ROBOTS, ids=lambda path: path.stem)
def test_settings_of_the_shipped_robots_are_possible(path: Path) -> None:
    contract = load_contract(path)
    config = planner_config(contract)
    assert config.replan <= config.horizon * contract.block
    assert contract.planner == (yaml.safe_load(path.read_text()).get("planner") or {})


@pytest.mark.parametrize(
    ("section", "overrides", "said"),
    [
        ({"horizn": 8}, {}, "the contract of 'reacher', planner: horizn: unknown key"),
        ({"samples": 1}, {}, "the contract of 'reacher', planner: samples: Input should be greater"),
        ({"cost": "near"}, {}, "the contract of 'reacher', planner: cost: Input should be 'final'"),
        ({"samples": 8, "elites": 9}, {}, "the contract of 'reacher', planner: elites 9 must not exceed"),
        ({}, {"iterations": 0}, "--set: iterations: Input should be greater"),
        ({"samples": 64}, {"elites": 65}, "--set: elites 65 must not exceed samples 64"),
        ({}, {"time_budget": -0.02}, "--set: time_budget: Input should be greater"),
        ({}, {"time_budget": 0.02, "compiled": True}, "--set: compiled needs as many samples"),
    ],
)
def test_wrong_settings_are_told_with_their_source(
    section: dict[str, Any], overrides: dict[str, Any], said: str
) -> None:
    """Pins that one sees whose setting it is: the robot's, or the one just typed."""
    with pytest.raises(ConfigError) as refusal:
        planner_config(robot(**section), overrides, "--set")
    assert str(refusal.value).startswith(said)


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    config = load_model_config("smwm")
    return Checkpoint(information(config, REACHER), WorldModel(config, REACHER), "none")


def test_a_constraint_that_raises_is_an_error_of_planning(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pins that a user's plugin cannot end in a traceback that names nothing of it."""

    def failing(imagined: Imagined) -> Any:
        raise ZeroDivisionError("a plugin's")

    monkeypatch.setattr("smwm_ros.planning.mpc.find_constraint", lambda name: failing)
    planner = make_planner(checkpoint, PlannerConfig(constraint="mine"))
    nothing = np.zeros(checkpoint.latent_size, np.float32)
    with pytest.raises(PlanningError, match="the constraint failed: ZeroDivisionError"):
        planner.plan(nothing, nothing)


def test_flat_is_the_search(checkpoint: Checkpoint) -> None:
    planner = make_planner(checkpoint, PlannerConfig())
    assert isinstance(planner, MPC)
    assert isinstance(planner, Planner)


@pytest.mark.parametrize("name", PlannerConfig.model_fields)
def test_every_setting_is_described_with_its_default(name: str) -> None:
    """A setting added, or a default changed, and not in docs/planning.md."""
    text = (Path(__file__).parents[1] / "docs" / "planning.md").read_text(encoding="utf-8")
    row = next(line for line in text.splitlines() if line.startswith(f"| `{name}` |"))
    assert row.split("|")[2].strip().strip("`") == str(PlannerConfig.model_fields[name].default)
