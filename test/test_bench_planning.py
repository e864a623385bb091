"""The benches of planning: what they count, compare and leave out. How fast is no business of a test."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from typer.testing import CliRunner

from smwm_ros.cli import bench_deadline, bench_delay, bench_planning
from smwm_ros.cli.bench_parts import explored_latents, product_seconds, times, transition_flops
from smwm_ros.cli.bench_peer import bench_peer, official_checkpoint, official_weights
from smwm_ros.cli.bench_scaling import bench_scaling, plot_scaling
from smwm_ros.cli.main import app
from smwm_ros.cli.peer_solvers import PeerPlanner
from smwm_ros.errors import ConfigError
from smwm_ros.evaluation.protocol import Rollouts
from smwm_ros.models.checkpoint import Checkpoint, load_checkpoint
from smwm_ros.planning.config import PlannerConfig
from smwm_ros.planning.protocol import Planner, PlanResult
from smwm_ros.resources import checkpoint_path

TINY = PlannerConfig(samples=8, elites=4, iterations=1, proposals="warm_start")


@pytest.fixture(scope="module")
def reacher() -> Iterator[Checkpoint]:
    threads = torch.get_num_threads()
    yield load_checkpoint(checkpoint_path("reacher"))
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def official() -> Checkpoint:
    torch.manual_seed(0)
    return official_checkpoint()


def test_operations_by_hand(reacher: Checkpoint, official: Checkpoint) -> None:
    """Of the MLP 74-256-256-64, and of the official size: 649 GFLOP for CEM 300x30 over 5 steps (folded)."""
    assert transition_flops(reacher.model, 10) == 2 * (74 * 256 + 256 * 256 + 256 * 64)
    assert transition_flops(official.model, 10) * 300 * 30 * 5 / 1e9 == pytest.approx(649, abs=1)
    assert product_seconds(1e6, repeats=1) > 0
    assert times("t", [0.001, 0.002, 0.003]) == {"t": 2.0, "t_quartiles": [1.5, 2.5]}


def test_latents_are_the_robots(reacher: Checkpoint) -> None:
    """They are of pictures, in an order that is drawn, and as many as asked for."""
    latents = explored_latents(reacher, 30, seed=1)
    assert latents.shape == (30, 64)
    assert len(np.unique(latents, axis=0)) == 30
    np.testing.assert_array_equal(latents, explored_latents(reacher, 30, seed=1))


def official_step(weights: dict[str, torch.Tensor], token: torch.Tensor, block: torch.Tensor) -> torch.Tensor:
    """One transition of LeWM with a history of one, written down from its code: attention and all."""

    def linear(name: str, values: torch.Tensor) -> torch.Tensor:
        return F.linear(values, weights[f"{name}.weight"], weights.get(f"{name}.bias"))

    def norm(name: str, values: torch.Tensor) -> torch.Tensor:
        return F.layer_norm(values, (192,), weights[f"{name}.weight"], weights[f"{name}.bias"])

    smooth = F.conv1d(
        block[..., None],
        weights["action_encoder.patch_embed.weight"],
        weights["action_encoder.patch_embed.bias"],
    )[..., 0]
    condition = linear("action_encoder.embed.2", F.silu(linear("action_encoder.embed.0", smooth)))
    token = token + weights["predictor.pos_embedding"][0]
    for number in range(6):
        layer = f"predictor.transformer.layers.{number}"
        parts = linear(f"{layer}.adaLN_modulation.1", F.silu(condition)).chunk(6, -1)
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = parts
        seen = norm(f"{layer}.attn.norm", F.layer_norm(token, (192,), eps=1e-6) * (1 + scale) + shift)
        heads = linear(f"{layer}.attn.to_qkv", seen).view(-1, 3, 16, 1, 64).unbind(1)
        mixed = F.scaled_dot_product_attention(*heads).flatten(1)
        token = token + gate * linear(f"{layer}.attn.to_out.0", mixed)
        seen = norm(f"{layer}.mlp.net.0", F.layer_norm(token, (192,), eps=1e-6) * (1 + mlp_scale) + mlp_shift)
        change = linear(f"{layer}.mlp.net.4", F.gelu(linear(f"{layer}.mlp.net.1", seen)))
        token = token + mlp_gate * change
    hidden = linear("pred_proj.net.0", norm("predictor.transformer.norm", token))
    batch = (weights[f"pred_proj.net.1.{name}"] for name in ("running_mean", "running_var", "weight", "bias"))
    return linear("pred_proj.net.3", F.gelu(F.batch_norm(hidden, *batch)))


def test_the_peer_gets_the_same_model(official: Checkpoint) -> None:
    """Ours, with folded attention, predicts what the official one does with the weights that it gets."""
    generator = torch.Generator().manual_seed(1)
    latent, block = torch.randn(4, 192, generator=generator), torch.randn(4, 10, generator=generator)
    weights = official_weights(official.model.dynamics)
    predicted = official.model.dynamics(latent, block)
    torch.testing.assert_close(predicted, official_step(weights, latent, block), rtol=1e-4, atol=1e-5)
    assert (official.model.dynamics(latent, -block) - predicted).abs().mean() > 0.01  # actions count


def test_plans_of_the_official_size_without_a_peer() -> None:
    config = PlannerConfig(
        optimiser="cem", samples=4, elites=2, iterations=1, horizon=1, replan=5, cost="final"
    )
    figures = bench_peer(config, repeats=1)
    assert figures["ours_s"] > 0
    assert figures["ours_cost"] > 0
    assert figures["predictor_evaluations"] == 5  # the mean competes
    assert figures["peer_s"] is figures["speedup"] is figures["disagreement"] is None
    assert "--peer-python" in figures["peer"]
    json.dumps(figures, allow_nan=False)


class FakePeer:
    """Answers every question by the same standardised actions, and notes what it is asked."""

    def __init__(self, value: float) -> None:
        self.value = value
        self.asked: list[Any] = []

    def ask(self, question: Any) -> Any:
        self.asked.append(question)
        count = len(question["start"])
        actions = (
            np.full((count, question["horizon"], 10), self.value) + np.arange(question["horizon"])[:, None]
        )
        return {"actions": actions.tolist(), "seconds": 0.5, "cost": [2.0] * count}


def test_a_peers_plan_in_the_robots_units(reacher: Checkpoint) -> None:
    """Standardised actions become the contract's, within its limits; the next search begins at the rest."""
    peer: Any = FakePeer(-0.5)
    config = PlannerConfig(optimiser="mppi", samples=30, iterations=3, elites=5, std=1.0, horizon=2)
    planner: Planner = PeerPlanner(peer, "name", reacher, config, seed=3)
    latent = np.zeros(64, np.float32)
    plan = planner.plan(latent, latent)
    model, action = reacher.model, reacher.contract.action
    expected = (model.action_mean - 0.5 * model.action_std).double().numpy()
    np.testing.assert_allclose(plan.actions[0], expected, rtol=1e-6)
    assert plan.actions.shape == (10, 2)
    assert (plan.evaluations, plan.seconds, plan.cost) == (180, 0.5, 2.0)
    planner.plan(latent, latent)
    first, second = peer.asked
    assert first["solver"] == "MPPISolver"
    assert first["options"] == {"num_samples": 30, "n_steps": 3, "topk": 5, "var_scale": 1.0}
    assert first["before"] is None
    assert second["before"] == [[[0.5] * 10]]
    planner.reset()
    peer.value = 99.0
    beyond = planner.plan_batch(np.zeros((3, 64), np.float32), np.zeros((3, 64), np.float32))
    assert peer.asked[-1]["before"] is None
    np.testing.assert_allclose(beyond.actions, np.broadcast_to(action.high, (3, 10, 2)), rtol=1e-6)
    with pytest.raises(ConfigError, match="delay"):
        planner.plan(latent, latent, delay=1)


def test_planners_to_compare(reacher: Checkpoint) -> None:
    """The reference is CEM 300x30 of the papers; what is asked for besides differs from the robot's own."""
    contract = reacher.contract.model_copy(update={"planner": {"horizon": 8}})
    configs = bench_planning.entrant_configs(contract, ["light:samples=32,iterations=2"])
    assert list(configs) == ["default", "cem_300x30", "icem_300x30", "mppi_300x30", "light"]
    assert configs["default"].horizon == 8
    reference = configs["cem_300x30"]
    assert (reference.horizon, reference.cost, reference.elites, reference.std) == (5, "final", 30, 1.0)
    assert reference.replan == 25  # all of the five steps
    light = configs["light"]
    assert (light.horizon, light.samples, light.iterations) == (8, 32, 2)
    for wrong in ("light", ":samples=3", "light:samples"):
        with pytest.raises(ConfigError, match=r"expected NAME[:=]"):
            bench_planning.entrant_configs(contract, [wrong])


def test_planners_on_the_same_pairs(
    reacher: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A planner with the reference's settings has a peer, which is left out when there is none."""
    small = TINY.model_copy(
        update={"optimiser": "cem", "samples": 6, "elites": 3, "iterations": 2, "horizon": 2}
    )
    monkeypatch.setattr(bench_planning, "REFERENCE", small)
    monkeypatch.setattr(bench_planning, "PART", 2)
    mppi = small.model_copy(update={"optimiser": "mppi"})
    watched: list[tuple[str, int]] = []

    def watch(name: str, total: int) -> Any:
        return lambda done: watched.append((name, done))

    figures = bench_planning.bench_planning(
        reacher, {"default": TINY, "cem": small, "mppi": mppi}, pairs=3, offset=4, watch=watch
    )
    planners = figures["planners"]
    assert list(planners) == ["default", "cem", "mppi", "peer_cem", "peer_mppi"]
    assert planners["peer_cem"] is None
    assert planners["cem"]["predictor_evaluations"] == 2 * 2 * (6 + 1)
    assert planners["default"]["predictor_evaluations"] == 3 * (8 + 1)
    assert planners["default"]["settings"] == {
        "samples": 8,
        "elites": 4,
        "iterations": 1,
        "proposals": "warm_start",
    }
    low, high = planners["cem"]["plan_ms_quartiles"]
    assert 0 < low <= planners["cem"]["plan_ms"] <= high
    plans = 3 * 2  # of 8 ticks, one every 5
    solved = planners["cem"]["success_any"] / 100 * 3
    assert planners["cem"]["success_per_1000_evaluations"] == pytest.approx(
        1000 * solved / plans / 28, rel=0.01
    )
    assert [done for name, done in watched if "reaching" in name] == [2, 3]
    json.dumps(figures, allow_nan=False)
    bench_planning.plot_planning({"reacher": figures}, tmp_path / "plots" / "planning.png")
    assert (tmp_path / "plots" / "planning.png").stat().st_size > 10_000


class Slow:
    """Plans with and without actions, rounds and numbers, in turn."""

    def __init__(self) -> None:
        self.made = 0

    def plan(self, latent: np.ndarray, goal: np.ndarray) -> PlanResult:
        kind = self.made % 4
        self.made += 1
        actions = [np.zeros((15, 2)), np.zeros((0, 2)), np.full((15, 2), np.nan), np.zeros((15, 2))][kind]
        rounds = 0 if kind == 3 else 2
        return PlanResult(actions, np.array(0.0), rounds * 3 * 50, 0.0, rounds, 0.0)


def test_answers_that_are_none_are_counted(reacher: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    """No actions, or no numbers: empty. The rest of the last plan: an answer, but said."""
    slow = Slow()
    monkeypatch.setattr(bench_deadline, "make_planner", lambda *_: slow)
    monkeypatch.setattr(bench_deadline, "explored_latents", lambda *_: np.zeros((2, 64), np.float32))
    config = TINY.model_copy(update={"time_budget": 1e-9})
    figures = bench_deadline.bench_deadline(reacher, config, plans=8, busy=0)
    assert slow.made == 8 + bench_deadline.WARM_UP
    assert (figures["empty"], figures["unsearched"], figures["missed"]) == (4, 2, 8)
    assert figures["samples_median"] == 50


def test_plans_beside_busy_processes(reacher: Checkpoint) -> None:
    """A real planner gives an answer each time; what made the machine busy is gone afterwards."""
    config = TINY.model_copy(update={"time_budget": 60.0})
    figures = bench_deadline.bench_deadline(reacher, config, plans=5, busy=0)
    assert (figures["missed"], figures["empty"], figures["unsearched"]) == (0, 0, 0)
    assert 0 < figures["p50_ms"] <= figures["p99_ms"] <= figures["p999_ms"] <= figures["max_ms"]
    assert figures["samples_median"] == 9  # the mean competes
    with bench_deadline.busy_processes(2) as running:
        assert [process.poll() for process in running] == [None, None]
    assert all(process.poll() is not None for process in running)


def test_delays_in_ticks(reacher: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    """At 20 Hz 101 ms are three ticks; what a delay costs is told against none."""
    asked: list[tuple[int, bool]] = []

    def run(task: Any, *_: Any, delay: int, compensate: bool) -> Rollouts:
        asked.append((delay, compensate))
        reached = delay == 0 or compensate
        states = np.zeros((2, 9, 4)) if reached else np.full((2, 9, 4), 9.0)
        return Rollouts(goals[:, None] + states, np.empty(0))

    with bench_delay.make_task(reacher.contract) as task:
        problems = bench_delay.draw_pairs(task, 2, 4, 0)
    goals = np.array([pair.goal_state for pair in problems.pairs])
    monkeypatch.setattr(bench_delay, "draw_pairs", lambda *_, **__: problems)
    monkeypatch.setattr(bench_delay, "run_planner", run)
    figures = bench_delay.bench_delay(reacher, TINY, [100, 101], pairs=2, offset=4)
    assert asked == [(0, True), (2, True), (2, False), (3, True), (3, False)]
    assert "with" not in figures
    row = figures["by_delay"][0]
    assert (row["with"]["success_last"], row["with"]["lost_last"]) == (100.0, 0.0)
    assert (row["without"]["success_any"], row["without"]["lost_any"]) == (0.0, 100.0)


def test_no_delay_is_the_same_with_and_without_compensation(reacher: Checkpoint) -> None:
    figures = bench_delay.bench_delay(reacher, TINY, [0], pairs=2, offset=5, seed=1)
    assert figures["with"] == figures["without"]
    assert figures["with"]["lost_last"] == 0.0
    assert figures["ticks"] == 0


def test_what_grows(reacher: Checkpoint, tmp_path: Path) -> None:
    """Each size is planned with what it says, the robots in one batch."""
    growth = {"samples": (4, 16), "horizon": (1, 6), "robots": (1, 3)}
    result = bench_scaling(reacher, TINY, growth, repeats=2)
    counts = {what: [row["predictor_evaluations"] for row in result[what]] for what in growth}
    assert counts == {"samples": [3 * 5, 3 * 17], "horizon": [9, 6 * 9], "robots": [3 * 9, 3 * 3 * 9]}
    assert all(row["floor_ms"] > 0 and row["plan_ms"] > 0 for what in growth for row in result[what])
    plot_scaling(result, tmp_path / "scaling.png")
    assert (tmp_path / "scaling.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["planning", "--tasks", "reacher", "--only", "best"], "--only best: there are default"),
        (["planning", "--checkpoint", "x.safetensors"], "--checkpoint is of one robot"),
        (["delay", "--ms", "soon"], "expected milliseconds"),
        (["delay", "--ms", "-50"], "at least 0"),
        (["deadline", "--set", "samples=0"], "samples"),
        (["peer", "--set", "colour=red"], "colour"),
    ],
)
def test_bad_options(arguments: list[str], reason: str) -> None:
    result = CliRunner().invoke(app, ["bench", *arguments])
    assert isinstance(result.exception, ConfigError)
    assert reason in str(result.exception)


@pytest.mark.parametrize("command", ["planning", "peer", "deadline", "delay", "scaling"])
def test_help(command: str) -> None:
    assert CliRunner().invoke(app, ["bench", command, "--help"]).exit_code == 0
