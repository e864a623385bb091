"""Macro-actions and the hierarchical planner, in worlds whose ways are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from checkpoints import information
from hypothesis import given, settings
from hypothesis import strategies as st

from smwm_ros.cli.bench_hierarchy import WITHIN, matched
from smwm_ros.contract import Contract
from smwm_ros.errors import CheckpointError, ConfigError
from smwm_ros.models.checkpoint import Checkpoint
from smwm_ros.models.config import load_model_config
from smwm_ros.models.macro import SURPLUS, MacroActions
from smwm_ros.models.world_model import WorldModel
from smwm_ros.planning.config import PlannerConfig
from smwm_ros.planning.hierarchy import HierarchicalPlanner, Support
from smwm_ros.planning.planners import make_planner
from smwm_ros.planning.protocol import Problem
from smwm_ros.resources import find_contract
from smwm_ros.training.macro import MacroStage
from smwm_ros.training.stages import Recorded, StageConfig, fit

LONGEST = 4
DOOR = (0.0, 24.0)


def through_the_wall(before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    """Stop a straight way at x = 0, unless it passes through the door."""
    x, y = before[..., 0], before[..., 1]
    way = after - before
    share = -x / torch.where(way[..., 0] == 0, 1.0, way[..., 0])
    crossing = y + share * way[..., 1]
    crosses = (share > 0) & (share < 1)
    blocked = crosses & ((crossing < DOOR[0]) | (crossing > DOOR[1]))
    return torch.where(blocked[..., None], before + (share[..., None] - 1e-3) * way, after)


class Moves(torch.nn.Module):
    """z' = z + what the block, or the macro-action, adds up to; with or without a wall."""

    def __init__(self, *, wall: bool, macro: bool) -> None:
        super().__init__()
        self._wall, self._macro = wall, macro

    def forward(self, latent: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        moved = action[..., :2] if self._macro else action.unflatten(-1, (-1, 2)).sum(-2)
        after = latent[..., :2] + moved
        if self._wall:
            after = through_the_wall(latent[..., :2], after)
        return torch.cat([after, latent[..., 2:]], -1)


class Sum(torch.nn.Module):
    """z' = z + the sum of the block, in one dimension."""

    def forward(self, latent: torch.Tensor, block: torch.Tensor) -> torch.Tensor:
        return latent + block.sum(-1, keepdim=True)


class Sums(torch.nn.Module):
    """m = (sum of the actions, n), exactly: the encoder that training would like to find."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        blocks, last = inputs[..., :-LONGEST], inputs[..., -LONGEST:]
        length = (last * torch.arange(1.0, LONGEST + 1)).sum(-1, keepdim=True)
        return torch.cat([blocks.unflatten(-1, (-1, 2)).sum(-2), length], -1)


@pytest.fixture(scope="module")
def reacher() -> Contract:
    return find_contract("reacher")


def toy(reacher: Contract, *, wall: bool = False) -> Checkpoint:
    """A checkpoint of a known world, in which the bank holds constant actions of 1 to 4 model steps."""
    config = load_model_config("smwm")
    model = WorldModel(config, reacher)
    model.dynamics = Moves(wall=wall, macro=False)
    part = MacroActions(latent=64, block=reacher.block_size, size=3, longest=LONGEST, bank=512)
    part.encoder, part.predictor = Sums(), Moves(wall=wall, macro=True)
    generator = torch.Generator().manual_seed(0)
    actions = 4 * torch.rand(SURPLUS * 512, 1, 1, 2, generator=generator) - 2
    blocks = actions.expand(-1, LONGEST, reacher.block, -1).flatten(-2)
    part.fill(blocks, torch.randint(1, LONGEST + 1, (len(blocks),), generator=generator))
    return Checkpoint(information(config, reacher), model, "toy", {"macro": part})


def latent(x: float, y: float) -> np.ndarray:
    return np.array([x, y] + [0.0] * 62, np.float32)


CONFIG = PlannerConfig(
    planner="hierarchical", horizon=LONGEST, samples=64, iterations=4, cost="soon", std=1.0, macros=4
)


def drive(checkpoint: Checkpoint, config: PlannerConfig, start: np.ndarray, goal: np.ndarray) -> np.ndarray:
    """Let a planner go, in the world it plans in; return where it was after each model step."""
    planner = make_planner(checkpoint, config)
    path = [start]
    for _ in range(16):
        actions = planner.plan(path[-1], goal).actions[:5].reshape(1, 1, 5, 2)
        path.append(checkpoint.predict(path[-1][None], actions)[0, 0])
    return np.array(path)


def test_waypoints_lead_round_the_wall(reacher: Contract) -> None:
    """The goal is behind a wall: the way leads through the door, which the flat planner does not find."""
    checkpoint = toy(reacher, wall=True)
    start, goal = latent(-12, -16), latent(12, -16)
    config = CONFIG.model_copy(update={"horizon": 2})  # from here to the door, and no farther
    path = drive(checkpoint, config, start, goal)
    np.testing.assert_allclose(path[-1, :2], goal[:2], atol=1.0)
    assert path[:, 1].max() > DOOR[0]
    stuck = drive(checkpoint, config.model_copy(update={"planner": "flat"}), start, goal)
    assert stuck[:, 0].max() < 0


def test_a_goal_within_reach_is_its_own_waypoint(reacher: Contract) -> None:
    planner = HierarchicalPlanner(toy(reacher), CONFIG)
    near = planner.plan(latent(0, 0), latent(9, -3))
    np.testing.assert_array_equal(near.subgoals, latent(9, -3))
    planner.reset()
    far = planner.plan(latent(0, 0), latent(90, 0))
    assert far.subgoals is not None
    assert 10 < far.subgoals[0] <= 40  # as far as one macro-action leads


def test_waypoints_stay_until_they_are_due_reached_or_missed(reacher: Contract) -> None:
    """Pins when the high level is searched again, by the evaluations that it adds."""
    config = CONFIG.model_copy(update={"macro_replan": 3})
    planner = HierarchicalPlanner(toy(reacher), config)
    start, goal = latent(0, 0), latent(150, 0)
    first = planner.plan(start, goal)
    waypoint = first.subgoals
    assert waypoint is not None
    nearer = start + 0.3 * (waypoint - start)
    second = planner.plan(nearer, goal, elapsed=5)
    np.testing.assert_array_equal(second.subgoals, waypoint)
    assert second.evaluations < first.evaluations
    third = planner.plan(nearer, goal, elapsed=5)
    assert third.evaluations > second.evaluations  # no nearer than before
    nearest = third.subgoals
    assert nearest is not None
    assert planner.plan(nearest, goal, elapsed=5).evaluations > second.evaluations  # it is there
    late = planner.plan(nearest + latent(1, 0), goal, elapsed=15)
    assert late.evaluations > second.evaluations  # it is time


def test_plans_are_repeatable_batched_and_within_limits(reacher: Contract) -> None:
    """A seed gives the same plan twice; problems in a batch each have their own waypoint."""
    checkpoint = toy(reacher)
    starts = np.stack([latent(0, 0)] * 3)
    goals = np.stack([latent(150, 0), latent(-150, 0), latent(1, 1)])
    config = CONFIG.model_copy(update={"time_budget": 60.0})
    first, second = (HierarchicalPlanner(checkpoint, config, seed=3) for _ in range(2))
    plan = first.plan_batch(starts, goals)
    np.testing.assert_array_equal(plan.actions, second.plan_batch(starts, goals).actions)
    assert plan.actions.shape == (3, LONGEST * 5, 2)
    assert (np.abs(plan.actions) <= 2 + 1e-6).all()
    assert 0 < plan.slack < 60
    assert plan.subgoals is not None
    assert plan.subgoals[0, 0] > 10
    assert plan.subgoals[1, 0] < -10
    np.testing.assert_array_equal(plan.subgoals[2], goals[2])


def test_robots_in_one_batch_are_planned_for_as_if_alone(reacher: Contract) -> None:
    """Pins that waypoints, their age and the random numbers are each robot's own, whoever is in the batch."""
    checkpoint = toy(reacher)
    goals = [latent(150, 0), latent(-150, 0), latent(0, 90)]
    fleet = HierarchicalPlanner(checkpoint, CONFIG, seed=3)
    alone = [HierarchicalPlanner(checkpoint, CONFIG, seed=3) for _ in goals]
    for step, due in enumerate([[0, 1, 2], [1], [2, 0], [0, 1, 2]]):
        if step == 3:  # one of them has another goal
            goals[1] = latent(60, 60)
            fleet.forget([1])
            alone[1].reset()
        problems = [Problem(robot, latent(step, robot), goals[robot], 5, robot % 2) for robot in due]
        together = fleet.plan_fleet(problems)
        for number, problem in enumerate(problems):
            own = alone[problem.robot].plan(problem.latent, problem.goal, 5, problem.delay)
            np.testing.assert_allclose(together.of(number).actions, own.actions, atol=1e-4)
            np.testing.assert_allclose(together.of(number).subgoals, own.subgoals, atol=1e-4)


def test_the_search_for_actions_begins_at_those_of_the_macro_action(reacher: Contract) -> None:
    """Pins the hint: with next to no search of its own, the low level reaches the waypoint all the same."""
    checkpoint = toy(reacher)
    idle = CONFIG.model_copy(
        update={"samples": 2, "elites": 2, "iterations": 1, "std": 1e-3, "cost": "final"}
    )
    planner = HierarchicalPlanner(checkpoint, idle)
    plan = planner.plan_batch(np.stack([latent(0, 0)] * 2), np.stack([latent(150, 0), latent(0, -150)]))
    assert plan.subgoals is not None
    furthest = plan.actions.sum(1)
    assert furthest[0, 0] >= plan.subgoals[0, 0] - 0.5 > 10
    assert furthest[1, 1] <= plan.subgoals[1, 1] + 0.5 < -10


def test_without_time_it_heads_for_the_goal(reacher: Contract) -> None:
    planner = HierarchicalPlanner(toy(reacher), CONFIG.model_copy(update={"time_budget": 1e-6}))
    plan = planner.plan(latent(0, 0), latent(50, 0))
    assert plan.evaluations == plan.iterations == 0
    np.testing.assert_array_equal(plan.subgoals, latent(50, 0))
    assert np.isfinite(plan.actions).all()


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), residual=st.floats(0, 2), width=st.floats(0.1, 100))
def test_no_candidate_leaves_the_bank(seed: int, residual: float, width: float) -> None:
    """Each is of the bank, with a bounded residual and within the percentiles; the first has no residual."""
    generator = torch.Generator().manual_seed(seed)
    part = MacroActions(latent=2, block=2, size=3, longest=2, hidden=8, bank=50)
    offered = torch.randn(SURPLUS * 50, 2, 2, generator=generator)
    part.fill(offered, torch.randint(1, 3, (len(offered),), generator=generator))
    macros = Support(part, residual)(width * torch.randn(2, 6, 4, 3, generator=generator))
    assert (macros >= part.low).all()
    assert (macros <= part.high).all()
    away = (macros[..., None, :] - part.bank).abs() / part.bank.std(0)
    assert (away.amax(-1).amin(-1) <= residual + 1e-4).all()
    assert (away[:, 0].amax(-1).amin(-1) == 0).all()


def test_the_naive_search_leaves_the_bank(reacher: Contract) -> None:
    """The control experiment is one: what it imagines goes farther than any macro-action did."""
    checkpoint = toy(reacher)
    planner = HierarchicalPlanner(checkpoint, CONFIG.model_copy(update={"naive": True}))
    plan = planner.plan(latent(0, 0), latent(900, 0))
    assert plan.subgoals is not None
    assert plan.subgoals[0] > checkpoint.part("macro").high[0]


def test_what_comes_after_the_end_of_a_macro_action_does_not_count() -> None:
    """Pins the variable length: the same blocks of another length are another macro-action."""
    part = MacroActions(latent=2, block=2, size=3, longest=4, hidden=8, bank=2)
    blocks = torch.randn(5, 4, 2, generator=torch.Generator().manual_seed(0))
    lengths = torch.tensor([1, 2, 3, 4, 2])
    changed = blocks.clone()
    changed[torch.arange(4) >= lengths[:, None]] = torch.nan
    torch.testing.assert_close(part.encode(blocks, lengths), part.encode(changed, lengths))
    assert not torch.allclose(part.encode(blocks, lengths), part.encode(blocks, 5 - lengths))


def random_walks(episodes: int = 40, length: int = 60, block: int = 2) -> Recorded:
    """Positions that the actions move, as latents: what leads where is known."""
    actions = torch.randn(episodes, length, 1, generator=torch.Generator().manual_seed(0))
    positions = (actions.cumsum(1) - actions).reshape(-1, 1)
    actions[:, -1] = torch.nan
    episode = np.repeat(np.arange(episodes), length)
    ends = (episode + 1) * length - 1
    return Recorded(positions, positions, actions.reshape(-1, 1), ends, episode % 5 == 0, block)


def test_macro_actions_learn_where_actions_lead(reacher: Contract) -> None:
    """In a world of sums one number is enough; the bank is filled with true macro-actions of all lengths."""
    torch.manual_seed(0)
    part = MacroActions(latent=1, block=2, size=2, longest=3, hidden=64, bank=64)
    stage = MacroStage(random_walks(), part)
    fit(stage, StageConfig(steps=200, batch=64, learning_rate=5e-3), 0, "cpu", lambda *_: None)
    model = WorldModel(load_model_config("smwm"), reacher)
    model.dynamics = Sum()
    figures = stage.finish(model, np.random.default_rng(0))
    assert figures["val_macro_error_3"] < 0.3  # a walk of six ticks goes 2.4 far
    torch.testing.assert_close(part.encode(part.blocks, part.lengths), part.bank, atol=1e-5, rtol=1e-4)
    assert set(part.lengths.tolist()) == {1, 2, 3}


def test_the_flat_planner_gets_as_many_evaluations(reacher: Contract) -> None:
    """Pins that the comparison is at equal compute, whatever horizon and proposals the flat planner has."""
    checkpoint = toy(reacher)
    flat = PlannerConfig(horizon=8, iterations=3, proposals="warm_start+zero", samples=64, elites=8)
    for wanted in (300, 5000):
        found = matched(checkpoint, flat, wanted)
        made = make_planner(checkpoint, found).plan(latent(0, 0), latent(1, 0)).evaluations
        assert abs(made / wanted - 1) <= WITHIN
        assert found.elites == max(2, round(found.samples / 8))


def test_bad_input_is_refused(reacher: Contract) -> None:
    """A horizon longer than the macro-actions, and a checkpoint without any, are errors that say so."""
    checkpoint = toy(reacher)
    with pytest.raises(ConfigError, match=r"horizon 5 is longer than .* reach 4 model steps"):
        HierarchicalPlanner(checkpoint, CONFIG.model_copy(update={"horizon": 5}))
    with pytest.raises(CheckpointError, match="--stage macro"):
        make_planner(Checkpoint(checkpoint.info, checkpoint.model, "toy"), CONFIG)
    planner = HierarchicalPlanner(checkpoint, CONFIG)
    with pytest.raises(ConfigError, match="not finite"):
        planner.plan(latent(np.nan, 0), latent(0, 0))
    with pytest.raises(ConfigError, match=r"goal has shape .* expected .*64"):
        planner.plan(latent(0, 0), np.zeros(3, np.float32))
