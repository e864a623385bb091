"""The comparison of world models as one HTML file: tables with floors and intervals, curves, rollouts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from smwm_ros.evaluation.comparison import Comparison, Judged, Scene
from smwm_ros.evaluation.page import SERIES, SOFT, png, svg, write_page
from smwm_ros.evaluation.probing import plot_latents, plot_probes
from smwm_ros.evaluation.robustness import plot_curves
from smwm_ros.evaluation.surprise import plot_surprise
from smwm_ros.tasks.base import RobotTask

PICTURE_SIDE = 128
"""Pixels."""
MAIN_COLUMNS = (
    ("linear R²", "linear_r2", "{:.3f}"),
    ("MLP R²", "mlp_r2", "{:.3f}"),
    ("actions R²", "inverse_r2", "{:.3f}"),
    ("effective rank", "effective_rank", "{:.1f}"),
    ("scale", "latent_scale", "{:.3g}"),
    ("straightness", "straightness", "{:.2f}"),
)
"""Of the table of probes: heading, key and format."""


def write_comparison(
    path: Path, task: RobotTask, comparison: Comparison, settings: Sequence[tuple[str, str]]
) -> None:
    """
    Write the page, all or nothing.

    Args:
        path: of the HTML file.
        task: the robot; says what is judged.
        comparison: what was measured.
        settings: how it was made: (label, value).
    """
    models = comparison.models
    first = next(iter(models.values()))
    success = plot_success(models)
    curves = {name: judged.curves for name, judged in models.items() if judged.curves is not None}
    write_page(
        path,
        "comparison.html.j2",
        title=f"World models of {task.contract.name}",
        criterion=task.criterion(task.threshold),
        task=task,
        colours=dict(zip(models, _colours(len(models)), strict=True)),
        success=svg(success),
        offsets=[
            (offset, common, [(name, judged.success[offset]) for name, judged in models.items()])
            for offset, common in first.success.items()
        ],
        objects=bool(task.objects),
        headings=[heading for heading, _, _ in MAIN_COLUMNS],
        probes=[(name, _probe_row(judged)) for name, judged in models.items()],
        probe_plot=svg(plot_probes({name: judged.probes for name, judged in models.items()})),
        latents=[
            (name, svg(plot_latents(comparison.episodes, judged.latents))) for name, judged in models.items()
        ],
        scenes=_scenes(task, comparison),
        curves=svg(plot_curves(curves)) if curves else "",
        surprises=[
            (name, svg(plot_surprise(judged.surprises)), judged.surprises.figures())
            for name, judged in models.items()
            if judged.surprises is not None
        ],
        settings=settings,
    )


def plot_success(models: Mapping[str, Judged]) -> Figure:
    """Draw success at some tick and at the last one over the offset, with intervals, beside chance."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    offsets = list(next(iter(models.values())).success)
    panels: Sequence[Axes] = figure.subplots(1, 2, sharey=True)
    colours = _colours(len(models))
    kinds = (("any", "interval", "at some tick"), ("last", "interval_last", "at the last tick"))
    for axes, (kind, interval, title) in zip(panels, kinds, strict=True):
        for number, (name, judged) in enumerate(models.items()):
            rows = list(judged.success.values())
            values = np.array([row[f"success_{kind}"] for row in rows])
            low, high = np.array([row[interval] for row in rows]).T
            # Side by side, so that the intervals of equal values can be told apart.
            places = np.arange(len(offsets)) + 0.08 * (number - (len(models) - 1) / 2)
            axes.errorbar(
                places, values, (values - low, high - values),
                color=colours[number], marker="o", markersize=4, linewidth=1.6, label=name,
            )  # fmt: skip
        chance = [row[f"random_{kind}"] for row in next(iter(models.values())).success.values()]
        axes.plot(range(len(offsets)), chance, color=SOFT, linestyle="--", marker=".", label="random actions")
        axes.set_title(f"reached {title}", fontsize=11)
        axes.set(xlabel="ticks from start to goal", ylim=(-3, 103), xlim=(-0.5, len(offsets) - 0.5))
        axes.set_xticks(range(len(offsets)), [str(offset) for offset in offsets])
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("% of the pairs (bar: 95 % interval)")
    panels[1].legend(frameon=False, fontsize=9)
    return figure


def plot_scene(scenes: Sequence[Scene], task: RobotTask) -> Figure:
    """Draw the models' errors towards one goal over time, with the threshold."""
    figure = Figure(figsize=(4.2, 1.9), layout="constrained")
    axes = figure.add_subplot()
    for scene, colour in zip(scenes, _colours(len(scenes)), strict=True):
        axes.plot(task.contract.period * np.arange(len(scene.errors)), scene.errors, color=colour)
    axes.axhline(task.threshold, color=SOFT, linewidth=1, linestyle="--")
    axes.set(xlabel="s", ylabel=f"error {task.unit}", ylim=(0, None))
    axes.margins(x=0)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _colours(count: int) -> list[str]:
    return [SERIES[number % len(SERIES)] for number in range(count)]


def _probe_row(judged: Judged) -> list[str]:
    figures = judged.probes.figures()
    return ["–" if figures[key] is None else pattern.format(figures[key]) for _, key, pattern in MAIN_COLUMNS]


def _scenes(task: RobotTask, comparison: Comparison) -> list[dict[str, Any]]:
    """Return for each pair its goal, the plot of errors, and each model's pictures and verdict."""
    return [
        {
            "goal": png(goal, PICTURE_SIDE),
            "plot": svg(plot_scene([judged.scenes[number] for judged in comparison.models.values()], task)),
            "films": [
                (name, *_film(judged.scenes[number], task.threshold))
                for name, judged in comparison.models.items()
            ],
        }
        for number, goal in enumerate(comparison.goals)
    ]


def _film(scene: Scene, threshold: float) -> tuple[list[tuple[int, str]], bool, str]:
    """Return a rollout's pictures, whether it reached the goal, and the verdict in words."""
    pictures = [(tick, png(picture, PICTURE_SIDE)) for tick, picture in scene.pictures]
    inside: NDArray[np.bool_] = scene.errors[1:] <= threshold
    if not inside.any():
        return pictures, False, "missed"
    stayed = "" if inside[-1] else ", left again"
    return pictures, True, f"reached at tick {int(inside.argmax()) + 1}{stayed}"
