"""Probes against latents whose content is known, and the commands around them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoints import information
from typer.testing import CliRunner

from smwm_ros.cli import main
from smwm_ros.data.store.reader import EpisodeStore
from smwm_ros.data.store.writer import EpisodeWriter
from smwm_ros.errors import CheckpointError, ConfigError, DataError, SimulationError
from smwm_ros.evaluation.episodes import Episodes, encode_episodes, explore_episodes, read_episodes
from smwm_ros.evaluation.probing import (
    fit_state_probes,
    plot_latents,
    plot_probes,
    probe,
    split_episodes,
    straightness,
)
from smwm_ros.evaluation.regression import Table, fit_linear, fit_mlp, r_squared
from smwm_ros.evaluation.supervised import train_supervised
from smwm_ros.models.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from smwm_ros.models.config import load_model_config
from smwm_ros.models.world_model import WorldModel
from smwm_ros.resources import checkpoint_path, find_contract, share_directory
from smwm_ros.tasks import RobotTask, make_task

CONTRACT = find_contract("reacher")
BLOCK = CONTRACT.block


@pytest.fixture(scope="module")
def untrained() -> Checkpoint:
    config = load_model_config("smwm").model_copy(update={"frames": 2})
    torch.manual_seed(0)
    return Checkpoint(information(config, CONTRACT), WorldModel(config, CONTRACT), "untrained")


@pytest.fixture(scope="module")
def task() -> Iterator[RobotTask]:
    with make_task(CONTRACT) as task:
        yield task


@pytest.fixture(scope="module")
def explored(task: RobotTask) -> Episodes:
    return explore_episodes(task, 8, 30, 0)


def made_up(episodes: int = 24, ticks: int = 40, seed: int = 0) -> Episodes:
    """An angle that winds up, a position and a velocity, all driven by the actions; black pictures."""
    generator = np.random.default_rng(seed)
    actions = generator.uniform(-1, 1, (episodes, ticks, 2))
    start = generator.uniform(-3, 3, (episodes, 1, 2))
    places = start + 0.3 * np.cumsum(np.pad(actions[:, :-1], ((0, 0), (1, 0), (0, 0))), axis=1)
    speed = generator.standard_normal((episodes, ticks, 1))
    actions[:, -1] = np.nan
    return Episodes(
        np.zeros((episodes * ticks, 4, 4, 3), np.uint8),
        actions.reshape(-1, 2).astype(np.float32),
        np.concatenate([places, speed], axis=2).reshape(-1, 3),
        ("turn", "way", "speed"),
        ("angle", "position", "velocity"),
        np.full(episodes, ticks),
    )


def test_linear_probe_finds_a_linear_map_and_no_more() -> None:
    """Exact on linear targets, nothing on the square of what it sees: R² 1 and about 0."""
    generator = np.random.default_rng(0)
    features = generator.standard_normal((2000, 8)).astype(np.float32)
    linear = features @ generator.standard_normal((8, 2)) + 5.0
    targets = np.column_stack([linear, features[:, 0] ** 2])
    fit, choose = Table(features[:1000], targets[:1000]), Table(features[1000:1500], targets[1000:1500])
    predicted = fit_linear(fit, choose)(features[1500:])
    assert r_squared(predicted[:, :2], targets[1500:, :2]) == pytest.approx(1, abs=1e-4)
    assert abs(r_squared(predicted[:, 2:], targets[1500:, 2:])) < 0.05


def test_the_penalty_holds_a_linear_probe_back_where_rows_are_few() -> None:
    """With as many features as rows, a fit without penalty would be far worse than the mean."""
    generator = np.random.default_rng(1)
    features = generator.standard_normal((180, 60)).astype(np.float32)
    targets = generator.standard_normal((180, 1))
    fit, choose = Table(features[:60], targets[:60]), Table(features[60:120], targets[60:120])
    assert r_squared(fit_linear(fit, choose)(features[120:]), targets[120:]) > -0.2


def test_mlp_probe_finds_what_a_linear_one_does_not() -> None:
    """The square of a feature; and the same seed gives the same predictions."""
    generator = np.random.default_rng(0)
    features = generator.standard_normal((3000, 4)).astype(np.float32)
    targets = 100 * features[:, :1].astype(np.float64) ** 2 + 7
    fit, choose = Table(features[:2000], targets[:2000]), Table(features[2000:2500], targets[2000:2500])
    predicted = fit_mlp(fit, choose, seed=3)(features[2500:])
    assert r_squared(predicted, targets[2500:]) > 0.95
    np.testing.assert_array_equal(predicted, fit_mlp(fit, choose, seed=3)(features[2500:]))


def test_r_squared_by_hand() -> None:
    """1 for the truth, 0 for the mean, below for worse, and nothing where nothing varies."""
    targets = np.array([[0.0], [1.0], [2.0]])
    assert r_squared(targets, targets) == 1
    assert r_squared(np.ones((3, 1)), targets) == 0
    assert r_squared(2 - targets, targets) == -3
    assert np.isnan(r_squared(targets, np.ones((3, 1))))


def test_probes_of_latents_that_hold_the_state(untrained: Checkpoint) -> None:
    """Latents that are the targets themselves, mixed: all of it is found; the velocity stands apart."""
    episodes = made_up()
    targets, variables = episodes.targets()
    assert [(v.name, len(v.columns)) for v in variables] == [("turn", 2), ("way", 1), ("speed", 1)]
    mixing = np.random.default_rng(0).standard_normal((4, 16))
    found = probe(untrained, episodes, (targets @ mixing).astype(np.float32), repeats=2)
    figures = found.figures()
    assert figures["linear_r2"] > 0.999
    assert figures["mlp_r2"] > 0.9
    assert figures["velocity_linear_r2"] > 0.999
    assert figures["effective_rank"] < 4.01
    assert figures["repeats"] == 2
    assert figures["variables"]["way"]["linear_r2"] > 0.999


def test_probes_of_latents_that_hold_nothing(untrained: Checkpoint) -> None:
    """Random latents: no R² above chance, though the latent is healthy by rank and scale."""
    episodes = made_up()
    latents = np.random.default_rng(0).standard_normal((len(episodes.pixels), 16)).astype(np.float32)
    figures = probe(untrained, episodes, latents, repeats=1).figures()
    for key in ("linear_r2", "mlp_r2", "inverse_r2", "velocity_mlp_r2"):
        assert figures[key] < 0.1, key
    assert figures["effective_rank"] > 15.5
    assert figures["latent_scale"] == pytest.approx(1, abs=0.05)


def test_actions_are_read_from_the_change_between_the_right_two_rows(untrained: Checkpoint) -> None:
    """Where the latent is the sum of the actions so far, the mean of a block follows from its ends only."""
    episodes = made_up(episodes=40)
    # All ticks of a block act alike, so that the change tells each of them.
    actions = episodes.actions.reshape(40, 40, 2)
    blocks = np.repeat(actions[:, ::BLOCK], BLOCK, axis=1)
    so_far = np.cumsum(np.pad(blocks[:, :-1], ((0, 0), (1, 0), (0, 0))), axis=1).reshape(-1, 2)
    held = replace(episodes, actions=blocks.reshape(-1, 2).astype(np.float32))
    right = probe(untrained, held, so_far.astype(np.float32), repeats=1)
    wrong = probe(untrained, held, np.roll(so_far, BLOCK, axis=0).astype(np.float32), repeats=1)
    # Half of all blocks straddle two actions, so not even the right one tells all.
    assert right.inverse[0] > 0.5
    assert wrong.inverse[0] < 0.5 * right.inverse[0]


def test_a_latent_on_a_plane_has_rank_two(untrained: Checkpoint) -> None:
    """Two independent directions of equal variance."""
    episodes = made_up()
    generator = np.random.default_rng(0)
    plane = np.linalg.qr(generator.standard_normal((16, 2)))[0].T
    latents = (generator.standard_normal((len(episodes.pixels), 2)) @ plane).astype(np.float32)
    assert probe(untrained, episodes, latents, repeats=1).effective_rank == pytest.approx(2, abs=0.01)


def test_straightness_of_known_paths() -> None:
    """1 on a line, 0 round a square of steps, -1 to and fro, NaN at rest; episodes are not joined."""
    episodes = made_up(episodes=5, ticks=9)
    ticks = np.tile(np.arange(9.0), 5)[:, None].astype(np.float32)
    assert straightness(episodes, ticks @ np.array([[3.0, 4.0]], np.float32), 2) == pytest.approx(1)
    corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float32)
    assert straightness(episodes, np.tile(corners[np.arange(9) % 4], (5, 1)), 1) == pytest.approx(0)
    assert straightness(episodes, np.cos(np.pi * ticks), 1) == pytest.approx(-1)
    assert np.isnan(straightness(episodes, np.ones_like(ticks), 1))


def test_splits_never_share_an_episode() -> None:
    """Every episode in one part, drawn by the seed; too few are refused."""
    episodes = made_up(episodes=20, ticks=4)
    split = split_episodes(episodes, 0)
    together = np.concatenate([split.fit, split.choose, split.test])
    assert sorted(together) == list(range(20))
    assert [len(split.fit), len(split.choose), len(split.test)] == [12, 3, 5]
    assert not np.array_equal(split.fit, split_episodes(episodes, 1).fit)
    with pytest.raises(DataError, match="4 episodes cannot be divided"):
        split_episodes(made_up(episodes=4), 0)


def test_what_does_not_vary_is_left_out() -> None:
    episodes = made_up()
    episodes.states[:, 1] = 3.0
    assert [variable.name for variable in episodes.targets()[1]] == ["turn", "speed"]
    episodes.states[:] = 0
    with pytest.raises(DataError, match="none of the variables turn, way, speed varies"):
        episodes.targets()


def test_episodes_too_short_for_a_step(untrained: Checkpoint) -> None:
    episodes = made_up(ticks=BLOCK)
    with pytest.raises(DataError, match=f"a model step takes {BLOCK + 1}"):
        probe(untrained, episodes, np.zeros((len(episodes.pixels), 4), np.float32), repeats=1)


def test_fresh_episodes(task: RobotTask, explored: Episodes) -> None:
    """Seeded, with the task's own variables; angles and velocities are told apart."""
    again = explore_episodes(task, 8, 30, 0)
    np.testing.assert_array_equal(explored.pixels, again.pixels)
    assert not np.array_equal(explored.states, explore_episodes(task, 8, 30, 1).states)
    assert explored.names == ("shoulder", "elbow", "shoulder_velocity", "elbow_velocity")
    assert explored.kinds == ("angle", "angle", "velocity", "velocity")
    assert explored.targets()[0].shape == (240, 6)


def test_observations_begin_as_the_trainer_and_the_nodes_begin_them(explored: Episodes) -> None:
    """The first picture of an episode stands for those before it, never the last of another episode."""
    pixels = explored.pixels
    seen = explored.observations(np.array([0, 29, 30, 31]), 3)
    for row, wanted in enumerate([(0, 0, 0), (27, 28, 29), (30, 30, 30), (30, 30, 31)]):
        np.testing.assert_array_equal(seen[row], pixels[list(wanted)])


def test_encoding_equals_the_checkpoint_s_own(untrained: Checkpoint, explored: Episodes) -> None:
    latents = encode_episodes(untrained, explored)
    expected = untrained.encode(explored.pixels[36:38])
    np.testing.assert_allclose(latents[37], expected, atol=1e-5)


def test_views_come_in_order_and_anew_for_each_episode(explored: Episodes) -> None:
    """A camera that paints its own count of pictures into them starts over with every episode."""

    def views(episode: int):
        ticks = iter(range(100))
        return lambda image: np.full_like(image, 10 * episode + next(ticks) % 10)

    part = explored.part(np.array([5, 2]), views)
    assert part.pixels[:30, 0, 0, 0].tolist() == [50 + tick % 10 for tick in range(30)]
    assert part.pixels[30:, 0, 0, 0].tolist() == [20 + tick % 10 for tick in range(30)]
    np.testing.assert_array_equal(part.states[:30], explored.states[150:180])


def write_store(path: Path, episodes: Episodes, **changed: np.ndarray) -> Path:
    with EpisodeWriter(path, CONTRACT) as writer:
        for number in range(len(episodes.lengths)):
            rows = episodes.rows(np.array([number]))
            columns = {
                "pixels": episodes.pixels[rows],
                "action": episodes.actions[rows],
                "state": episodes.states[rows],
                "joints": episodes.states[rows, :2].astype(np.float32),
            } | {name: values[rows] for name, values in changed.items()}
            writer.append({name: values for name, values in columns.items() if values.size})
    return path


def test_store_of_the_training_gives_what_was_held_out(
    tmp_path: Path, task: RobotTask, explored: Episodes, untrained: Checkpoint
) -> None:
    """Of the store that a model was trained on, only episodes that it has not seen; of others, any."""
    with EpisodeStore(write_store(tmp_path / "data.h5", explored)) as store:
        any_of_them = read_episodes(store, untrained, task, 6, 12, seed=0)
        assert any_of_them.lengths.tolist() == [12] * 6
        place = np.flatnonzero((explored.states == any_of_them.states[0]).all(1))[0]
        np.testing.assert_array_equal(any_of_them.states[:12], explored.states[place : place + 12])
        np.testing.assert_array_equal(any_of_them.pixels[:12], explored.pixels[place : place + 12])
        config = untrained.info.config.model_copy(
            update={"training": untrained.info.config.training.model_copy(update={"validation": 0.25})}
        )
        info = untrained.info.model_copy(
            update={"data_fingerprint": store.fingerprint, "seed": 3, "config": config}
        )
        unseen = read_episodes(store, Checkpoint(info, untrained.model, "trained"), task, 6, 30, seed=0)
    held_out = np.sort(np.random.default_rng(3).permutation(8)[:2])
    np.testing.assert_array_equal(unseen.states, explored.states[explored.rows(held_out)])
    assert unseen.kinds == explored.kinds


def test_store_of_a_recording_gives_its_joints(
    tmp_path: Path, task: RobotTask, explored: Episodes, untrained: Checkpoint
) -> None:
    """Without states, the joints are what to probe for, and the task says that they are angles."""
    nothing = np.empty((240, 0))
    path = write_store(tmp_path / "data.h5", explored, state=nothing)
    with EpisodeStore(path) as store:
        found = read_episodes(store, untrained, task, 8, 30, seed=0)
        assert (found.names, found.kinds) == (("shoulder", "elbow"), ("angle", "angle"))
        assert read_episodes(store, untrained, None, 8, 30, seed=0).kinds == ("position", "position")


def test_store_of_another_robot_is_refused(tmp_path: Path, task: RobotTask, explored: Episodes) -> None:
    other, config = find_contract("two_room"), load_model_config("smwm")
    stranger = Checkpoint(information(config, other), WorldModel(config, other), "stranger")
    path = write_store(tmp_path / "data.h5", explored)
    with EpisodeStore(path) as store, pytest.raises(CheckpointError, match="another robot"):
        read_episodes(store, stranger, task, 8, 30, seed=0)


def test_store_without_truth_or_with_nan_is_refused(
    tmp_path: Path, task: RobotTask, explored: Episodes, untrained: Checkpoint
) -> None:
    nothing = np.empty((240, 0))
    blind = write_store(tmp_path / "blind.h5", explored, state=nothing, joints=nothing)
    with EpisodeStore(blind) as store, pytest.raises(DataError, match="nothing to probe for"):
        read_episodes(store, untrained, task, 8, 30, seed=0)
    broken = write_store(tmp_path / "nan.h5", explored, state=np.full((240, 4), np.nan))
    with EpisodeStore(broken) as store, pytest.raises(DataError, match="not finite"):
        read_episodes(store, untrained, task, 8, 30, seed=0)
    old = write_store(tmp_path / "old.h5", explored, state=explored.states[:, :3])
    with EpisodeStore(old) as store, pytest.raises(DataError, match="states have 3 numbers"):
        read_episodes(store, untrained, task, 8, 30, seed=0)


def test_supervised_control_learns_what_pictures_show(untrained: Checkpoint) -> None:
    """Pictures whose brightness is the state: the control tells it in a few steps, on other episodes."""
    episodes = made_up(episodes=12, ticks=20)
    shown = np.clip(128 + 20 * episodes.states[:, 1], 0, 255).astype(np.uint8)
    pixels = np.broadcast_to(shown[:, None, None, None], (240, 64, 64, 3)).copy()
    seen = replace(episodes, pixels=pixels, kinds=("velocity", "position", "velocity"))
    split = split_episodes(seen, 0)
    found = train_supervised(untrained, seen, split, steps=60, seed=0)
    assert found.keys() == {"way"}
    assert found["way"] > 0.8
    blind = train_supervised(untrained, replace(seen, pixels=np.zeros_like(pixels)), split, steps=10)
    assert blind["way"] < 0.2
    moving = replace(seen, kinds=("velocity",) * 3)
    with pytest.raises(ConfigError, match="nothing but velocities"):
        train_supervised(untrained, moving, split, steps=1)


def test_figures_can_be_drawn(untrained: Checkpoint, explored: Episodes, tmp_path: Path) -> None:
    latents = encode_episodes(untrained, explored)
    found = probe(untrained, explored, latents, repeats=1)
    plot_probes({"one": found, "two": found}, {"elbow": 0.5}).savefig(tmp_path / "probes.png")
    plot_latents(explored, latents).savefig(tmp_path / "latents.png")


def test_shipped_model_holds_the_joints(task: RobotTask) -> None:
    """The shipped reacher model, on few episodes: both joints can be read linearly, velocities cannot."""
    shipped = load_checkpoint(checkpoint_path("reacher"))
    episodes = explore_episodes(task, 16, 60, 5)
    latents = encode_episodes(shipped, episodes)
    split = split_episodes(episodes, 0)
    probes = fit_state_probes(episodes, latents, split, 0)
    test = episodes.rows(split.test)
    linear = probes.score(latents[test], episodes.targets()[0][test])["linear"]
    assert linear[:2].min() > 0.95
    assert linear[2:].max() < 0.3


def run(*arguments: str) -> dict:
    result = CliRunner().invoke(main.app, [*arguments, "--json"], catch_exceptions=False)
    return json.loads(result.stdout.splitlines()[-1])


def test_the_command(tmp_path: Path, untrained: Checkpoint) -> None:
    """The keys that machines read; the control, the second model, the corruptions, and the drawings."""
    path = tmp_path / "second.safetensors"
    save_checkpoint(path, untrained.info, untrained.model)
    found = run(
        *("probe", "--task", "reacher", "--episodes", "6", "--ticks", "16", "--repeats", "1"),
        *("--supervised", "--supervised-steps", "2", "--corruptions", "--pairs", "1", "--offset", "2"),
        *("--against", str(path), "--figures", str(tmp_path)),
    )
    keys = "linear_r2", "mlp_r2", "inverse_r2", "effective_rank", "latent_scale", "straightness"
    for part in (found, found["against"]):
        assert all(np.isfinite(part[key]) for key in keys)
        assert len(part["corruptions"]["noise"]["mlp_r2"]) == 6
        assert len(part["corruptions"]["noise"]["success_any"]) == 6
    assert found["supervised"].keys() == {"shoulder", "elbow"}
    assert found["gap"].keys() == {"noise", "blur", "brightness", "occlusion", "distractors"}
    assert {file.name for file in tmp_path.glob("*.png")} == {"probes.png", "latents.png", "corruptions.png"}


def test_recordings_of_a_real_robot(tmp_path: Path, explored: Episodes, untrained: Checkpoint) -> None:
    """Without a simulation, a store and a checkpoint are enough, and the joints are probed for."""
    contract, checkpoint = tmp_path / "robot.yaml", tmp_path / "model.safetensors"
    real = (share_directory() / "config" / "robots" / "reacher.yaml").read_text(encoding="utf-8")
    contract.write_text(re.sub(r"(?m)^task:.*$", "", real), encoding="utf-8")
    save_checkpoint(checkpoint, untrained.info, untrained.model)
    data = write_store(tmp_path / "data.h5", explored, state=np.empty((240, 0)))
    given = "--task", str(contract), "--checkpoint", str(checkpoint), "--repeats", "1"
    found = run("probe", *given, "--store", str(data), "--corruptions", "--ticks", "16")
    assert found["variables"].keys() == {"shoulder", "elbow"}
    assert "success_any" not in found["corruptions"]["blur"]
    with pytest.raises(SimulationError, match="names no task"):
        run("probe", *given)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (["--task", "toaster"], Exception, "no robot contract named 'toaster'"),
        (["--model", "nothing"], CheckpointError, "no model 'nothing' is shipped"),
        (["--against", "nothing"], CheckpointError, "no model 'nothing' is shipped"),
        (["--task", "push_t", "--checkpoint", "reacher"], CheckpointError, "trained for another robot"),
        (["--store", "missing.h5"], DataError, "no such episode store"),
        (["--episodes", "3", "--ticks", "10"], DataError, "3 episodes cannot be divided"),
        (["--set", "samples=x"], ConfigError, "samples"),
    ],
)
def test_bad_input(arguments: list[str], error: type[Exception], message: str) -> None:
    given = [str(checkpoint_path("reacher")) if part == "reacher" else part for part in arguments]
    with pytest.raises(error, match=message):
        run("probe", *given)
