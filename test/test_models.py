"""World models, presets, objective terms and checkpoints."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import information
from safetensors.torch import load_file, save_file

from smwm_ros.contract import Contract
from smwm_ros.errors import CheckpointError, ConfigError
from smwm_ros.models.checkpoint import load_checkpoint, save_checkpoint
from smwm_ros.models.config import ModelConfig, load_model_config
from smwm_ros.models.objectives import ForwardTerm, InverseTerm
from smwm_ros.models.statistics import effective_rank, latent_scale
from smwm_ros.models.world_model import WorldModel
from smwm_ros.resources import find_contract


@pytest.fixture(scope="module")
def contract() -> Contract:
    return find_contract("reacher")


@pytest.fixture(scope="module")
def config() -> ModelConfig:
    return load_model_config("smwm")


@pytest.fixture
def model(config: ModelConfig, contract: Contract) -> WorldModel:
    torch.manual_seed(0)
    return WorldModel(config, contract).eval()


class StandStill(torch.nn.Module):
    def forward(self, latent: torch.Tensor, block: torch.Tensor) -> torch.Tensor:
        return latent


class NoAction(torch.nn.Module):
    def forward(self, latent: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
        return torch.zeros(*latent.shape[:-1], 10)


@pytest.fixture
def saved(tmp_path: Path, config: ModelConfig, contract: Contract, model: WorldModel) -> Path:
    path = tmp_path / "model.safetensors"
    save_checkpoint(path, information(config, contract, step_distance=0.5, step_error=0.1), model)
    return path


def test_shapes(model: WorldModel, contract: Contract) -> None:
    """Images become latents, latents and actions become futures, two latents become an action block."""
    latents = model.encode(torch.zeros(3, 1, 64, 64, 3, dtype=torch.uint8))
    blocks = model.standardise(torch.zeros(3, 4, contract.block, contract.action.size))
    assert latents.shape == (3, 64)
    assert blocks.shape == (3, 4, contract.block_size)
    assert model.rollout(latents, blocks).shape == (3, 4, 64)
    assert model.inverse(latents, latents).shape == (3, contract.block_size)


def test_rollout_is_repeated_prediction(model: WorldModel) -> None:
    """An open-loop rollout of H steps is the forward model applied H times."""
    latent, blocks = torch.randn(2, 64), torch.randn(2, 3, 10)
    expected = latent
    for step in range(3):
        expected = model.dynamics(expected, blocks[:, step])
    torch.testing.assert_close(model.rollout(latent, blocks)[:, -1], expected)


def test_terms_by_hand(model: WorldModel) -> None:
    """Terms are means of squared errors; with dynamics that stand still, that of the latents' steps."""
    latents, blocks = torch.randn(2, 3, 64), torch.randn(2, 2, 10)
    model.dynamics, model.inverse = StandStill(), NoAction()
    assert ForwardTerm()(model, latents, blocks).item() == pytest.approx(
        latents.diff(dim=1).square().mean().item()
    )
    assert InverseTerm()(model, latents, blocks).item() == pytest.approx(blocks.square().mean().item())


def test_gradients_reach_the_encoder_through_both_latents(config: ModelConfig, contract: Contract) -> None:
    """There is no stop-gradient: the loss moves the encoder through the target as well."""
    model = WorldModel(config, contract)
    latents = torch.randn(4, 2, 64, requires_grad=True)
    ForwardTerm()(model, latents, torch.randn(4, 1, 10)).backward()
    assert latents.grad is not None
    assert (latents.grad.abs().sum((0, 2)) > 0).all()


def test_effective_rank_counts_directions() -> None:
    """K equally strong directions have rank k; a collapsed latent has scale 0."""
    generator = torch.Generator().manual_seed(0)
    basis, _ = torch.linalg.qr(torch.randn(4000, 5, generator=generator))
    latents = torch.cat([basis - basis.mean(0), torch.zeros(4000, 11)], 1)
    assert effective_rank(latents) == pytest.approx(5, abs=0.1)
    assert effective_rank(torch.ones(10, 3)) == pytest.approx(1.0)
    assert latent_scale(torch.ones(10, 3)) == 0


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("no_such_key: 1", "no_such_key: unknown key"),
        ("encoder: {type: magic}", "encoder.type 'magic' is unknown"),
        ("terms: {forward: 0}", "terms.forward.weight: .*greater than 0"),
        ("terms: {magic: 1}", "terms \\['magic'\\] are unknown"),
        ("training: {batch: 1}", "training.batch"),
        ("- a list", "expected a mapping"),
    ],
)
def test_bad_presets(tmp_path: Path, text: str, reason: str) -> None:
    """A preset that cannot be used names file, key and reason."""
    whole: dict[str, str] = {
        "encoder": "encoder: {type: conv}",
        "dynamics": "dynamics: {type: residual_mlp}",
        "inverse": "inverse: {type: mlp}",
        "terms": "terms: {forward: 1}",
    }
    lines = [line for key, line in whole.items() if not text.startswith(f"{key}:")]
    path = tmp_path / "preset.yaml"
    path.write_text(text if text.startswith("-") else "\n".join([*lines, text]))
    with pytest.raises(ConfigError, match=f"preset.yaml: .*{reason}|preset.yaml: {reason}"):
        load_model_config(path)


def test_unknown_preset_names_the_known_ones() -> None:
    """A misspelt preset is answered with the list of those that exist."""
    with pytest.raises(ConfigError, match=r"'smvm'; there are .*smwm"):
        load_model_config("smvm")


def test_unknown_argument_of_a_slot(config: ModelConfig, contract: Contract) -> None:
    """A key that the slot's class does not take is refused, with those it takes."""
    slot = config.encoder.model_copy(update={"type": "conv"})
    wrong = type(slot).model_validate({"type": "conv", "depth": 3})
    with pytest.raises(ConfigError, match="unknown depth; it takes channels"):
        WorldModel(config.model_copy(update={"encoder": wrong}), contract)


def test_checkpoint_round_trip(saved: Path, model: WorldModel, contract: Contract) -> None:
    """What was saved comes back: weights, contract, calibration, and the same id each time."""
    checkpoint = load_checkpoint(saved)
    image = np.random.default_rng(0).integers(0, 255, (1, 64, 64, 3), dtype=np.uint8)
    expected = model.encode(torch.from_numpy(image)[None])[0].detach().numpy()
    np.testing.assert_allclose(checkpoint.encode(image), expected, rtol=1e-5, atol=1e-6)
    assert checkpoint.contract == contract.model_copy(update={"planner": {}})  # how to plan is the robot's
    assert checkpoint.id == load_checkpoint(saved).id
    assert checkpoint.id.startswith("smwm-reacher-")
    checkpoint.require(contract)


def test_distance_and_surprise_have_units(saved: Path) -> None:
    """Distances count model steps (0.5 here), surprise counts median errors (0.1 here)."""
    checkpoint = load_checkpoint(saved)
    latent = np.zeros(64, np.float32)
    assert checkpoint.distance(latent, latent + 1) == pytest.approx(2.0)
    block = np.zeros((5, 2))
    predicted = checkpoint.predict(latent[None], block[None, None])[0, 0]
    assert checkpoint.surprise(latent, block, predicted + 0.2) == pytest.approx(2.0, rel=1e-4)


def test_another_robot_is_refused(saved: Path, contract: Contract) -> None:
    """A contract that differs in what the model depends on is refused, naming each field."""
    other = contract.model_copy(update={"block": 4})
    with pytest.raises(CheckpointError, match="block: 4 here, 5 there"):
        load_checkpoint(saved).require(other)
    one_joint = contract.action.model_copy(update={"dimensions": contract.action.dimensions[:1]})
    with pytest.raises(CheckpointError, match=r"trained for another robot.*\n.*action"):
        load_checkpoint(saved).require(contract.model_copy(update={"action": one_joint}))


def test_a_model_that_does_not_fit_its_weights(
    tmp_path: Path, config: ModelConfig, contract: Contract, model: WorldModel
) -> None:
    """Weights of other sizes than the preset's, or a preset this version cannot build, name the file."""
    path = tmp_path / "other.safetensors"
    small = type(config.encoder).model_validate({"type": "conv", "latent": 8})
    save_checkpoint(path, information(config.model_copy(update={"encoder": small}), contract), model)
    with pytest.raises(CheckpointError, match=r"other.safetensors: not a whole smwm(.|\n)*size mismatch"):
        load_checkpoint(path)
    newer = type(config.encoder).model_validate({"type": "conv", "attention": True})
    save_checkpoint(path, information(config.model_copy(update={"encoder": newer}), contract), model)
    with pytest.raises(CheckpointError, match="its model cannot be built here: conv: unknown attention"):
        load_checkpoint(path)


def test_damaged_checkpoints(saved: Path, tmp_path: Path) -> None:
    """Missing, truncated, foreign, pickled and non-finite files are each one clear error."""
    content = saved.read_bytes()
    bad = tmp_path / "bad.safetensors"
    cases: dict[str, Any] = {
        "truncated": content[: len(content) // 2],
        "empty": b"",
        "random": bytes(range(256)) * 10,
        "pickle": pickle.dumps({"a": 1}),
        "header": (1 << 62).to_bytes(8, "little") + content[8:],
    }
    for name, data in cases.items():
        bad.write_bytes(data)
        with pytest.raises(CheckpointError, match="not a whole smwm checkpoint"):
            load_checkpoint(bad)
        assert name
    with pytest.raises(CheckpointError, match="cannot read"):
        load_checkpoint(tmp_path / "absent.safetensors")
    save_file({"a": torch.zeros(2)}, bad)
    with pytest.raises(CheckpointError, match="not a whole smwm checkpoint"):
        load_checkpoint(bad)


def test_weights_that_are_not_finite(
    tmp_path: Path, config: ModelConfig, contract: Contract, model: WorldModel
) -> None:
    """A diverged model is refused when it is loaded, not when it moves a robot."""
    path = tmp_path / "nan.safetensors"
    next(model.parameters()).data[:] = torch.nan
    save_checkpoint(path, information(config, contract), model)
    with pytest.raises(CheckpointError, match="not finite"):
        load_checkpoint(path)


def test_another_format_version(
    tmp_path: Path, config: ModelConfig, contract: Contract, model: WorldModel
) -> None:
    """A checkpoint of another format version says so instead of failing on a detail."""
    path = tmp_path / "old.safetensors"
    save_checkpoint(path, information(config, contract).model_copy(update={"format": 0}), model)
    with pytest.raises(CheckpointError, match="format 0, expected 1"):
        load_checkpoint(path)


def test_failed_save_leaves_nothing(
    tmp_path: Path, config: ModelConfig, contract: Contract, model: WorldModel
) -> None:
    """When the file cannot be put in place, no half-written one stays behind."""
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").touch()
    with pytest.raises(OSError, match="taken"):
        save_checkpoint(tmp_path / "taken", information(config, contract), model)
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_checkpoint_holds_only_tensors_and_json(saved: Path) -> None:
    """The file is plain safetensors: any reader of that format opens it."""
    assert set(load_file(saved)) >= {"action_mean", "action_std", "pixel_mean"}
