"""How the forward model runs in a search: in another arithmetic, compiled, and when compiling fails."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from smwm_ros.models.adaln import SingleKeyAttention
from smwm_ros.models.config import load_model_config
from smwm_ros.models.world_model import WorldModel
from smwm_ros.planning import forward as module
from smwm_ros.planning.forward import forward
from smwm_ros.resources import find_contract


@pytest.fixture(params=["smwm", "vit_tiny_224"])
def model(request: pytest.FixtureRequest) -> WorldModel:
    """A small and an official-size forward model, ready for inference."""
    torch.manual_seed(0)
    made = WorldModel(load_model_config(request.param), find_contract("reacher")).eval().requires_grad_(False)
    for part in made.modules():
        if isinstance(part, SingleKeyAttention):
            part.fold()
        if (modulation := getattr(part, "modulation", None)) is not None:
            modulation.reset_parameters()  # untrained, all gates are zero
    return made


def problem(model: WorldModel) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return (
        torch.randn(1, 4, model.latent_size, generator=generator),
        torch.randn(1, 4, 3, 10, generator=generator),
    )


def test_the_default_is_the_models_own_rollout(model: WorldModel) -> None:
    assert forward(model) == model.rollout


def test_bfloat16_predicts_the_same_but_for_its_precision_and_leaves_the_model_alone(
    model: WorldModel,
) -> None:
    """Pins that latents come out in float32, that the weights it folds are converted, and that copies are."""
    latent, blocks = problem(model)
    exact = model.rollout(latent, blocks)
    rough = forward(model, half=True)(latent, blocks)
    assert rough.dtype == torch.float32
    assert not torch.equal(rough, exact)
    moved = (exact - latent[:, :, None]).square().mean().sqrt()
    assert (rough - exact).square().mean().sqrt() < 0.05 * moved
    assert torch.equal(model.rollout(latent, blocks), exact)


def test_on_a_cpu_nothing_is_compiled_and_one_is_told(
    model: WorldModel, caplog: pytest.LogCaptureFixture
) -> None:
    assert forward(model, compiled=True) == model.rollout
    assert "CUDA only" in caplog.text


def test_what_cannot_be_compiled_runs_as_it_is(
    model: WorldModel, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Pins the fall back: told once, the plan is made all the same; a mistake of the caller's stays one."""

    def failing(function: Callable[..., Any], **_: Any) -> Callable[..., Any]:
        def run(*arguments: Any) -> Any:
            raise RuntimeError("no compiler")

        return run

    monkeypatch.setattr(torch, "compile", failing)
    latent, blocks = problem(model)
    rollout = module._Compiled(model.rollout)
    for _ in range(2):
        assert torch.equal(rollout(latent, blocks), model.rollout(latent, blocks))
    assert caplog.text.count("no compiler") == 1
    with pytest.raises(RuntimeError):
        rollout(latent, blocks[..., :3])
