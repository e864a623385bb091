"""The solvers of stable-worldmodel as planners, in an environment of their own."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from smwm_ros.cli.peer import Peer
from smwm_ros.errors import ConfigError
from smwm_ros.models.checkpoint import Checkpoint
from smwm_ros.planning.config import PlannerConfig
from smwm_ros.planning.limits import ActionLimits
from smwm_ros.planning.protocol import Planner, PlanResult

SOLVERS = {"cem": "CEMSolver", "icem": "ICEMSolver", "mppi": "MPPISolver"}
"""Those that have a counterpart among our optimisers."""
ABSENT = "not measured: give --peer-python an interpreter that has stable-worldmodel, see docs/benchmarks.md"
ADVICE = 'its solvers need `pip install "stable-worldmodel[env,format]==0.1.1"`'

PEER = """
import json, os, sys, time
from importlib.metadata import version

# The solvers tell on stdout how long they took, which is for answers.
answers = os.fdopen(os.dup(1), "w")
os.dup2(os.open(os.devnull, os.O_WRONLY), 1)

import numpy as np, torch
from gymnasium.spaces import Box
from stable_worldmodel import solver as solvers
from stable_worldmodel.policy import PlanConfig
from stable_worldmodel.wm.lewm import LeWM
from stable_worldmodel.wm.lewm.module import MLP, Embedder, Predictor

kind, path, settings = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
device = settings["device"]
torch.set_num_threads(settings["threads"])


class Scripted(torch.nn.Module):
    # Any forward model, asked as LeWM is: the cost is the squared distance of the last latent to the goal.
    def __init__(self):
        super().__init__()
        self.dynamics = torch.jit.load(path, map_location=device)

    def get_cost(self, info, candidates):
        latent = info["emb"][:, :, 0]
        for block in candidates.unbind(2):
            latent = self.dynamics(latent, block)
        return (latent - info["goal_emb"][:, :, 0]).square().sum(-1)


if kind == "scripted":
    world = Scripted()
else:
    sizes, width, block = settings["sizes"], settings["latent"], settings["block"] * len(settings["low"])
    world = LeWM(
        encoder=torch.nn.Identity(),
        predictor=Predictor(
            num_frames=1, depth=sizes["depth"], heads=sizes["heads"], dim_head=sizes["head"],
            mlp_dim=sizes["mlp"], input_dim=width, hidden_dim=width, output_dim=width,
        ),
        action_encoder=Embedder(input_dim=block, smoothed_dim=block, emb_dim=width),
        pred_proj=MLP(width, sizes["hidden"], width, norm_fn=torch.nn.BatchNorm1d),
    )
    with np.load(path) as weights:  # which refuses pickles
        world.load_state_dict({name: torch.from_numpy(weights[name]) for name in weights})
world = world.to(device).eval().requires_grad_(False)

low, high = (np.array([settings[end]], np.float32) for end in ("low", "high"))
space = Box(low, high, dtype=np.float32)
known = {}


def synchronised():
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter()


def tensor(values):
    return torch.tensor(values, dtype=torch.float32, device=device)


print(json.dumps("stable-worldmodel " + version("stable-worldmodel")), file=answers, flush=True)
for line in sys.stdin:
    asked = json.loads(line)
    start, goal = tensor(asked["start"])[:, None], tensor(asked["goal"])[:, None]
    if asked["name"] not in known:
        known[asked["name"]] = getattr(solvers, asked["solver"])(
            world, batch_size=len(start), device=device, seed=asked["seed"], **asked["options"]
        )
    solver = known[asked["name"]]
    plan = PlanConfig(horizon=asked["horizon"], receding_horizon=1, action_block=settings["block"])
    solver.configure(action_space=space, n_envs=len(start), config=plan)
    # Latents go in where its world models keep what they have encoded already.
    blank = torch.zeros(len(start), 1, device=device)
    info = {"emb": start, "goal_emb": goal, "pixels": blank, "goal": blank}
    before = None if asked["before"] is None else tensor(asked["before"])
    began = synchronised()
    found = solver.solve(dict(info), before)["actions"]
    seconds = synchronised() - began
    with torch.inference_mode():
        shown = {key: value[:, None] for key, value in info.items()}
        cost = world.get_cost(shown, found.to(device)[:, None])[:, 0]
    answer = {"actions": found.tolist(), "seconds": seconds, "cost": cost.tolist()}
    print(json.dumps(answer), file=answers, flush=True)
"""
"""Serves plans of any of its solvers in one world model, from latents to standardised action blocks."""


@contextmanager
def start_solvers(
    python: Path | None,
    checkpoint: Checkpoint,
    folder: Path,
    *,
    threads: int,
    official: Mapping[str, torch.Tensor] | None = None,
) -> Iterator[Peer]:
    """
    Start the peer with a world model.

    Args:
        python: interpreter of its environment; None when nobody gave one.
        checkpoint: of our model: its forward model goes over as TorchScript.
        folder: for the file with the model.
        threads: of its arithmetic.
        official: weights of the peer's own world model of the same sizes, which is then used instead.

    Raises:
        ConfigError: the peer's interpreter or its packages do not work.
    """
    model, contract = checkpoint.model, checkpoint.contract
    mean, std = (value.double().cpu().numpy() for value in (model.action_mean, model.action_std))
    settings = {
        "device": str(checkpoint.device),
        "threads": threads,
        "block": contract.block,
        "latent": checkpoint.latent_size,
        "low": ((contract.action.low - mean) / std).tolist(),
        "high": ((contract.action.high - mean) / std).tolist(),
    }
    path = folder / ("model.pt" if official is None else "model.npz")
    if python is None:
        pass
    elif official is None:
        example = torch.zeros(2, model.latent_size), torch.zeros(2, contract.block_size)
        # The peer's environment has none of our classes, and need not.
        trace: Any = torch.jit.trace
        trace(model.dynamics, tuple(part.to(checkpoint.device) for part in example)).save(str(path))
    else:
        weights: dict[str, Any] = {name: tensor.numpy() for name, tensor in official.items()}
        np.savez(path, **weights)
        settings["sizes"] = checkpoint.info.config.dynamics.model_dump()
    with Peer.start(
        python,
        PEER,
        ["scripted" if official is None else "official", str(path), json.dumps(settings)],
        absent=ABSENT,
        advice=ADVICE,
        threads=threads,
    ) as peer:
        yield peer


class PeerPlanner(Planner):
    """
    One of the peer's solvers as a :class:`smwm_ros.planning.protocol.Planner`, with the peer's own defaults.

    It goes on from the rest of its last plan, as its policy does. What it does not know it does not do: its
    plans are brought within the contract's limits afterwards, as the robot would.
    """

    def __init__(
        self, peer: Peer, name: str, checkpoint: Checkpoint, config: PlannerConfig, seed: int = 0
    ) -> None:
        """
        Wrap a solver.

        Args:
            peer: that runs.
            name: of the solver's settings.
            checkpoint: the model that it runs with.
            config: of the optimiser, which must be one of ``SOLVERS``: samples, iterations, elites, horizon.
            seed: of its samples.
        """
        self._peer, self._name, self._config, self._seed = peer, name, config, seed
        self._model, self._contract = checkpoint.model, checkpoint.contract
        self._limits = ActionLimits.of(checkpoint.contract)
        self._last: NDArray[np.float64] | None = None
        self.costs: NDArray[np.float64] = np.empty(0)
        """Of the last plans, as the peer's model judges them: the sum of squared differences."""

    def reset(self) -> None:
        """Forget the last plan."""
        self._last = None

    def plan_batch(
        self,
        latents: NDArray[np.float32],
        goals: NDArray[np.float32],
        elapsed: int | None = None,
        delay: int = 0,
    ) -> PlanResult:
        """See :class:`smwm_ros.planning.protocol.Planner`; the cost is the peer's, in latent units."""
        if delay:
            raise ConfigError("the solvers of stable-worldmodel know of no delay")
        config, block = self._config, self._contract.block
        done = -(-(config.replan if elapsed is None else elapsed) // block)
        rest = None if self._last is None else self._last[:, done:]
        answer = self._peer.ask(
            {
                "name": self._name,
                "solver": SOLVERS[config.optimiser],
                "seed": self._seed,
                "options": {
                    "num_samples": config.samples,
                    "n_steps": config.iterations,
                    "topk": config.elites,
                    "var_scale": config.std,
                },
                "horizon": config.horizon,
                "start": latents.tolist(),
                "goal": goals.tolist(),
                "before": rest.tolist() if rest is not None and rest.size else None,
            }
        )
        self._last = np.array(answer["actions"])
        self.costs = np.array(answer["cost"])
        ticks = torch.from_numpy(self._last).float().reshape(len(latents), 1, config.horizon * block, -1)
        actions = ticks * self._model.action_std.cpu() + self._model.action_mean.cpu()
        return PlanResult(
            self._limits.apply(actions, None)[:, 0].double().numpy(),
            self.costs,
            config.samples * config.iterations * config.horizon,
            answer["seconds"],
            config.iterations,
            float("inf"),
        )
