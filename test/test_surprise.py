"""Violation of expectation: events that happen, statistics with known answers, and the command."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator

import numpy as np
import pytest
from checkpoints import information
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from smwm_ros.cli import main
from smwm_ros.errors import CheckpointError, ConfigError
from smwm_ros.evaluation.statistics import auc, bootstrap_auc, roc, signed_rank
from smwm_ros.evaluation.surprise import measure_surprise, plot_surprise
from smwm_ros.models.checkpoint import Checkpoint, load_checkpoint
from smwm_ros.models.config import load_model_config
from smwm_ros.models.world_model import WorldModel
from smwm_ros.resources import checkpoint_path, find_contract
from smwm_ros.tasks import make_task
from smwm_ros.tasks.events import EVENTS, FAR, restore_physics, save_physics
from smwm_ros.tasks.exploration import make_policy
from smwm_ros.tasks.mujoco_task import MujocoTask

ROBOTS = ("reacher", "reacher_torque", "two_room", "push_t", "push_t_stiff", "pick_cube")
THINGS = {"push_t": slice(2, 5), "push_t_stiff": slice(2, 5), "pick_cube": slice(8, 12)}
"""Where the things that are teleported stand in the state; elsewhere it is the robot."""

Played = tuple[np.ndarray, np.ndarray]


@pytest.fixture(scope="module", params=ROBOTS)
def task(request: pytest.FixtureRequest) -> Iterator[MujocoTask]:
    with make_task(find_contract(request.param)) as made:
        assert isinstance(made, MujocoTask)
        yield made


def play(
    task: MujocoTask, moment: np.ndarray, actions: list[np.ndarray], event: str = "", seed: int = 0
) -> Played:
    """Return state and picture after the actions, with an event or without."""
    restore_physics(task, moment)
    if not event:
        for action in actions:
            task.advance(action, task.contract.period)
        return task.state, task.render_state(None)
    with EVENTS[event](task, np.random.default_rng(seed)):
        for action in actions:
            task.advance(action, task.contract.period)
        return task.state, task.render_state(None)


def middle(task: MujocoTask) -> tuple[np.ndarray, list[np.ndarray]]:
    policy = make_policy(task.contract, np.random.default_rng(1), lambda: task.state)
    task.reset(seed=1)
    for _ in range(25):
        task.advance(policy.next(), task.contract.period)
    moment = save_physics(task)
    return moment, [policy.next() for _ in range(task.contract.block)]


def test_without_an_event_all_is_repeated_exactly(task: MujocoTask) -> None:
    """Else the nominal step would differ from the others by more than the event."""
    moment, actions = middle(task)
    first, again = play(task, moment, actions), play(task, moment, actions)
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])


def test_events_happen_and_end(task: MujocoTask) -> None:
    """Each changes the picture, and all but a colour the state; nothing stays painted or pushed."""
    moment, actions = middle(task)
    nominal, picture = play(task, moment, actions)
    colours = task.model.geom_rgba.copy()
    for event in EVENTS:
        state, seen = play(task, moment, actions, event)
        assert not np.array_equal(seen, picture), event
        if event == "colour":
            np.testing.assert_array_equal(state, nominal)
        else:
            assert not np.allclose(state, nominal, atol=1e-3), event
    np.testing.assert_array_equal(task.model.geom_rgba, colours)
    np.testing.assert_array_equal(play(task, moment, actions)[1], picture)


def test_teleports(task: MujocoTask) -> None:
    """The thing is far from where it was, at a possible place, and the rest of the state is as it was."""
    moment, _ = middle(task)
    before = task.state
    for seed in range(5):
        restore_physics(task, moment)
        with EVENTS["teleport"](task, np.random.default_rng(seed)):
            after = task.state
        task.check_state(after)
        assert task.errors(before, after).max() >= FAR * task.threshold
        if thing := THINGS.get(task.contract.name):
            rest = np.ones(len(before), bool)
            rest[thing] = rest[thing.start + task.model.nq : thing.stop + task.model.nq] = False
            np.testing.assert_array_equal(after[rest], before[rest])


def test_area_by_hand() -> None:
    """Separable: 1; the same numbers: a half; known ranks between; ties count half."""
    assert auc(np.array([3.0, 4.0]), np.array([1.0, 2.0])) == 1
    assert auc(np.array([1.0, 2.0, 2.0]), np.array([1.0, 2.0, 2.0])) == 0.5
    assert auc(np.array([1.0, 3.0]), np.array([2.0, 0.0])) == 0.75
    assert auc(np.array([1.0]), np.array([1.0])) == 0.5


@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=12), st.lists(st.integers(0, 5), min_size=1, max_size=12)
)
def test_area_is_that_under_the_curve(positives: list[int], negatives: list[int]) -> None:
    values, others = np.array(positives, float), np.array(negatives, float)
    false, true = roc(values, others)
    assert (false[-1], true[-1]) == (1, 1)
    area = ((false[1:] - false[:-1]) * (true[1:] + true[:-1]) / 2).sum()
    assert auc(values, others) == pytest.approx(area)


def test_interval_holds_the_area() -> None:
    generator = np.random.default_rng(0)
    values, others = generator.normal(1, 1, 60), generator.normal(0, 1, 60)
    low, high = bootstrap_auc(values, others, seed=0)
    assert low < auc(values, others) < high
    assert 0.1 < high - low < 0.3
    assert bootstrap_auc(others + 10, others, seed=0) == (1, 1)


@given(st.lists(st.integers(-4, 4), min_size=1, max_size=9))
def test_signed_rank_is_what_counting_all_signs_gives(differences: list[int]) -> None:
    """Also with ties and zeros, against the definition."""
    values = np.array([each for each in differences if each], float)
    if not len(values):
        assert signed_rank(np.array(differences, float)) == 1
        return
    sizes = np.abs(values)
    ranks = np.array([(sizes < size).sum() + ((sizes == size).sum() + 1) / 2 for size in sizes])
    seen = ranks[values > 0].sum()
    sums = [ranks[list(signs)].sum() for signs in itertools.product((False, True), repeat=len(ranks))]
    assert signed_rank(np.array(differences, float)) == pytest.approx(np.mean(np.array(sums) >= seen - 1e-9))


def test_signed_rank_published_example() -> None:
    """One-sided p of all positive differences is 2^-N; of equal halves it is above a half."""
    assert signed_rank(np.arange(1.0, 11)) == pytest.approx(2.0**-10)
    assert signed_rank(np.array([1.0, -1, 2, -2, 3, -3])) > 0.5


def test_shipped_model_tells_a_teleport(tmp_path) -> None:
    """On a dozen episodes already; the same seed gives the same numbers, and all can be drawn."""
    shipped = load_checkpoint(checkpoint_path("reacher"))
    with make_task(find_contract("reacher")) as task:
        found = measure_surprise(task, shipped, episodes=12, seed=2)
        again = measure_surprise(task, shipped, episodes=12, seed=2)
    figures = found.figures()
    assert figures["auc"] > 0.95
    assert figures["p_value"] < 0.01
    assert figures["teleport_over_colour"]["auc"] > 0.5
    assert figures == again.figures()
    assert set(found.pictures) == {"before", "nominal", *EVENTS}
    plot_surprise(found).savefig(tmp_path / "surprise.png")


def test_model_that_expects_nothing_is_surprised_by_nothing() -> None:
    """A latent that is blind: every surprise is the same, no event is told, and no p-value says so."""
    contract = find_contract("two_room")
    config = load_model_config("smwm").model_copy(update={"frames": 2})
    model = WorldModel(config, contract)
    for parameter in model.encoder.parameters():
        parameter.data.zero_()
    blind = Checkpoint(information(config, contract), model, "blind")
    with make_task(contract) as task:
        figures = measure_surprise(task, blind, episodes=4).figures()
    assert figures["auc"] == 0.5
    assert figures["p_value"] == 1


def test_the_command() -> None:
    """The keys that machines read."""
    arguments = ["surprise", "--task", "reacher", "--episodes", "5", "--json"]
    result = CliRunner().invoke(main.app, arguments, catch_exceptions=False)
    found = json.loads(result.stdout.splitlines()[-1])
    assert found["events"].keys() == set(EVENTS)
    assert {"auc", "p_value", "interval", "nominal_median", "teleport_over_colour"} <= found.keys()
    assert found["auc"] == found["events"]["teleport"]["auc"]


def test_bad_input(tmp_path) -> None:
    """Another robot's model, a robot that cannot be teleported, and too few episodes."""
    shipped = load_checkpoint(checkpoint_path("reacher"))
    with make_task(find_contract("two_room")) as task, pytest.raises(CheckpointError, match="another robot"):
        measure_surprise(task, shipped, episodes=5)
    with make_task(find_contract("reacher")) as task, pytest.raises(ConfigError, match="at least 2 episodes"):
        measure_surprise(task, shipped, episodes=1)
