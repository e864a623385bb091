"""How long a plan takes with a world model of the official size, beside stable-worldmodel and the floor."""

from __future__ import annotations

import copy
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from smwm_ros.cli.bench_parts import now, product_seconds, transition_flops
from smwm_ros.cli.peer import figures
from smwm_ros.cli.peer_solvers import PeerPlanner, start_solvers
from smwm_ros.models.adaln import AdaLNBlock, AdaLNTransformer
from smwm_ros.models.checkpoint import Calibration, Checkpoint, CheckpointInfo
from smwm_ros.models.config import load_model_config
from smwm_ros.models.world_model import WorldModel
from smwm_ros.planning.config import PlannerConfig
from smwm_ros.planning.mpc import MPC
from smwm_ros.resources import find_contract

PRESET = "vit_tiny_224"
FREE = 1e3
"""Limits of the actions, which the peer's CEM does not know: none to speak of."""


def bench_peer(
    config: PlannerConfig,
    *,
    repeats: int,
    threads: int = 1,
    device: str = "cpu",
    peer_python: Path | None = None,
    seed: int = 0,
    progress: Callable[[int], None] = lambda done: None,
) -> dict[str, Any]:
    """
    Plan with one and the same forward model: ours here, in the peer its own LeWM with our weights.

    The weights are random, and so are the latents; each goal is where some sequence of actions leads, so that
    it can be reached. The two and the floor, a matrix product in float32 of as many floating-point operations
    as our plan's transitions have, take turns.

    Args:
        config: of both.
        repeats: problems; one more comes first and is not counted.
        threads: of the arithmetic of each.
        device: where.
        peer_python: interpreter of an environment that has stable-worldmodel.
        seed: of weights and problems.
        progress: called with the problems done.

    Returns:
        ``ours_s``, ``peer_s``, ``floor_s`` and ``floor_bfloat16_s`` with [least, largest]; ``speedup``
        (median of the problems' ratios) and ``floor_ratio``; ``ours_cost`` and ``peer_cost``, medians of the
        squared distance at the end of the plans, both by our model; ``disagreement``, the largest relative
        difference of the peer's model from ours in judging the peer's plans. The peer's are None without it.

    Raises:
        ConfigError: the peer's interpreter or its packages do not work.
    """
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    checkpoint = official_checkpoint(device)
    block = checkpoint.contract.block_size
    generator = np.random.default_rng(seed)
    planner = MPC(checkpoint, config, seed)
    rounds: dict[str, list[Any]] = {
        name: [] for name in ("ours", "peer", "floor", "bfloat16", "ours_cost", "peer_cost", "disagreement")
    }
    flops = transition_flops(checkpoint.model, block) * planned(config)
    with (
        tempfile.TemporaryDirectory(prefix="smwm-bench-") as folder,
        start_solvers(
            peer_python,
            checkpoint,
            Path(folder),
            threads=threads,
            official=official_weights(checkpoint.model.dynamics),
        ) as peer,
    ):
        other = PeerPlanner(peer, "official", checkpoint, config, seed) if peer_python else None
        for number in range(repeats + 1):
            start = generator.standard_normal(checkpoint.latent_size).astype(np.float32)
            goal = _end(checkpoint, start, generator.standard_normal((config.horizon, block)))
            planner.reset()
            began = now(device)
            plan = planner.plan(start, goal)
            found: dict[str, Any] = {
                "ours": now(device) - began,
                "ours_cost": _cost(checkpoint, start, goal, plan.actions),
                "floor": product_seconds(flops, device, repeats=1),
                "bfloat16": product_seconds(flops, device, torch.bfloat16, repeats=1),
            }
            if other:
                other.reset()
                theirs = other.plan(start, goal)
                cost = _cost(checkpoint, start, goal, theirs.actions)
                found |= {
                    "peer": theirs.seconds,
                    "peer_cost": cost,
                    "disagreement": abs(float(theirs.cost) - cost) / cost,
                }
            for name, values in rounds.items():
                values.append(found.get(name))
            progress(number + 1)
    rounds = {name: values[1:] for name, values in rounds.items()}
    return {
        **figures("ours_s", rounds["ours"]),
        **figures("peer_s", rounds["peer"]),
        **figures("floor_s", rounds["floor"]),
        **figures("floor_bfloat16_s", rounds["bfloat16"]),
        "speedup": _ratio(rounds["peer"], rounds["ours"]),
        "floor_ratio": _ratio(rounds["ours"], rounds["floor"]),
        **figures("ours_cost", rounds["ours_cost"]),
        **figures("peer_cost", rounds["peer_cost"]),
        "disagreement": max(rounds["disagreement"]) if other else None,
        "predictor_evaluations": plan.evaluations,
        "gflop": flops / 1e9,
        "peer": peer.name,
        "planner": config.model_dump(exclude_unset=True),
        "device": device,
        "threads": threads,
        "torch": torch.__version__,
        "repeats": repeats,
    }


def planned(config: PlannerConfig) -> int:
    """Return the transitions that a plan predicts, as the method counts them: samples of all rounds."""
    return config.samples * config.iterations * config.horizon


def official_checkpoint(device: str = "cpu") -> Checkpoint:
    """
    Draw a world model whose forward model is exactly that of the official code, ready to plan.

    Its blocks have LayerNorms within attention and MLP, besides the modulated ones, which ours leave out.
    """
    contract = find_contract("reacher")
    free = [
        dimension.model_copy(update={"low": -FREE, "high": FREE, "max_change": FREE * contract.rate * 2})
        for dimension in contract.action.dimensions
    ]
    action = contract.action.model_copy(update={"dimensions": tuple(free)})
    contract = contract.model_copy(update={"action": action})
    config = load_model_config(PRESET)
    model = WorldModel(config, contract)
    assert isinstance(model.dynamics, AdaLNTransformer)
    for layer in model.dynamics.blocks:
        assert isinstance(layer, AdaLNBlock)
        # Untrained, all gates are zero: no action would have an effect.
        layer.modulation.reset_parameters()
        norm = nn.LayerNorm(layer.modulation.in_features)
        layer.add_module("attention", nn.Sequential(norm, layer.attention))
        layer.add_module("mlp", nn.Sequential(copy.deepcopy(norm), *layer.mlp))
    info = CheckpointInfo(
        preset=PRESET,
        config=config,
        contract=contract,
        calibration=Calibration(step_distance=1.0, step_error=1.0),
        data_fingerprint="",
        seed=0,
        code_version="",
        figures={},
    )
    return Checkpoint(info, model.to(device), "random")


def official_weights(dynamics: nn.Module) -> dict[str, Tensor]:
    """Name the weights of :func:`official_checkpoint`'s forward model as LeWM of stable-worldmodel does."""
    ours = {name: tensor.detach().cpu() for name, tensor in dynamics.state_dict().items()}
    block, width = ours["action.0.weight"].shape[1], len(ours["norm.weight"])
    theirs = {
        "predictor.pos_embedding": torch.zeros(1, 1, width),
        "action_encoder.patch_embed.weight": torch.eye(block)[..., None],
        "action_encoder.patch_embed.bias": torch.zeros(block),
    }
    places = {
        "norm.": "predictor.transformer.norm.",
        "action.": "action_encoder.embed.",
        "projector.": "pred_proj.net.",
        "attention.0.": "attn.norm.",
        "attention.1.output.": "attn.to_out.0.",
        "mlp.": "mlp.net.",
        "modulation.": "adaLN_modulation.1.",
    }
    for name, tensor in ours.items():
        if name.startswith("blocks."):
            _, number, inner = name.split(".", 2)
            before = f"predictor.transformer.layers.{number}."
        else:
            before, inner = "", name
        if inner == "attention.1.value.weight":
            # What queries and keys are makes no difference where there is one key.
            unused = torch.randn(2 * len(tensor), width) / width**0.5
            theirs[f"{before}attn.to_qkv.weight"] = torch.cat([unused, tensor])
            continue
        ((old, new),) = ((old, new) for old, new in places.items() if inner.startswith(old))
        theirs[before + inner.replace(old, new, 1)] = tensor
    return theirs


def _end(
    checkpoint: Checkpoint, start: NDArray[np.float32], blocks: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Return the latent that actions lead to; the action statistics are 0 and 1."""
    contract = checkpoint.contract
    actions = blocks.reshape(1, -1, contract.block, contract.action.size)
    return checkpoint.predict(start[None], actions)[0, -1]


def _cost(
    checkpoint: Checkpoint,
    start: NDArray[np.float32],
    goal: NDArray[np.float32],
    actions: NDArray[np.float64],
) -> float:
    end = _end(checkpoint, start, actions.reshape(-1, checkpoint.contract.block_size))
    return float(np.square(end.astype(np.float64) - goal).sum())


def _ratio(over: list[Any], under: list[Any]) -> float | None:
    """Return the median of the rounds' ratios."""
    ratios = [o / u for o, u in zip(over, under, strict=True) if o is not None]
    return statistics.median(ratios) if ratios else None
