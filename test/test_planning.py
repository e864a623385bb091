"""Optimisers, costs, limits and receding horizon, on problems whose answer is known."""

from __future__ import annotations

from functools import partial
from typing import Literal

import numpy as np
import pytest
import torch
from checkpoints import information
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from smwm_ros.contract import Contract
from smwm_ros.errors import ConfigError, PlanningError
from smwm_ros.models.checkpoint import Checkpoint
from smwm_ros.models.config import load_model_config
from smwm_ros.models.world_model import WorldModel
from smwm_ros.planning.config import PlannerConfig
from smwm_ros.planning.costs import Objective, final, min_over_horizon, running, smoothness, soon
from smwm_ros.planning.deadline import Deadline, Pace
from smwm_ros.planning.imagined import Imagined
from smwm_ros.planning.limits import ActionLimits, Feasible
from smwm_ros.planning.mpc import MPC
from smwm_ros.planning.optimisers import (
    CEM,
    MPPI,
    Choice,
    Gradient,
    Optimiser,
    Score,
    Search,
    Solution,
    coloured_noise,
)
from smwm_ros.planning.protocol import Problem
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


def search(
    optimiser: Optimiser,
    score: Score,
    start: torch.Tensor,
    *,
    samples: int,
    seed: int = 0,
    budget: float = 0.0,
    exact: Score | None = None,
) -> Solution:
    """Search without limits, around one proposal for each problem, shape (P, T, A)."""
    return optimiser.optimise(
        Search(
            score,
            start[:, None],
            torch.ones(start.shape[-1]),
            Feasible(FREE),
            samples,
            [torch.Generator().manual_seed(0) for _ in start],
            Deadline(budget),
            exact,
        )
    )


def imagined(integrator: Checkpoint, *futures: float) -> Imagined:
    """One candidate, whose imagined distances to the goal are given."""
    path = torch.tensor(futures).reshape(1, 1, -1, 1)
    actions = torch.tensor([0.0, 1.0, 1.0]).reshape(1, 1, 3, 1).expand(-1, -1, -1, 2)
    start, goal = torch.full((1, 1), 3.0), torch.zeros(1, 1)
    return Imagined(integrator.model, 1.0, start, goal, actions, actions, path)


def test_costs_by_hand(integrator: Checkpoint) -> None:
    """Each cost of a future that is 2, 0 and 1 away from the goal is what its formula says."""
    seen = imagined(integrator, 2.0, 0.0, 1.0)
    assert final(seen).item() == 1.0
    assert running(seen).item() == pytest.approx(5 / 3)
    assert min_over_horizon(seen).item() == 0.0
    assert soon(seen).item() == pytest.approx(0.05)
    assert smoothness(seen).item() == pytest.approx(0.5)
    assert seen.path.flatten().tolist() == [3.0, 2.0, 0.0, 1.0]


@pytest.mark.parametrize("optimiser", [CEM(12, 6), MPPI(12), Gradient(12), Choice()])
def test_the_last_rounds_go_by_the_exact_costs(optimiser: Optimiser) -> None:
    """Pins that rough costs, however low, decide nothing in the end."""
    scored: list[str] = []

    def score(kind: str, best: float, sequences: torch.Tensor) -> torch.Tensor:
        scored.append(kind)
        return (sequences - best).square().sum((2, 3)) + (kind == "exact")

    rough, exact = (partial(score, kind, best) for kind, best in (("rough", 0.0), ("exact", 1.0)))
    found = search(optimiser, rough, torch.zeros(1, 2, 1), samples=64, exact=exact)
    rounds = getattr(optimiser, "iterations", 1)
    assert scored == ["rough"] * (rounds * 2 // 3) + ["exact"] * (rounds - rounds * 2 // 3)
    assert found.cost.item() == exact(found.actions[:, None]).item()


def test_cem_finds_the_least_squares_solution() -> None:
    """On a linear system with a quadratic cost CEM comes within 1 % of the closed-form optimum."""
    generator = torch.Generator().manual_seed(0)
    system = torch.randn(6, 4, generator=generator)
    target = torch.randn(6, generator=generator)

    def score(actions: torch.Tensor) -> torch.Tensor:
        return (actions[..., 0] @ system.T - target).square().sum(-1) + 0.1 * actions.square().sum((-1, -2))

    best = torch.linalg.solve(system.T @ system + 0.1 * torch.eye(4), system.T @ target)
    solution = search(CEM(30, 20), score, torch.zeros(1, 4, 1), samples=200)
    optimum = score(best[None, None, :, None]).item()
    assert solution.cost.item() == pytest.approx(optimum, rel=0.01)
    assert solution.cost.item() == pytest.approx(score(solution.actions[:, None]).item(), rel=1e-5)


OPTIMISERS = [CEM(60, 20), CEM(20, 20, 1.0, 0.3), MPPI(80, 0.05), Gradient(300, 0.1)]


def riccati(a: torch.Tensor, b: torch.Tensor, start: torch.Tensor, horizon: int) -> float:
    """The lowest cost Σ |x|² + 0.1 |u|² of x' = A x + B u, by the backward Riccati recursion."""
    weight = torch.zeros_like(a)
    for _ in range(horizon):
        ahead = torch.eye(len(a)) + weight
        gain = torch.linalg.solve(
            0.1 * torch.eye(b.shape[1], dtype=a.dtype) + b.T @ ahead @ b, b.T @ ahead @ a
        )
        closed = a - b @ gain
        weight = closed.T @ ahead @ closed + 0.1 * gain.T @ gain
    return float(start @ weight @ start)


@pytest.mark.parametrize("optimiser", OPTIMISERS, ids=["cem", "icem", "mppi", "gradient"])
def test_every_optimiser_finds_the_lqr_solution(optimiser: Optimiser) -> None:
    """On linear dynamics with a quadratic cost each comes within 2 % of what the Riccati equation gives."""
    a, b = torch.tensor([[1.0, 0.1], [0.0, 1.0]]), torch.tensor([[0.0], [0.5]])
    start, horizon = torch.tensor([1.0, -0.5]), 6

    def score(actions: torch.Tensor) -> torch.Tensor:
        state, cost = start.expand(*actions.shape[:2], 2), torch.zeros(actions.shape[:2])
        for action in actions.unbind(2):
            state = state @ a.T + action @ b.T
            cost = cost + state.square().sum(-1) + 0.1 * action.square().sum(-1)
        return cost

    solution = search(optimiser, score, torch.zeros(1, horizon, 1), samples=128)
    assert solution.cost.item() == pytest.approx(riccati(a, b, start, horizon), rel=0.02)


def test_a_search_stops_in_time_and_has_an_answer_without_any() -> None:
    """With no time for a round the first proposal, within the limits, is the answer."""
    calls = 0

    def score(actions: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return actions.square().sum((-1, -2))

    start = torch.full((1, 2, 1), 99.0)
    solution = search(CEM(10, 8), score, start, samples=16, budget=1e-9)
    assert (calls, solution.rounds, solution.sequences) == (0, 0, 0)
    assert solution.actions.flatten().tolist() == [9.0, 9.0]
    assert solution.cost.isinf().all()


def test_deadline_stops_before_a_round_as_long_as_the_longest_would_overrun() -> None:
    times = iter([0.0, 0.0, 3.0, 4.0, 7.5])
    deadline = Deadline(10.0, clock=lambda: next(times))
    assert [deadline.another() for _ in range(4)] == [True, True, True, False]


def test_pace_follows_a_slower_machine_at_once_and_a_faster_one_slowly() -> None:
    pace = Pace(budget=0.02, rounds=4, fewest=16, most=256)
    assert pace.samples() == 16
    pace.learn(4 * 64 * 25e-6, 4, 64)  # 25 us a sample: 0.7 * 20 ms / (4 * 25 us)
    assert pace.samples() in {139, 140}
    pace.learn(4 * 64 * 50e-6, 4, 64)
    assert pace.samples() in {69, 70}
    pace.learn(4 * 64 * 25e-6, 4, 64)
    assert 70 <= pace.samples() < 80
    assert Pace(0.0, 4, 16, 256).samples() == 256


def test_a_slow_search_is_not_the_last() -> None:
    """After one that took so long that no round seems possible any more, rounds are tried again soon."""
    pace = Pace(budget=0.02, rounds=4, fewest=16, most=256)
    pace.learn(0.8, 4, 16)
    assert pace.expected() == pytest.approx(0.2)
    searches = 0
    while not Deadline(0.02, clock=lambda: 0.0, expected=pace.expected()).another():
        pace.learn(0.0, 0, 16)
        searches += 1
    assert 1 < searches < 10


def test_settled_actions_stay_and_the_change_counts_from_the_last_of_them() -> None:
    limits = ActionLimits(torch.tensor([-1.0]), torch.tensor([1.0]), torch.tensor([0.25]))
    settled = torch.tensor([[0.1, 0.5, torch.nan, torch.nan], [torch.nan] * 4])[..., None]
    previous = torch.tensor([[torch.nan], [-0.5]])
    found = Feasible(limits, previous, settled)(torch.full((2, 3, 4, 1), 9.0))
    torch.testing.assert_close(found[0, 0, :, 0], torch.tensor([0.1, 0.5, 0.75, 1.0]))
    torch.testing.assert_close(found[1, 2, :, 0], torch.tensor([-0.25, 0.0, 0.25, 0.5]))


def test_extras_weigh_as_much_as_the_goals_cost_varies(integrator: Checkpoint) -> None:
    """Whatever the units, an extra of weight 1 has the standard deviation of the goal's cost."""
    generator = torch.Generator().manual_seed(0)
    actions = torch.randn(2, 50, 10, 2, generator=generator)
    seen = Imagined.of(integrator.model, 0.01, torch.zeros(2, 64), torch.ones(2, 64), actions)
    plain = Objective(final)(seen)
    both = Objective(final, {"smoothness": 1.0, "action_consistency": 0.0})(seen)
    torch.testing.assert_close((both - plain).std(1), plain.std(1), rtol=1e-4, atol=0)
    forbidden = Objective(final, {}, lambda i: torch.where(i.actions[..., 0, 0] > 0, torch.inf, 0.0))(seen)
    assert torch.equal(forbidden.isinf(), actions[:, :, 0, 0] > 0)
    with pytest.raises(ConfigError, match="shape"):
        Objective(final, {}, lambda i: i.start)(seen)


def test_cem_solves_many_problems_at_once() -> None:
    """Problems in one batch do not leak into one another: each finds its own optimum."""
    targets = torch.linspace(-3, 3, 7)

    def score(actions: torch.Tensor) -> torch.Tensor:
        return (actions.mean((-1, -2)) - targets[:, None]).square()

    solution = search(CEM(20, 8), score, torch.zeros(7, 3, 1), samples=64)
    torch.testing.assert_close(solution.actions.mean((1, 2)), targets, atol=0.05, rtol=0)


@pytest.mark.parametrize("optimiser", [CEM(10, 8), MPPI(20), Gradient(50)], ids=lambda o: type(o).__name__)
def test_nan_scores_are_survived(optimiser: Optimiser) -> None:
    """A sequence whose score is NaN is never the answer while another has a number."""

    def score(actions: torch.Tensor) -> torch.Tensor:
        value = actions[..., 0, 0]
        return torch.where(value < 0, torch.nan, (value - 1).square())

    solution = search(optimiser, score, torch.zeros(1, 1, 1), samples=64)
    assert solution.actions.item() == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.0, 3.0])
@pytest.mark.parametrize("ticks", [1, 2, 24, 25])
def test_coloured_noise_has_unit_variance(exponent: float, ticks: int) -> None:
    """Whatever the colour and length, the planner's ``std`` means what it says."""
    noise = coloured_noise((1, 20_000, ticks), exponent, [torch.Generator().manual_seed(0)])
    assert noise.std().item() == pytest.approx(1.0, abs=0.03)


def test_coloured_noise_is_coloured() -> None:
    """Neighbouring ticks of Brownian noise agree far more than those of white noise."""
    generator = torch.Generator().manual_seed(0)
    white, brown = (coloured_noise((1, 5000, 25), exponent, [generator])[0] for exponent in (0.0, 2.0))
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
    mpc._memory(0).plan = torch.arange(20.0).reshape(10, 2) / 10
    plan = mpc.plan(latent(0, 0), latent(0, 0), elapsed=3)
    expected = np.concatenate([np.arange(6.0, 20).reshape(7, 2), np.tile([18.0, 19.0], (3, 1))]) / 10
    np.testing.assert_allclose(plan.actions, expected, atol=1e-4)


def test_a_late_plan_goes_on_with_the_last_one_until_it_is_there(integrator: Checkpoint) -> None:
    """Pins latency compensation: what will have been played stays, and what comes makes up for it."""
    mpc = MPC(integrator, PlannerConfig(horizon=2, samples=128, iterations=8, cost="final"))
    first = mpc.plan(latent(0, 0), latent(3, 0))
    second = mpc.plan(latent(0, 0), latent(-3, 0), elapsed=2, delay=3)
    np.testing.assert_allclose(second.actions[:3], first.actions[2:5], atol=1e-6)
    np.testing.assert_allclose(second.actions.sum(0), [-3, 0], atol=0.2)
    with pytest.raises(ConfigError, match="raise horizon"):
        mpc.plan(latent(0, 0), latent(1, 0), delay=10)
    mpc._safe = torch.tensor([0.25, -0.5])
    mpc.reset()
    first = mpc.plan(latent(0, 0), latent(3, 0), delay=2)
    np.testing.assert_allclose(first.actions[:2], [[0.25, -0.5]] * 2, err_msg="the safe action is in force")


@pytest.mark.parametrize("optimiser", ["cem", "icem", "mppi", "gradient"])
def test_robots_in_one_batch_are_planned_for_as_if_alone(
    optimiser: Literal["cem", "icem", "mppi", "gradient"], integrator: Checkpoint
) -> None:
    """
    Pins that a robot's plans are its own, whoever is in the batch, and however often each was planned for.

    One has a plan, another none, a third has a new goal; delays and times since the last plan differ.
    """
    config = PlannerConfig(
        optimiser=optimiser, horizon=2, samples=32, iterations=3, smoothness=0.1, cost="soon"
    )
    fleet = MPC(integrator, config, seed=5)
    alone = {robot: MPC(integrator, config, seed=5) for robot in range(4)}
    for due in ([(0, 5, 0), (2, 5, 0)], [(2, 3, 1)], [(1, 0, 2), (2, 4, 3), (0, 1, 0), (3, 0, 0)]):
        problems = [
            Problem(robot, latent(robot, -1), latent(3, robot), passed, late) for robot, passed, late in due
        ]
        together = fleet.plan_fleet(problems)
        for number, problem in enumerate(problems):
            own = alone[problem.robot].plan(problem.latent, problem.goal, problem.elapsed, problem.delay)
            np.testing.assert_allclose(together.of(number).actions, own.actions, atol=1e-5)
            assert together.cost[number] == pytest.approx(float(own.cost), rel=1e-4)
            assert together.evaluations == own.evaluations
        fleet.forget([2])
        alone[2].reset()


def test_settings_change_between_plans_and_the_last_plan_stays(integrator: Checkpoint) -> None:
    """Pins what the node's dynamic parameters do: all of them at once, the warm start none the worse."""
    idle = PlannerConfig(horizon=2, samples=2, elites=2, iterations=1, std=2e-6)
    mpc = MPC(integrator, idle)
    mpc._memory(0).plan = torch.arange(20.0).reshape(10, 2) / 10
    mpc.change(idle.model_copy(update={"cost": "final", "samples": 8, "iterations": 2}))
    plan = mpc.plan(latent(0, 0), latent(0, 0), elapsed=0)
    np.testing.assert_allclose(plan.actions, np.arange(20.0).reshape(10, 2) / 10, atol=1e-4)
    assert plan.iterations == 2
    with pytest.raises(ConfigError, match="replan 11"):
        mpc.change(idle.model_copy(update={"replan": 11}))
    assert mpc.config.samples == 8


def test_a_plan_without_time_is_the_rest_of_the_last_one(integrator: Checkpoint) -> None:
    mpc = MPC(integrator, PlannerConfig(horizon=2, time_budget=1e-6))
    mpc._memory(0).plan = torch.arange(20.0).reshape(10, 2) / 10
    plan = mpc.plan(latent(0, 0), latent(1, 0), elapsed=4)
    np.testing.assert_allclose(plan.actions[:6], np.arange(8, 20).reshape(6, 2) / 10, atol=1e-6)
    assert plan.iterations == plan.evaluations == 0
    assert np.isnan(plan.cost)
    assert plan.slack < 0


def test_a_plan_that_nothing_allows_is_an_error(integrator: Checkpoint) -> None:
    mpc = MPC(integrator, PlannerConfig())
    mpc._constraint = lambda imagined: torch.full_like(imagined.actions[..., 0, 0], torch.inf)
    with pytest.raises(PlanningError, match="forbids all"):
        mpc.plan(latent(0, 0), latent(1, 0))
    with pytest.raises(ConfigError, match="'nowhere' is unknown"):
        MPC(integrator, PlannerConfig(constraint="nowhere"))


@pytest.mark.parametrize("optimiser", ["cem", "icem", "mppi", "gradient"])
def test_each_optimiser_plans(
    optimiser: Literal["cem", "icem", "mppi", "gradient"], integrator: Checkpoint
) -> None:
    config = PlannerConfig(optimiser=optimiser, horizon=2, samples=64, iterations=30, cost="final", step=0.1)
    plan = MPC(integrator, config).plan(latent(0, 0), latent(2, -1))
    np.testing.assert_allclose(plan.actions.sum(0), [2, -1], atol=0.2)


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
