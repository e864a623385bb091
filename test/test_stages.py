"""What is trained on frozen latents: the inverse model of goals, the bank, and how they travel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from blobs import blob_contract, write_blobs
from checkpoints import information

from smwm_ros.data.store.reader import EpisodeStore
from smwm_ros.errors import CheckpointError, ConfigError, DataError
from smwm_ros.models.bank import ActionBank
from smwm_ros.models.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from smwm_ros.models.config import ModelConfig, load_model_config
from smwm_ros.models.proposal import GoalInverse
from smwm_ros.models.world_model import WorldModel
from smwm_ros.planning.config import PlannerConfig
from smwm_ros.planning.planners import make_planner
from smwm_ros.training.bank import BankStage
from smwm_ros.training.proposal import ProposalStage
from smwm_ros.training.run_stage import run_stage, stage_config
from smwm_ros.training.stages import Recorded, StageConfig, fit, look


def quiet(what: str, done: int, total: int) -> None:
    pass


def random_walks(episodes: int = 40, length: int = 60, block: int = 2) -> Recorded:
    """Positions that the actions move, as latents: what leads where is known."""
    actions = torch.randn(episodes, length, 1, generator=torch.Generator().manual_seed(0))
    positions = actions.cumsum(1) - actions
    actions[:, -1] = torch.nan
    episode = np.repeat(np.arange(episodes), length)
    return Recorded(
        positions.reshape(-1, 1),
        positions.reshape(-1, 1),
        actions.reshape(-1, 1),
        (episode + 1) * length - 1,
        episode % 5 == 0,
        block,
    )


def test_the_inverse_model_learns_the_expected_action() -> None:
    """In a random walk the best guess of a tick's action is the way that is left over the ticks left."""
    torch.manual_seed(0)
    module = GoalInverse(latent=1, block=2, hidden=64, layers=2, reach=4)
    figures = fit(ProposalStage(random_walks(), module), StageConfig(steps=600, batch=256), 0, "cpu", quiet)
    latent, goal = torch.zeros(3, 1), torch.tensor([[2.0], [-2.0], [2.0]])
    found = module(latent, goal, torch.tensor([1.0, 1.0, 4.0]))
    expected = torch.tensor([[1.0, 1.0], [-1.0, -1.0], [0.25, 0.25]])
    torch.testing.assert_close(found, expected, atol=0.2, rtol=0)
    assert 0 < figures["val_proposal"] < 1  # better than the mean, and what is random stays


def test_windows_keep_to_their_episodes() -> None:
    """Pins that no goal, and no action that is not there, comes from beyond an episode's end."""
    recorded = random_walks(episodes=5, length=9)
    starts = recorded.starts(2, held_out=False)
    assert set(starts % 9) == set(range(7))
    assert not recorded.held_out[starts].any()
    assert torch.isfinite(recorded.blocks(starts)).all()
    with pytest.raises(DataError, match="9 ticks"):
        recorded.starts(9, held_out=True)


def test_the_bank_finds_what_was_done_between_such_latents() -> None:
    bank = ActionBank(latent=1, block=2, size=400, horizon=2)
    BankStage(random_walks(), bank)
    start = torch.tensor([[0.5], [-0.5]])
    goal = torch.tensor([[2.0], [-2.0]])
    found = bank.nearest(start, goal, 3).sum((-1, -2))
    torch.testing.assert_close(found.mean(1), (goal - start)[:, 0], atol=0.6, rtol=0)


@pytest.fixture(scope="module")
def config() -> ModelConfig:
    return ModelConfig.model_validate(
        load_model_config("smwm").model_dump()
        | {
            "frames": 2,
            "encoder": {"type": "conv", "channels": [4, 8], "hidden": 16, "latent": 8},
            "dynamics": {"type": "residual_mlp", "hidden": 16},
            "inverse": {"type": "mlp", "hidden": 16},
        }
    )


@pytest.fixture(scope="module")
def trained(config: ModelConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that was through both stages, one after the other."""
    folder = tmp_path_factory.mktemp("stages")
    contract = blob_contract()
    write_blobs(folder / "blobs.h5", contract, episodes=12)
    torch.manual_seed(0)
    save_checkpoint(folder / "first.safetensors", information(config, contract), WorldModel(config, contract))
    small = {"steps": 3, "batch": 8, "validation": 0.25, "hidden": 8}
    with EpisodeStore(folder / "blobs.h5") as store:
        proposal = stage_config("proposal", small)
        run_stage("proposal", store, folder / "first.safetensors", proposal, folder / "second")
        bank = stage_config("bank", {"size": 20, "horizon": 3, "validation": 0.25})
        run_stage("bank", store, folder / "second" / "model.safetensors", bank, folder / "third")
        with pytest.raises(ConfigError, match="exists already"):
            run_stage("bank", store, folder / "first.safetensors", bank, folder / "third")
    return folder


def test_parts_travel_with_the_model_and_leave_it_as_it_was(trained: Path) -> None:
    first, both = (
        load_checkpoint(trained / name) for name in ("first.safetensors", "third/model.safetensors")
    )
    for name, value in first.model.state_dict().items():
        torch.testing.assert_close(both.model.state_dict()[name], value, rtol=0, atol=0)
    assert set(both.parts) == {"proposal", "bank"}
    assert "val_proposal" in both.info.figures
    assert both.part("bank").blocks.abs().sum() > 0
    with pytest.raises(CheckpointError, match="--stage bank"):
        first.part("bank")


@pytest.mark.parametrize("proposals", ["inverse", "bank", "inverse+bank+warm_start+zero"])
def test_plans_begin_at_what_is_proposed(trained: Path, proposals: str) -> None:
    checkpoint = load_checkpoint(trained / "third" / "model.safetensors")
    config = PlannerConfig(
        horizon=3, samples=16, elites=4, iterations=2, proposals=proposals, time_budget=60, replan=2
    )
    latents = np.random.default_rng(0).normal(size=(2, 5, 8)).astype(np.float32)
    plan = make_planner(checkpoint, config).plan_batch(*latents)
    assert plan.actions.shape == (5, 6, 2)
    assert np.isfinite(plan.actions).all()
    assert np.isfinite(plan.cost).all()


def test_the_inverse_planner_is_the_best_of_what_is_proposed(trained: Path) -> None:
    checkpoint = load_checkpoint(trained / "third" / "model.safetensors")
    config = PlannerConfig(planner="inverse", horizon=3, replan=2)
    latents = np.random.default_rng(0).normal(size=(2, 8)).astype(np.float32)
    first, second = (make_planner(checkpoint, config, seed).plan(*latents) for seed in (0, 1))
    np.testing.assert_array_equal(first.actions, second.actions)
    assert first.evaluations == 3 * 5  # five guesses of how far the goal is


def test_what_a_checkpoint_has_not_been_trained_for_is_refused(trained: Path) -> None:
    first, both = (
        load_checkpoint(trained / name) for name in ("first.safetensors", "third/model.safetensors")
    )
    with pytest.raises(CheckpointError, match="--stage proposal"):
        make_planner(first, PlannerConfig(proposals="inverse"))
    with pytest.raises(ConfigError, match="3 model steps, and the horizon is 4"):
        make_planner(both, PlannerConfig(proposals="bank", horizon=4))
    with pytest.raises(ConfigError, match="'guess' is unknown"):
        make_planner(both, PlannerConfig(proposals="guess"))
    with pytest.raises(ConfigError, match="stage 'reward' is unknown"):
        stage_config("reward", {})


def test_several_frames_see_a_goal_at_rest(trained: Path) -> None:
    """Pins that goals are trained on as they are shown later: the same picture again, without motion."""
    checkpoint: Checkpoint = load_checkpoint(trained / "first.safetensors")
    with EpisodeStore(trained / "blobs.h5") as store:
        recorded = look(checkpoint, store, 0.25, 0, quiet)
        pixels = store.read("pixels")
    np.testing.assert_allclose(
        recorded.latents[7], checkpoint.encode(pixels[[6, 7]]), atol=1e-5, err_msg="seen on the way"
    )
    np.testing.assert_allclose(recorded.goals[7], checkpoint.encode(pixels[[7, 7]]), atol=1e-5)
    np.testing.assert_allclose(
        recorded.latents[40], checkpoint.encode(pixels[[40, 40]]), atol=1e-5, err_msg="an episode's first"
    )
