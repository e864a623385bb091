"""Objective terms against known answers, and the weight that balances itself."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from smwm_ros.errors import ConfigError
from smwm_ros.models.config import ModelConfig, load_model_config
from smwm_ros.models.objectives import (
    TERMS,
    DeltaInverseTerm,
    ForwardTerm,
    RolloutTerm,
    SIGRegTerm,
    StraightTerm,
)
from smwm_ros.models.world_model import WorldModel
from smwm_ros.resources import find_contract
from smwm_ros.training.learner import Learner


class Add(nn.Module):
    """Dynamics z' = z + a, for actions as large as latents."""

    def forward(self, latent: Tensor, block: Tensor) -> Tensor:
        return latent + block


class Stub(nn.Module):
    """The parts of a world model that terms ask for."""

    def __init__(self) -> None:
        super().__init__()
        self.dynamics = Add()
        self.inverse = nn.Identity()


MODEL = Stub()


def gaussian(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def sigreg(latents: Tensor) -> float:
    torch.manual_seed(0)
    return float(SIGRegTerm(projections=256)(MODEL, latents, torch.zeros(len(latents), 1, 1)))


def test_sigreg_of_a_gaussian() -> None:
    """Under the null hypothesis its mean is ∫ (1 - exp(-t²)) exp(-t²/2) dt, whatever the batch."""
    expected = math.sqrt(2 * math.pi) * (1 - math.sqrt(1 / 3)) - 0.007  # what lies beyond |t| = 3
    for batch in (64, 512):
        assert sigreg(gaussian(batch, 24, 16)) == pytest.approx(expected, abs=0.1)


def test_sigreg_of_a_point() -> None:
    """For collapsed latents the statistic is B ∫ (1 - exp(-t²/2))² exp(-t²/2) dt."""
    integral = math.sqrt(2 * math.pi) * (1 + math.sqrt(1 / 3) - 2 * math.sqrt(1 / 2)) - 0.006
    assert sigreg(torch.zeros(128, 2, 8)) == pytest.approx(128 * integral, rel=0.01)


@pytest.mark.parametrize(
    "change",
    [
        lambda z: 2 * z,
        lambda z: 0.5 * z,
        lambda z: z + 0.7,
        lambda z: z * torch.tensor([1.0] * 4 + [0.0] * 4),
        lambda z: z.sign(),
        lambda z: (z.abs() * 3 - 2) * z.sign(),
    ],
    ids=["wide", "narrow", "shifted", "half its rank", "two points", "bimodal"],
)
def test_sigreg_tells_what_is_not_gaussian(change: object) -> None:
    """Wrong scale, mean, rank and shape all raise the statistic well above a Gaussian's."""
    latents = gaussian(512, 4, 8)
    assert sigreg(change(latents)) > 2 * sigreg(latents)  # type: ignore[operator]


def test_sigreg_pulls_towards_unit_scale() -> None:
    """Its gradient shrinks what is too wide and widens what is too narrow."""
    for scale, sign in ((1.5, 1), (0.6, -1)):
        factor = torch.tensor(scale, requires_grad=True)
        SIGRegTerm(projections=64)(MODEL, factor * gaussian(256, 2, 8), torch.zeros(256, 1, 1)).backward()
        assert factor.grad is not None
        assert sign * float(factor.grad) > 0


def test_straight_by_hand() -> None:
    """A line costs nothing, a right angle 1, going back 2, whatever the speeds."""
    term = StraightTerm(window=2)
    for last, cost in (((4.0, 0.0), 0.0), ((1.0, 5.0), 1.0), ((0.5, 0.0), 2.0)):
        path = torch.tensor([[[0.0, 0.0], [1.0, 0.0], last]])
        assert float(term(MODEL, path, torch.zeros(1, 2, 1))) == pytest.approx(cost, abs=1e-6)


def test_rollout_by_hand() -> None:
    """It is zero for a true model; one wrong action shows in all the steps after it."""
    blocks = gaussian(2, 3, 4)
    latents = torch.cat([torch.zeros(2, 1, 4), blocks.cumsum(1)], 1)
    assert float(RolloutTerm(window=3, steps=3)(MODEL, latents, blocks)) == pytest.approx(0, abs=1e-12)
    wrong = blocks.clone()
    wrong[:, 1] += 1
    assert float(RolloutTerm(window=3, steps=3)(MODEL, latents, wrong)) == pytest.approx(2 / 3)
    assert float(RolloutTerm(window=3, steps=1)(MODEL, latents, wrong)) == pytest.approx(0, abs=1e-12)
    assert float(ForwardTerm()(MODEL, latents, wrong)) == pytest.approx(1 / 3)
    absolute = RolloutTerm(window=3, steps=3, error="absolute")
    assert float(absolute(MODEL, latents, blocks + 2)) == pytest.approx((2 + 4 + 6) / 3)


def test_delta_inverse_pairs_a_change_with_the_actions_between() -> None:
    """The first action of a window moves dimension 0, the second dimension 1: the change is the answer."""
    term = DeltaInverseTerm(latent=2, block=1, window=2, steps=2, scale=3.0)
    term.actions = nn.Identity()  # type: ignore[assignment]
    actions = gaussian(4, 2, 1)
    latents = torch.zeros(4, 3, 2)
    latents[:, 1:, 0] = actions[:, :1, 0]
    latents[:, 2, 1] = actions[:, 1, 0]
    assert float(term(MODEL, latents / 3, actions)) == pytest.approx(0, abs=1e-12)
    assert float(term(MODEL, latents / 3, actions.flip(1))) > 0.1


def test_delta_inverse_starts_at_every_moment() -> None:
    """With nothing inferred, the loss is the mean square of each start's actions."""

    class Nothing(nn.Module):
        def forward(self, change: Tensor) -> Tensor:
            return torch.zeros(*change.shape[:-1], 6)

    term = DeltaInverseTerm(latent=5, block=3, window=4, steps=2)
    term.actions = Nothing()  # type: ignore[assignment]
    blocks = gaussian(2, 4, 3)
    expected = torch.stack([blocks[:, start : start + 2] for start in range(3)]).square().mean()
    assert float(term(MODEL, gaussian(2, 5, 5), blocks)) == pytest.approx(float(expected))


def test_terms_that_do_not_fit_the_window() -> None:
    """More steps than a window has are refused, with both numbers."""
    for make in (
        lambda: RolloutTerm(window=2, steps=3),
        lambda: DeltaInverseTerm(latent=2, block=2, window=2, steps=3),
        lambda: StraightTerm(window=1),
    ):
        with pytest.raises(ConfigError, match=r"steps do not fit into a training window of [12]"):
            make()


def small(**changes: object) -> ModelConfig:
    """Return smwm with small networks and other keys changed."""
    content = load_model_config("smwm").model_dump() | {
        "window": 2,
        "encoder": {"type": "conv", "channels": [4, 4], "hidden": 8, "latent": 8},
        "dynamics": {"type": "residual_mlp", "hidden": 16},
    }
    return ModelConfig.model_validate(content | changes)


def learner_of(config: ModelConfig) -> Learner:
    torch.manual_seed(0)
    return Learner(WorldModel(config, find_contract("reacher")), config)


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    frames = torch.randint(0, 255, (6, 3, 1, 64, 64, 3), generator=generator).to(torch.uint8)
    return frames, torch.randn(6, 2, 5, 2, generator=generator)


def play(learner: Learner, values: list[float]) -> list[float]:
    """Let the inverse loss take these values in turn; return the weight after each."""
    weights = []
    for value in values:
        learner._follow(torch.tensor([value]))
        weights.append(learner.weights["inverse"])
    return weights


def test_automatic_weight_keeps_its_term_near_its_best() -> None:
    """It falls while the term is within its slack of its best, rises when it is not, within bounds."""
    learner = learner_of(
        small(terms={"forward": 1.0, "inverse": {"weight": "auto", "slack": 0.2, "start": 5.0}})
    )
    falling = play(learner, [1.0, 0.5] + [0.5] * 200)
    assert falling[0] == pytest.approx(5.0 * math.exp(-0.02 * 0.2))
    assert all(after < before for before, after in itertools.pairwise(falling))
    rising = play(learner, [0.7] * 300)
    assert rising[-1] > rising[100] > min(rising)
    learner.log_weights.fill_(math.log(900))
    assert play(learner, [50.0] * 20)[-1] == pytest.approx(1e3)
    learner.log_weights.fill_(math.log(0.0011))
    learner.means.fill_(0.1)
    assert play(learner, [0.1] * 50)[-1] == pytest.approx(1e-3)


def test_automatic_weight_finds_the_edge_of_the_slack() -> None:
    """A term that suffers as its weight falls, 0.2 + 0.1 / weight, ends at 1.1 times its best."""
    learner = learner_of(small(terms={"forward": 1.0, "inverse": "auto"}))
    weight, best = 10.0, 0.21
    for _ in range(3000):
        (weight,) = play(learner, [max(best, 0.2 + 0.1 / weight)])
    assert 0.2 + 0.1 / weight == pytest.approx(1.1 * best, rel=0.03)


def test_automatic_weight_is_in_the_loss() -> None:
    """The loss is the fixed terms plus the automatic ones by their weights of the moment."""
    learner = learner_of(small(terms={"forward": 2.0, "inverse": "auto", "sigreg": "auto"}))
    torch.manual_seed(0)
    loss, values = learner(*batch())
    expected = 2 * values["forward"] + sum(weight * values[name] for name, weight in learner.weights.items())
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    loss.backward()


def test_automatic_weight_rests_while_judging() -> None:
    """Validation neither moves the weight nor needs gradients."""
    learner = learner_of(small(terms={"forward": 1.0, "inverse": "auto"})).eval()
    with torch.inference_mode():
        learner(*batch())
    assert learner.weights == {"inverse": pytest.approx(10.0)}


@pytest.mark.parametrize(
    ("terms", "reason"),
    [
        ({"forward": "auto"}, "at least one weight must be a number"),
        ({"forward": True}, "expected a number greater than 0, or auto; found True"),
        ({"forward": "much"}, "found 'much'"),
        ({"forward": math.inf}, "found inf"),
        ({}, "at least 1 item"),
    ],
)
def test_weights_that_cannot_be(terms: dict[str, object], reason: str) -> None:
    """A weight is a positive number; only one can be balanced, and against something."""
    with pytest.raises(ValueError, match=reason):
        small(terms=terms)


def test_term_settings_that_cannot_be() -> None:
    """A term's unknown setting is named with those it takes; a value it cannot use with the reason."""
    with pytest.raises(ConfigError, match=r"terms.sigreg: unknown knobs; it takes knots, projections"):
        learner_of(small(terms={"forward": 1, "sigreg": {"weight": 1, "knobs": 2}}))
    with pytest.raises(ConfigError, match=r"terms.forward: cannot be built with .*cubic"):
        learner_of(small(terms={"forward": {"weight": 1, "error": "cubic"}}))
    with pytest.raises(ValueError, match=r"terms.inverse needs an inverse model"):
        small(inverse={"type": "none"})


def test_a_new_term_is_a_class_and_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A term from elsewhere gets its settings and sizes, and its value is in the loss."""

    class Small(nn.Module):
        def __init__(self, *, latent: int, power: int = 2) -> None:
            super().__init__()
            self.latent, self.power = latent, power

        def forward(self, model: object, latents: Tensor, blocks: Tensor) -> Tensor:
            return latents.abs().pow(self.power).mean()

    monkeypatch.setitem(TERMS, "small", Small)
    preset = tmp_path / "mine.yaml"
    preset.write_text(
        "encoder: {type: conv, channels: [4], hidden: 8, latent: 8}\ndynamics: {type: residual_mlp}\n"
        "inverse: {type: none}\nterms: {forward: 1.0, small: {weight: 0.5, power: 4}}\n"
    )
    config = load_model_config(preset)
    learner = learner_of(config)
    assert learner.terms[1].latent == 8
    frames, actions = batch()
    loss, values = learner(frames[:, :2], actions[:, :1])
    assert loss.item() == pytest.approx((values["forward"] + 0.5 * values["small"]).item())
