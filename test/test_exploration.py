"""Coloured noise, and the data gathered with it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smwm_ros.cli.bench_sim import bench_sim
from smwm_ros.contract import Contract
from smwm_ros.resources import find_contract
from smwm_ros.tasks import make_task
from smwm_ros.tasks.exploration import collect
from smwm_ros.tasks.noise import ColouredNoise


def robot(rate: float, *dimensions: tuple[float, float, float]) -> Contract:
    """Return a contract with the given (low, high, max_change) per dimension."""
    contract = find_contract("reacher").model_dump()
    contract["rate"] = rate
    contract["observation"]["joints"] = None
    contract["action"]["safe"] = [low for low, _, _ in dimensions]
    contract["action"]["dimensions"] = [
        {
            "field": f"data[{i}]",
            "name": f"d{i}",
            "unit": "rad/s",
            "low": low,
            "high": high,
            "max_change": change,
        }
        for i, (low, high, change) in enumerate(dimensions)
    ]
    return Contract.model_validate(contract)


def draw(contract: Contract, ticks: int, seed: int = 0, **options: float) -> np.ndarray:
    policy = ColouredNoise(contract, np.random.default_rng(seed), **options)
    return np.stack([policy.next() for _ in range(ticks)])


limits = st.tuples(st.floats(-10, 10), st.floats(0.01, 10), st.floats(0.1, 200)).map(
    lambda t: (t[0], t[0] + t[1], t[2])
)


@settings(max_examples=50, deadline=None)
@given(
    dimensions=st.lists(limits, min_size=1, max_size=3),
    rate=st.floats(5, 200),
    time=st.floats(0.05, 2),
    seed=st.integers(0, 2**32),
)
def test_within_limits_and_change(dimensions, rate, time, seed):
    """The gate would clip a policy that asks for too much; then the recorded action is not what was meant."""
    contract = robot(rate, *dimensions)
    actions = draw(contract, 200, seed, correlation_time=time)
    assert (actions >= contract.action.low).all()
    assert (actions <= contract.action.high).all()
    slack = 1 + 1e-9
    assert (
        np.abs(np.diff(actions, axis=0)) <= contract.action.max_change * contract.period * slack + 1e-12
    ).all()


def test_same_seed_same_noise():
    contract = find_contract("reacher")
    np.testing.assert_array_equal(draw(contract, 50, 1), draw(contract, 50, 1))
    assert not np.allclose(draw(contract, 50, 1), draw(contract, 50, 2))


def test_correlation_falls_to_1_over_e_in_the_correlation_time():
    """The time constant must not depend on the control rate. Unclipped, the process is Gaussian."""
    for rate in (10.0, 50.0):
        actions = draw(robot(rate, (-100.0, 100.0, 1e6)), 200_000, spread=0.1, correlation_time=0.5)[:, 0]
        lag = round(0.5 * rate)
        correlation = np.corrcoef(actions[lag:], actions[:-lag])[0, 1]
        assert correlation == pytest.approx(np.exp(-1), abs=0.03)
        assert actions.std() == pytest.approx(10.0, rel=0.03)


def test_dimensions_are_independent_and_centred():
    actions = draw(robot(20.0, (-1.0, 1.0, 100.0), (4.0, 6.0, 100.0)), 100_000)
    assert abs(np.corrcoef(actions.T)[0, 1]) < 0.03
    np.testing.assert_allclose(actions.mean(axis=0), [0, 5], atol=0.03)


def test_some_of_the_time_at_full_speed():
    actions = draw(find_contract("reacher"), 50_000)
    assert (np.abs(actions) == 2.0).mean() == pytest.approx(0.153, abs=0.02)  # P(|N(0, 0.7)| > 1)


def test_collect_covers_the_joint_space_and_aligns_actions():
    """Row t's action must be the one between image t and t+1: the arm's own motion tells."""
    contract = find_contract("reacher")
    task = make_task(contract)
    episodes = list(collect(task, range(6), 100, seed=10))
    task.close()
    for episode in episodes:
        assert episode["pixels"].shape == (100, 64, 64, 3)
        assert episode["pixels"].dtype == np.uint8
        assert episode["action"].dtype == np.float32
        assert np.isnan(episode["action"][-1]).all()
        assert np.isfinite(episode["action"][:-1]).all()
        np.testing.assert_array_equal(episode["joints"], episode["state"][:, :2])
        moved = np.diff(episode["state"][:, 0]) * contract.rate
        errors = [np.abs(np.roll(moved, shift) - episode["action"][:-1, 0]).mean() for shift in (-1, 0, 1)]
        assert np.argmin(errors) == 1
        assert errors[1] < 0.1
    elbows = np.concatenate([episode["state"][:, 1] for episode in episodes])
    assert (np.histogram(elbows, 6, (-2.7, 2.7))[0] > 0).all()


def test_an_episode_depends_on_seed_and_number_alone():
    """Otherwise the data would depend on how many processes share the work."""
    task = make_task(find_contract("reacher"))
    both = list(collect(task, [0, 1], 5, seed=2))
    (alone,) = collect(task, [1], 5, seed=2)
    (other,) = collect(task, [1], 5, seed=3)
    task.close()
    for key in ("pixels", "action", "state", "joints"):
        np.testing.assert_array_equal(both[1][key], alone[key])
        assert not np.array_equal(both[0][key], alone[key])
        assert not np.array_equal(other[key], alone[key])


def test_bench_reports_its_figures():
    result = bench_sim(seconds=0.2)
    assert result["physics_steps_per_s"] > result["frames_per_s"] > 0
    assert (result["width"], result["height"], result["task"]) == (64, 64, "smwm/Reacher-v0")
