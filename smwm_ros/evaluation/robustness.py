"""How probes and success decline as the camera's pictures get worse."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from smwm_ros.evaluation.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from smwm_ros.evaluation.episodes import Episodes, encode_episodes
from smwm_ros.evaluation.judging import wilson
from smwm_ros.evaluation.page import SERIES
from smwm_ros.evaluation.probing import fit_state_probes, split_episodes
from smwm_ros.evaluation.protocol import View
from smwm_ros.models.checkpoint import Checkpoint

LEVELS = (0, *SEVERITIES)
POINTS = 1 + len(CORRUPTIONS) * len(SEVERITIES)
"""Of all curves together, which begin at one and the same."""

Progress = Callable[[int], None]
Run = Callable[[Callable[[int], View]], NDArray[np.bool_]]
"""Runs the planner on all pairs with the camera that is given for each; tells which were reached."""


@dataclass(frozen=True)
class Curves:
    """One model under each corruption; row 0 of every curve is without any."""

    linear: Mapping[str, NDArray[np.float64]]
    """By corruption: R² of the linear probes, mean over positions and angles, shape (6,)."""
    mlp: Mapping[str, NDArray[np.float64]]
    """The same of the MLP probes."""
    variables: Mapping[str, Mapping[str, NDArray[np.float64]]]
    """By corruption and variable: R² of the MLP probes, shape (6,)."""
    reached: Mapping[str, NDArray[np.bool_]]
    """By corruption: whether each pair was reached at some tick, shape (6, pairs); empty: not tried."""

    def figures(self) -> dict[str, Any]:
        """Return the figures by corruption, as JSON knows them; success is in percent."""
        return {kind: self._figures(kind) for kind in self.mlp}

    def _figures(self, kind: str) -> dict[str, Any]:
        result: dict[str, Any] = {
            "linear_r2": _rounded(self.linear[kind]),
            "mlp_r2": _rounded(self.mlp[kind]),
            "variables": {name: _rounded(values) for name, values in self.variables[kind].items()},
        }
        if self.reached:
            runs = self.reached[kind]
            result["success_any"] = [round(100 * float(level.mean()), 1) for level in runs]
            result["interval"] = [
                [round(100 * end, 1) for end in wilson(int(level.sum()), len(level))] for level in runs
            ]
        return result


def probe_corrupted(
    checkpoint: Checkpoint,
    episodes: Episodes,
    latents: NDArray[np.float32],
    run: Run | None = None,
    *,
    seed: int = 0,
    progress: Progress = lambda done: None,
) -> Curves:
    """
    Fit probes on clean pictures, and judge them and the planner on corrupted ones.

    Args:
        checkpoint: the model.
        episodes: the pictures and states.
        latents: of the clean pictures, shape (N, D).
        run: runs the planner; without, there are no success curves.
        seed: draws the split, the probes' weights and the corruptions.
        progress: called with the points done, of ``POINTS``.
    """
    targets, variables = episodes.targets()
    split = split_episodes(episodes, seed)
    probes = fit_state_probes(episodes, latents, split, seed)
    size = checkpoint.contract.observation.image.size
    truth = targets[episodes.rows(split.test)]
    # What does not vary in the episodes that test has no R².
    still = np.array(
        [v.kind != "velocity" and np.ptp(truth[:, v.columns], axis=0).max() > 0 for v in variables]
    )
    done = 0

    def point(views: Callable[[int], View]) -> tuple[dict[str, NDArray[np.float64]], NDArray[np.bool_]]:
        nonlocal done
        seen = encode_episodes(checkpoint, episodes.part(split.test, views))
        scores = probes.score(seen, truth)
        reached = run(views) if run is not None else np.empty(0, bool)
        done += 1
        progress(done)
        return scores, reached

    clean = point(lambda episode: lambda image: image)
    points = {
        kind: [clean, *(point(corrupt(kind, severity, size, seed)) for severity in SEVERITIES)]
        for kind in CORRUPTIONS
    }
    scores = {
        kind: {name: np.stack([level[name] for level, _ in levels]) for name in ("linear", "mlp")}
        for kind, levels in points.items()
    }
    return Curves(
        {kind: found["linear"][:, still].mean(1) for kind, found in scores.items()},
        {kind: found["mlp"][:, still].mean(1) for kind, found in scores.items()},
        {
            kind: {v.name: found["mlp"][:, number] for number, v in enumerate(variables) if still[number]}
            for kind, found in scores.items()
        },
        {kind: np.stack([reached for _, reached in levels]) for kind, levels in points.items()}
        if run
        else {},
    )


def gaps(first: Curves, second: Curves) -> dict[str, dict[str, float]]:
    """
    Return by how much one model is better than another under each corruption, mean over severities 1 to 5.

    ``linear_r2`` and ``mlp_r2`` count from 0, as a probe below that says nothing of the latent; ``success``
    is in points of percent.
    """
    result = {}
    for kind in first.mlp:
        parts = {
            f"{name}_r2": (
                np.maximum(getattr(first, name)[kind], 0) - np.maximum(getattr(second, name)[kind], 0)
            )
            for name in ("linear", "mlp")
        }
        if first.reached and second.reached:
            parts["success_any"] = 100 * (first.reached[kind].mean(1) - second.reached[kind].mean(1))
        result[kind] = {name: round(float(values[1:].mean()), 4) for name, values in parts.items()}
    return result


def plot_curves(models: Mapping[str, Curves]) -> Figure:
    """Draw R² of the MLP probes, and below it success where it was tried, over severity; models by name."""
    rows = 2 if any(curves.reached for curves in models.values()) else 1
    figure = Figure(figsize=(11, 2.6 * rows), layout="constrained")
    axes = np.atleast_2d(figure.subplots(rows, len(CORRUPTIONS), sharex=True, sharey="row"))
    for column, kind in enumerate(CORRUPTIONS):
        for number, (name, curves) in enumerate(models.items()):
            style = {"color": SERIES[number % len(SERIES)], "marker": "o", "markersize": 3, "label": name}
            axes[0, column].plot(LEVELS, np.maximum(curves.mlp[kind], 0), **style)
            if curves.reached:
                axes[1, column].plot(LEVELS, 100 * curves.reached[kind].mean(1), **style)
        axes[0, column].set_title(kind, fontsize=10)
        axes[-1, column].set(xlabel="severity", xticks=LEVELS)
    axes[0, 0].set(ylabel="R², MLP probe", ylim=(0, 1.02))
    if rows == 2:
        axes[1, 0].set(ylabel="goals reached, %", ylim=(0, 102))
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(models), frameon=False)
    for each in axes.flat:
        each.spines[["top", "right"]].set_visible(False)
    return figure


def _rounded(values: NDArray[np.float64]) -> list[float | None]:
    return [round(float(value), 4) if np.isfinite(value) else None for value in values]
