"""Optimisers, costs, limits and receding horizon, on problems whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from checkpoints import information
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from smwm_ros.contract import Contract
from smwm_ros.errors import ConfigError
from smwm_ros.models.checkpoint import Checkpoint
from smwm_ros.models.config import load_model_config
from smwm_ros.models.world_model import WorldModel
from smwm_ros.planning.costs import final, min_over_horizon, running, soon
from smwm_ros.planning.limits import ActionLimits
from smwm_ros.planning.mpc import MPC, PlannerConfig
from smwm_ros.planning.optimisers import CEM, coloured_noise
from smwm_ros.resources import find_contract

FREE = ActionLimits(torch.tensor([-9.0]), torch.tensor([9.0]), torch.tensor([99.0]))


class Integrator(torch.nn.Module):
    """z' = z + sum of the block: the best plan towards any goal is known."""

    def forward(self, latent: torch.Tensor, block: torch.Tensor) -> torch.Tensor:
        moved = block.unflatten(-1, (-1, 2)).sum(-2)
        return torch.cat([latent[..., :2] + moved, latent[..., 2:]], -1)


@pytest.fixture(scope="module")
def reacher() -> Contract:
    return find_contract("reacher")


@pytest.fixture(scope="module")
def integrator(reacher: Contract) -> Checkpoint:
    """A checkpoint whose dynamics are exactly linear, with a latent of (x, y, 0, …)."""
    config = load_model_config("smwm")
    model = WorldModel(config, reacher)
    model.dynamics = Integrator()
    return Checkpoint(information(config, reacher), model, "toy")


def latent(x: float, y: float) -> np.ndarray:
    return np.array([x, y] + [0.0] * 62, np.float32)


def test_costs_by_hand() -> None:
    """Each cost of a future that is 2, 0 and 1 away from the goal is what its formula says."""
    futures = torch.tensor([2.0, 0.0, 1.0]).reshape(1, 1, 3, 1)
    goal = torch.zeros(1, 1)
    assert final(futures, goal).item() == 1.0
    assert running(futures, goal).item() == pytest.approx(5 / 3)
    assert min_over_horizon(futures, goal).item() == 0.0
    assert soon(futures, goal).item() == pytest.approx(0.05)


def test_cem_finds_the_least_squares_solution() -> None:
    """On a linear system with a quadratic cost CEM comes within 1 % of the closed-form optimum."""
    generator = torch.Generator().manual_seed(0)
    system = torch.randn(6, 4, generator=generator)
    target = torch.randn(6, generator=generator)

    def score(actions: torch.Tensor) -> torch.Tensor:
        return (actions[..., 0] @ system.T - target).square().sum(-1) + 0.1 * actions.square().sum((-1, -2))

    best = torch.linalg.solve(system.T @ system + 0.1 * torch.eye(4), system.T @ target)
    solution = CEM(200, 30, 20).optimise(score, torch.zeros(1, 4, 1), torch.ones(1), FREE, None, generator)
    optimum = score(best[None, None, :, None]).item()
    assert solution.cost.item() == pytest.approx(optimum, rel=0.01)
    assert solution.cost.item() == pytest.approx(score(solution.actions[:, None]).item(), rel=1e-5)


def test_cem_solves_many_problems_at_once() -> None:
    """Problems in one batch do not leak into one another: each finds its own optimum."""
    targets = torch.linspace(-3, 3, 7)

    def score(actions: torch.Tensor) -> torch.Tensor:
        return (actions.mean((-1, -2)) - targets[:, None]).square()

    solution = CEM(64, 20, 8).optimise(
        score, torch.zeros(7, 3, 1), torch.ones(1), FREE, None, torch.Generator().manual_seed(0)
    )
    torch.testing.assert_close(solution.actions.mean((1, 2)), targets, atol=0.05, rtol=0)


def test_cem_survives_nan_scores() -> None:
    """A sequence whose score is NaN is never the answer while another has a number."""

    def score(actions: torch.Tensor) -> torch.Tensor:
        value = actions[..., 0, 0]
        return torch.where(value < 0, torch.nan, (value - 1).square())

    solution = CEM(64, 10, 8).optimise(
        score, torch.zeros(1, 1, 1), torch.ones(1), FREE, None, torch.Generator().manual_seed(0)
    )
    assert solution.actions.item() == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.0, 3.0])
@pytest.mark.parametrize("ticks", [1, 2, 24, 25])
def test_coloured_noise_has_unit_variance(exponent: float, ticks: int) -> None:
    """Whatever the colour and length, the planner's ``std`` means what it says."""
    noise = coloured_noise((20_000, ticks), exponent, torch.Generator().manual_seed(0))
    assert noise.std().item() == pytest.approx(1.0, abs=0.03)


def test_coloured_noise_is_coloured() -> None:
    """Neighbouring ticks of Brownian noise agree far more than those of white noise."""
    generator = torch.Generator().manual_seed(0)
    white, brown = (coloured_noise((5000, 25), exponent, generator) for exponent in (0.0, 2.0))
    assert abs((white[:, :-1] * white[:, 1:]).mean().item()) < 0.05
    assert (brown[:, :-1] * brown[:, 1:]).mean().item() > 0.7


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    low=st.floats(-5, -0.1),
    high=st.floats(0.1, 5),
    change=st.floats(0.01, 20),
    previous=st.one_of(st.none(), st.floats(0, 1)),
)
def test_limits_hold(seed: int, low: float, high: float, change: float, previous: float | None) -> None:
    """No sequence leaves the values or changes too fast, from the action in force onwards."""
    generator = torch.Generator().manual_seed(seed)
    limits = ActionLimits(*(torch.tensor([v, v]) for v in (low, high, change)))
    before = None if previous is None else torch.full((3, 2), low + previous * (high - low))
    actions = limits.apply(10 * torch.randn(3, 4, 6, 2, generator=generator), before)
    assert (actions >= low - 1e-5).all()
    assert (actions <= high + 1e-5).all()
    whole = (
        actions if before is None else torch.cat([before[:, None, None].expand(-1, 4, -1, -1), actions], 2)
    )
    assert (whole.diff(dim=2).abs() <= change + 1e-5).all()


def test_mpc_reaches_the_goal(integrator: Checkpoint, reacher: Contract) -> None:
    """Executing the plans in the world they were made for ends at the goal, warm starts and all."""
    mpc = MPC(
        integrator, PlannerConfig(horizon=3, samples=128, iterations=8, replan=5, cost="running"), seed=1
    )
    position, goal = np.zeros(2), np.array([6.0, -4.0])
    for _ in range(6):
        plan = mpc.plan(latent(*position), latent(*goal))
        position = position + plan.actions[:5].sum(0)
    np.testing.assert_allclose(position, goal, atol=0.3)


def test_mpc_is_repeatable_and_within_limits(integrator: Checkpoint, reacher: Contract) -> None:
    """A seed gives the same plan twice; plans respect the contract."""
    config = PlannerConfig(horizon=2, samples=64, iterations=4, elites=8)
    first, second = (MPC(integrator, config, seed=3).plan(latent(0, 0), latent(9, -9)) for _ in range(2))
    np.testing.assert_array_equal(first.actions, second.actions)
    assert first.actions.shape == (2 * reacher.block, reacher.action.size)
    assert (first.actions >= reacher.action.low - 1e-6).all()
    assert (first.actions <= reacher.action.high + 1e-6).all()
    change = np.abs(np.diff(first.actions, axis=0))
    assert (change <= reacher.action.max_change * reacher.period + 1e-5).all()
    # 64 drawn and the mean in each of 4 iterations, and 2 kept elites in 3 of them; 2 steps each
    assert first.evaluations == 2 * (4 * 65 + 3 * 2)


def test_warm_start_shifts_by_the_elapsed_ticks(integrator: Checkpoint) -> None:
    """With no search to speak of, the next plan is the rest of the last one."""
    mpc = MPC(
        integrator, PlannerConfig(horizon=2, samples=2, elites=2, iterations=1, std=1e-9 + 1e-6), seed=0
    )
    mpc._last = torch.arange(20.0).reshape(1, 10, 2) / 10
    plan = mpc.plan(latent(0, 0), latent(0, 0), elapsed=3)
    expected = np.concatenate([np.arange(6.0, 20).reshape(7, 2), np.tile([18.0, 19.0], (3, 1))]) / 10
    np.testing.assert_allclose(plan.actions, expected, atol=1e-4)


def test_mpc_refuses_what_cannot_be_planned(integrator: Checkpoint) -> None:
    """NaN, another latent size and a replan beyond the horizon are errors, not plans."""
    mpc = MPC(integrator, PlannerConfig())
    with pytest.raises(ConfigError, match="not finite"):
        mpc.plan(latent(np.nan, 0), latent(0, 0))
    with pytest.raises(ConfigError, match=r"expected .*64"):
        mpc.plan(latent(0, 0), np.zeros(3, np.float32))
    with pytest.raises(ConfigError, match="replan 11"):
        MPC(integrator, PlannerConfig(horizon=2, replan=11))
    with pytest.raises(ValidationError, match="elites"):
        PlannerConfig(samples=4, elites=8)
