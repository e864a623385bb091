"""
Violation of expectation (LeWM, arXiv 2603.19312): does a model tell when something impossible happens?

Each episode of exploration is brought to a moment, and goes on from there several times with the same
actions over one model step: as it would, and with each event happening to it. Surprise is what the
belief of a running robot tells of that step: the error of the one-step prediction, as a multiple of the
validation data's median.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter
from numpy.typing import NDArray

from smwm_ros.data.images import model_input
from smwm_ros.errors import ConfigError
from smwm_ros.evaluation.page import BAD, GOOD, SOFT
from smwm_ros.evaluation.statistics import auc, bootstrap_auc, roc, signed_rank
from smwm_ros.models.checkpoint import Checkpoint
from smwm_ros.tasks.base import RobotTask
from smwm_ros.tasks.events import EVENTS, HUE, Event, recolour, restore_physics, save_physics
from smwm_ros.tasks.exploration import make_policy
from smwm_ros.tasks.mujoco_task import MujocoTask

EARLIEST, LATEST = 10, 60
"""Ticks after which a step is looked at."""
NOMINAL, HEADLINE = "nominal", "teleport"

Progress = Callable[[int], None]


@dataclass(frozen=True)
class Surprises:
    """What was measured."""

    values: Mapping[str, NDArray[np.float64]]
    """Surprise of each episode's step, shape (E,): ``nominal``, and by event."""
    pictures: Mapping[str, NDArray[np.uint8]]
    """The first episode: RGB, shape (S, S, 3), ``before`` the step, and at its end in each case."""

    def figures(self, seed: int = 0) -> dict[str, Any]:
        """
        Return the figures as JSON knows them.

        ``auc`` is the chance that a step with the event surprises more than one without, ``p_value`` that of
        the paired one-sided Wilcoxon signed-rank test; on top those of the teleport.

        Args:
            seed: of the bootstrap.
        """
        nominal = self.values[NOMINAL]
        events = {
            name: self._compare(values, nominal, seed)
            for name, values in self.values.items()
            if name != NOMINAL
        }
        colour = self._compare(self.values[HEADLINE], self.values["colour"], seed)
        headline = {key: events[HEADLINE][key] for key in ("auc", "p_value", "interval")}
        return headline | {
            "nominal_median": round(float(np.median(nominal)), 4),
            "events": events,
            "teleport_over_colour": {key: colour[key] for key in ("auc", "p_value", "interval")},
            "episodes": len(nominal),
        }

    @staticmethod
    def _compare(values: NDArray[np.float64], others: NDArray[np.float64], seed: int) -> dict[str, Any]:
        return {
            "auc": round(auc(values, others), 4),
            "p_value": float(f"{signed_rank(values - others):.3g}"),
            "interval": [round(end, 4) for end in bootstrap_auc(values, others, seed)],
            "median": round(float(np.median(values)), 4),
        }


def measure_surprise(
    task: RobotTask,
    checkpoint: Checkpoint,
    *,
    episodes: int,
    seed: int = 0,
    hue: float = HUE,
    progress: Progress = lambda done: None,
) -> Surprises:
    """
    Measure how surprising each event is.

    Args:
        task: the robot, simulated by MuJoCo.
        checkpoint: the model.
        episodes: E.
        seed: draws the episodes and the events.
        hue: degrees by which the change of colour turns it.
        progress: called with the episodes done.

    Raises:
        CheckpointError: the checkpoint is of another robot.
        ConfigError: the robot is simulated otherwise, or there are no episodes.
    """
    checkpoint.require(task.contract)
    if not isinstance(task, MujocoTask):
        raise ConfigError(
            f"'{task.contract.task}' cannot be teleported, pushed or painted; choose a robot of this package"
        )
    if episodes < 2:
        raise ConfigError(f"at least 2 episodes are needed to compare surprises; found {episodes}")
    events: dict[str, Event] = {**EVENTS, "colour": partial(recolour, degrees=hue)}
    values: dict[str, list[float]] = {name: [] for name in (NOMINAL, *events)}
    shown: dict[str, NDArray[np.uint8]] = {}
    for episode in range(episodes):
        generator = np.random.default_rng([seed, 4, episode])
        found, pictures = _look_at_step(task, checkpoint, generator, events)
        shown = shown or pictures
        for name, surprise in found.items():
            values[name].append(surprise)
        progress(episode + 1)
    return Surprises({name: np.array(found) for name, found in values.items()}, shown)


def _look_at_step(
    task: MujocoTask, checkpoint: Checkpoint, generator: np.random.Generator, events: Mapping[str, Event]
) -> tuple[dict[str, float], dict[str, NDArray[np.uint8]]]:
    """Return the surprises of one episode's step, nominal and by event, and the pictures at its ends."""
    contract, stream, count = task.contract, task.contract.observation.image, checkpoint.frames
    policy = make_policy(contract, generator, lambda: task.state)

    def act(action: NDArray[np.float64]) -> NDArray[np.uint8]:
        task.advance(action, contract.period)
        return model_input(task.render_state(None), stream)

    task.reset(seed=int(generator.integers(2**31)))
    for _ in range(int(generator.integers(EARLIEST, LATEST))):
        task.advance(policy.next(), contract.period)
    frames = [act(policy.next()) for _ in range(count)]
    latent = checkpoint.encode(np.stack(frames))
    moment = save_physics(task)
    actions: list[NDArray[np.float64]] = []
    later = []
    for _ in range(contract.block):
        actions.append(policy.next())
        later.append(act(actions[-1]))

    def surprise(pictures: list[NDArray[np.uint8]]) -> float:
        after = checkpoint.encode(np.stack([*frames, *pictures][-count:]))
        return checkpoint.surprise(latent, np.stack(actions), after)

    found = {NOMINAL: surprise(later)}
    shown = {"before": frames[-1], NOMINAL: later[-1]}
    for name, event in events.items():
        restore_physics(task, moment)
        with event(task, generator):
            later = [act(action) for action in actions]
        found[name] = surprise(later)
        shown[name] = later[-1]
    return found, shown


def plot_surprise(surprises: Surprises) -> Figure:
    """Draw the surprises of each case on a logarithmic scale, and the events' ROC curves."""
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    colours = dict(zip(surprises.values, (SOFT, BAD, GOOD, "#3b6fb6"), strict=False))
    nominal = surprises.values[NOMINAL]
    for row, (name, values) in enumerate(surprises.values.items()):
        spread = np.linspace(-0.3, 0.3, len(values))
        left.scatter(values, row + spread, s=5, color=colours[name], linewidths=0)
        left.plot([np.median(values)] * 2, [row - 0.35, row + 0.35], color="black", alpha=0.7)
        if name != NOMINAL:
            label = f"{name}, AUC {auc(values, nominal):.2f}"
            right.plot(*roc(values, nominal), color=colours[name], label=label)
    left.set_yticks(range(len(surprises.values)), list(surprises.values))
    left.invert_yaxis()
    left.set(xscale="log", xlabel="surprise, validation medians")
    left.xaxis.set_major_formatter("{x:g}")
    left.xaxis.set_minor_formatter(NullFormatter())
    right.plot([0, 1], [0, 1], color=SOFT, linestyle="--", linewidth=1)
    right.set(xlabel="nominal steps called surprising", ylabel="events called surprising", xlim=(0, 1))
    right.legend(frameon=False, fontsize=8, loc="lower right")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    return figure
