"""World models beside one another on one robot: success over offsets, what latents hold, rollouts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smwm_ros.evaluation.episodes import Episodes, encode_episodes, explore_episodes
from smwm_ros.evaluation.judging import errors, judge, reached
from smwm_ros.evaluation.pairs import Pair, Pairs, draw_pairs
from smwm_ros.evaluation.probing import Probes, probe
from smwm_ros.evaluation.protocol import Rollouts, run_planner, run_random
from smwm_ros.evaluation.robustness import POINTS, Curves, probe_corrupted
from smwm_ros.evaluation.surprise import Surprises, measure_surprise
from smwm_ros.models.checkpoint import Checkpoint
from smwm_ros.planning.config import PlannerConfig
from smwm_ros.tasks.base import RobotTask
from smwm_ros.validation import Settings

FRAMES = 8
"""Pictures of a rollout that are shown."""

Watch = Callable[[str, int], Callable[[int], None]]
"""Begins to tell people of some work, given its name and its amount; what is done goes to the result."""


class Extent(Settings):
    """How much is measured."""

    offsets: tuple[int, ...] = (25,)
    """Ticks between start and goal."""
    pairs: int = 100
    """For each offset."""
    seed: int = 0
    """Draws the pairs, the episodes and all else."""
    scenes: int = 4
    """Rollouts to show: the first pairs of the first offset, not chosen by what became of them."""
    episodes: int = 300
    """To probe on."""
    ticks: int = 40
    """Pictures in each."""
    full: bool = False
    """Corruptions and surprise as well."""
    corrupted_pairs: int = 10
    """Pairs for each of the points of the curves of success under corruption."""
    surprises: int = 100
    """Episodes to measure surprise on."""


@dataclass(frozen=True)
class Scene:
    """What one model made of a pair."""

    errors: NDArray[np.float64]
    """Largest error at each tick, shape (budget + 1,)."""
    pictures: Sequence[tuple[int, NDArray[np.uint8]]]
    """(tick, RGB), in equal steps from the start to the end."""


@dataclass(frozen=True)
class Judged:
    """One model's part."""

    checkpoint: Checkpoint
    success: Mapping[int, Mapping[str, Any]]
    """By offset, the figures of :func:`smwm_ros.evaluation.judging.judge`."""
    scenes: Sequence[Scene]
    probes: Probes
    latents: NDArray[np.float32]
    """Of the comparison's episodes, shape (N, D)."""
    curves: Curves | None = None
    surprises: Surprises | None = None

    def figures(self) -> dict[str, Any]:
        """Return all figures as JSON knows them."""
        info = self.checkpoint.info
        result: dict[str, Any] = {
            "checkpoint": self.checkpoint.id,
            "preset": info.preset,
            "seed": info.seed,
            "success": {str(offset): dict(figures) for offset, figures in self.success.items()},
            "probes": self.probes.figures(),
        }
        if self.curves is not None:
            result["corruptions"] = self.curves.figures()
        if self.surprises is not None:
            result["surprise"] = self.surprises.figures()
        return result


@dataclass(frozen=True)
class Comparison:
    """Several models on the same pairs and episodes."""

    models: Mapping[str, Judged]
    """By name."""
    goals: Sequence[NDArray[np.uint8]]
    """Goal images of the scenes, RGB."""
    episodes: Episodes

    def figures(self) -> dict[str, Any]:
        """Return all figures as JSON knows them, by model."""
        return {name: judged.figures() for name, judged in self.models.items()}


def compare(
    task: RobotTask, models: Mapping[str, Checkpoint], config: PlannerConfig, extent: Extent, watch: Watch
) -> Comparison:
    """
    Judge several models by the same pairs, and probe them on the same episodes.

    Args:
        task: the robot.
        models: by name.
        config: of the planner, the same for all.
        extent: how much is measured.
        watch: is told how it goes.
    """
    history = max(checkpoint.frames for checkpoint in models.values()) - 1
    success: dict[str, dict[int, dict[str, Any]]] = {name: {} for name in models}
    scenes: dict[str, list[Scene]] = {}
    drawn = []
    for offset in extent.offsets:
        what = f"{offset} ticks: drawing pairs"
        problems = draw_pairs(
            task, extent.pairs, offset, extent.seed, history=history, progress=watch(what, extent.pairs)
        )
        floor = run_random(task, problems, extent.seed)
        drawn.append(problems)
        for name, checkpoint in models.items():
            progress = watch(f"{offset} ticks: {name}", extent.pairs)
            rollouts = run_planner(task, checkpoint, config, problems, progress=progress)
            success[name][offset] = judge(task, problems, rollouts, floor)
            if offset == extent.offsets[0]:
                scenes[name] = _scenes(task, problems, rollouts, extent.scenes)
    episodes = explore_episodes(
        task, extent.episodes, extent.ticks, extent.seed, watch("episodes to probe on", extent.episodes)
    )
    judged = {}
    for name, checkpoint in models.items():
        latents = encode_episodes(checkpoint, episodes)
        done = watch(f"probing {name}", 1)
        probes = probe(checkpoint, episodes, latents, seed=extent.seed)
        done(1)
        judged[name] = Judged(checkpoint, success[name], scenes[name], probes, latents)
        if extent.full:
            judged[name] = _go_further(task, judged[name], name, config, drawn[0], episodes, extent, watch)
    goals = [pair.goal_image for pair in drawn[0].pairs[: extent.scenes]]
    return Comparison(judged, goals, episodes)


def _go_further(
    task: RobotTask,
    judged: Judged,
    name: str,
    config: PlannerConfig,
    problems: Pairs,
    episodes: Episodes,
    extent: Extent,
    watch: Watch,
) -> Judged:
    """Add the curves under corruption and the surprises."""
    checkpoint = judged.checkpoint
    few = replace(problems, pairs=problems.pairs[: extent.corrupted_pairs])

    def run(views: Any) -> NDArray[np.bool_]:
        rollouts = run_planner(task, checkpoint, config, few, view=views)
        return reached(errors(task, few, rollouts), task.threshold)[0]

    curves = probe_corrupted(
        checkpoint,
        episodes,
        judged.latents,
        run,
        seed=extent.seed,
        progress=watch(f"corrupting what {name} sees", POINTS),
    )
    surprises = measure_surprise(
        task,
        checkpoint,
        episodes=extent.surprises,
        seed=extent.seed,
        progress=watch(f"surprising {name}", extent.surprises),
    )
    return replace(judged, curves=curves, surprises=surprises)


def _scenes(task: RobotTask, problems: Pairs, rollouts: Rollouts, count: int) -> list[Scene]:
    """Show what became of the first pairs."""
    towards = errors(task, problems, rollouts)
    return [
        Scene(towards[number], _film(task, pair, rollouts.states[number]))
        for number, pair in enumerate(problems.pairs[:count])
    ]


def _film(task: RobotTask, pair: Pair, states: NDArray[np.float64]) -> list[tuple[int, NDArray[np.uint8]]]:
    """Render some states of a rollout, shape (T, S), as the robot saw them."""
    task.reset(seed=pair.seed, options={"state": pair.start_state})
    ticks = np.linspace(0, len(states) - 1, FRAMES).round().astype(int).tolist()
    return [(tick, task.render_state(states[tick], tick * task.contract.period)) for tick in ticks]
