"""What frozen latents hold: probes of the state and of the actions, rank, scale, straightness."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from smwm_ros.errors import DataError
from smwm_ros.evaluation.episodes import Episodes, Variable
from smwm_ros.evaluation.page import SERIES
from smwm_ros.evaluation.regression import Regression, Table, fit_linear, fit_mlp, r_squared
from smwm_ros.models.checkpoint import Checkpoint
from smwm_ros.models.statistics import effective_rank, latent_scale

FIT, CHOOSE = 0.6, 0.15
"""Shares of the episodes that probes are fitted on, and that penalties and stops are chosen on."""
FEWEST = 5
"""Episodes that can be split so."""


@dataclass(frozen=True)
class Split:
    """Numbers of episodes."""

    fit: NDArray[np.int64]
    choose: NDArray[np.int64]
    test: NDArray[np.int64]


@dataclass(frozen=True)
class StateProbes:
    """Probes fitted to latents, a linear one and an MLP, of all the state's variables."""

    variables: tuple[Variable, ...]
    linear: Regression
    mlp: Regression

    def score(
        self, latents: NDArray[np.float32], targets: NDArray[np.float64]
    ) -> dict[str, NDArray[np.float64]]:
        """
        Judge the probes on other rows.

        Args:
            latents: shape (N, D).
            targets: shape (N, Y).

        Returns:
            R² of ``linear`` and ``mlp`` for each variable, shape (variables,).
        """
        predictions = {"linear": self.linear(latents), "mlp": self.mlp(latents)}
        return {
            name: np.array([r_squared(values[:, v.columns], targets[:, v.columns]) for v in self.variables])
            for name, values in predictions.items()
        }


@dataclass(frozen=True)
class Probes:
    """What the probes found; R² are on episodes that no probe was fitted on."""

    variables: tuple[Variable, ...]
    linear: NDArray[np.float64]
    """R², shape (repeats, variables)."""
    mlp: NDArray[np.float64]
    """R², shape (repeats, variables)."""
    inverse: NDArray[np.float64]
    """R² of the action block read from two latents a model step apart, by an MLP, shape (repeats,)."""
    inverse_linear: NDArray[np.float64]
    """The same by a linear map, shape (repeats,)."""
    effective_rank: float
    latent_scale: float
    straightness: float
    """Mean cosine of the changes of the latent in one model step and in the next; NaN if nothing changes."""
    episodes: int
    rows: int

    @property
    def judged(self) -> NDArray[np.bool_]:
        """Which variables the headline is made of: positions and angles, or what else there is."""
        still = np.array([variable.kind != "velocity" for variable in self.variables])
        return still if still.any() else ~still

    def figures(self) -> dict[str, Any]:
        """Return the figures as JSON knows them; ``spread`` is the standard deviation over the repeats."""
        moving = ~self.judged
        kinds = {"linear_r2": self.linear, "mlp_r2": self.mlp}
        result: dict[str, Any] = {name: _mean(values[:, self.judged]) for name, values in kinds.items()}
        result |= {
            "inverse_r2": _mean(self.inverse),
            "effective_rank": round(self.effective_rank, 2),
            "latent_scale": float(f"{self.latent_scale:.4g}"),
            "straightness": round(self.straightness, 4) if np.isfinite(self.straightness) else None,
            "inverse_linear_r2": _mean(self.inverse_linear),
        }
        if moving.any():
            result |= {f"velocity_{name}": _mean(values[:, moving]) for name, values in kinds.items()}
        result["spread"] = {
            **{name: _spread(np.nanmean(values[:, self.judged], axis=1)) for name, values in kinds.items()},
            "inverse_r2": _spread(self.inverse),
        }
        result["variables"] = {
            variable.name: {
                "kind": variable.kind,
                **{name: _mean(values[:, number]) for name, values in kinds.items()},
                **{
                    f"{name.removesuffix('_r2')}_spread": _spread(values[:, number])
                    for name, values in kinds.items()
                },
            }
            for number, variable in enumerate(self.variables)
        }
        return result | {"repeats": len(self.inverse), "episodes": self.episodes, "rows": self.rows}


def split_episodes(episodes: Episodes, seed: int) -> Split:
    """
    Divide episodes among fitting, choosing and testing.

    Raises:
        DataError: there are too few.
    """
    total = len(episodes.lengths)
    if total < FEWEST:
        raise DataError(
            f"{total} episodes cannot be divided into those to fit, to choose and to test probes on; "
            f"at least {FEWEST} are needed. Give more --episodes, or a larger --store."
        )
    order = np.random.default_rng([seed, 0]).permutation(total)
    fit, choose = max(1, int(FIT * total)), max(1, round(CHOOSE * total))
    return Split(order[:fit], order[fit : fit + choose], order[fit + choose :])


def fit_state_probes(
    episodes: Episodes, latents: NDArray[np.float32], split: Split, seed: int
) -> StateProbes:
    """Fit probes of the state to latents (N, D)."""
    targets, variables = episodes.targets()
    fit, choose = (
        Table(latents[rows], targets[rows]) for rows in map(episodes.rows, (split.fit, split.choose))
    )
    # Two networks, so that velocities, which may not be seen at all, do not decide when the other stops.
    networks = []
    for moving in (False, True):
        columns = [c for v in variables if (v.kind == "velocity") == moving for c in v.columns]
        if columns:
            network = fit_mlp(
                replace(fit, targets=fit.targets[:, columns]),
                replace(choose, targets=choose.targets[:, columns]),
                seed,
            )
            networks.append((columns, network))

    def mlp(given: NDArray[np.float32]) -> NDArray[np.float64]:
        predicted: NDArray[np.float64] = np.empty((len(given), targets.shape[1]))
        for columns, network in networks:
            predicted[:, columns] = network(given)
        return predicted

    return StateProbes(variables, fit_linear(fit, choose), mlp)


def probe(
    checkpoint: Checkpoint,
    episodes: Episodes,
    latents: NDArray[np.float32],
    *,
    seed: int = 0,
    repeats: int = 3,
) -> Probes:
    """
    Probe the latents of a frozen model.

    Args:
        checkpoint: the model.
        episodes: the pictures' states and actions.
        latents: of all rows, shape (N, D), from :func:`encode_episodes`.
        seed: draws splits, first weights and orders.
        repeats: how often all is done anew, with other splits.

    Raises:
        DataError: too few or too short episodes, or nothing in them varies.
    """
    targets, variables = episodes.targets()
    found: dict[str, list[Any]] = {"linear": [], "mlp": [], "inverse": [], "inverse_linear": []}
    for repeat in range(repeats):
        split = split_episodes(episodes, seed + repeat)
        test = episodes.rows(split.test)
        probes = fit_state_probes(episodes, latents, split, seed + repeat)
        scores = probes.score(latents[test], targets[test])
        actions = _probe_actions(checkpoint, episodes, latents, split, seed + repeat)
        for name, values in (*scores.items(), *actions.items()):
            found[name].append(values)
    tensor = torch.from_numpy(latents)
    return Probes(
        variables,
        **{name: np.array(values) for name, values in found.items()},
        effective_rank=effective_rank(tensor),
        latent_scale=latent_scale(tensor),
        straightness=straightness(episodes, latents, checkpoint.contract.block),
        episodes=len(episodes.lengths),
        rows=len(latents),
    )


def straightness(episodes: Episodes, latents: NDArray[np.float32], step: int) -> float:
    """
    Return the mean cosine of a latent's change in one model step and in the next (arXiv 2603.12231).

    1 on a straight line, 0 on a random walk, NaN where nothing changes.

    Args:
        episodes: which latents follow upon another.
        latents: shape (N, D).
        step: k, ticks in a model step.
    """
    rows = episodes.rows(np.arange(len(episodes.lengths)), 2 * step)
    first = latents[rows + step].astype(np.float64) - latents[rows]
    second = latents[rows + 2 * step].astype(np.float64) - latents[rows + step]
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    moves = lengths > 0
    return float(((first * second).sum(1)[moves] / lengths[moves]).mean()) if moves.any() else float("nan")


def _probe_actions(
    checkpoint: Checkpoint, episodes: Episodes, latents: NDArray[np.float32], split: Split, seed: int
) -> dict[str, float]:
    """Return R² of the standardised action block, read from the latent and its change in a model step."""
    block = checkpoint.contract.block

    def table(which: NDArray[np.int64]) -> Table:
        rows = episodes.rows(which, block)
        if not len(rows):
            raise DataError(
                f"the episodes have at most {episodes.lengths.max()} pictures; a model step takes {block + 1}"
            )
        actions = torch.from_numpy(episodes.actions[rows[:, None] + np.arange(block)])
        blocks = checkpoint.model.standardise(actions.to(checkpoint.device)).double().cpu().numpy()
        return Table(np.hstack([latents[rows], latents[rows + block] - latents[rows]]), blocks)

    fit, choose, test = map(table, (split.fit, split.choose, split.test))
    return {
        "inverse": r_squared(fit_mlp(fit, choose, seed)(test.features), test.targets),
        "inverse_linear": r_squared(fit_linear(fit, choose)(test.features), test.targets),
    }


def plot_probes(models: Mapping[str, Probes], control: Mapping[str, float] | None = None) -> Figure:
    """
    Draw the MLP probes' R² by variable, with the spread over the repeats.

    Args:
        models: by name.
        control: R² of a supervised encoder by variable.
    """
    variables = next(iter(models.values())).variables
    rows = np.arange(len(variables))
    figure = Figure(figsize=(9, 0.45 * len(variables) + 1.2), layout="constrained")
    axes = figure.add_subplot()
    height = 0.8 / len(models)
    for number, (name, probes) in enumerate(models.items()):
        places = rows + (number - (len(models) - 1) / 2) * height
        values = np.nan_to_num(probes.mlp.mean(0)).clip(0)
        axes.barh(places, values, height, color=SERIES[number % len(SERIES)], label=name)
        axes.errorbar(
            values, places, xerr=np.nan_to_num(probes.mlp.std(0)), fmt="none", ecolor="black", alpha=0.55
        )
    if control is not None:
        shown = [(row, control[v.name]) for row, v in zip(rows, variables, strict=True) if v.name in control]
        axes.plot(*zip(*((max(r2, 0), row) for row, r2 in shown), strict=True), "D", color="black",
                  markersize=5, label="supervised encoder")  # fmt: skip
    axes.set_yticks(rows, [variable.name for variable in variables])
    axes.invert_yaxis()
    axes.set(xlim=(0, 1), xlabel="R² of the MLP probe on held-out episodes")
    figure.legend(loc="outside upper center", ncols=len(models) + 1, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def plot_latents(
    episodes: Episodes, latents: NDArray[np.float32], seed: int = 0, points: int = 3000
) -> Figure:
    """
    Draw the latents' two principal components, once for each position and angle, coloured by it.

    Args:
        episodes: the states.
        latents: shape (N, D).
        seed: draws which rows are shown.
        points: how many.
    """
    rows = np.random.default_rng(seed).permutation(len(latents))[:points]
    centred = (latents - latents.mean(0))[rows].astype(np.float64)
    components = centred @ np.linalg.svd(centred, full_matrices=False)[2][:2].T
    shown = [number for number, kind in enumerate(episodes.kinds) if kind != "velocity"]
    columns = min(4, len(shown))
    lines = -(-len(shown) // columns)
    figure = Figure(figsize=(2.4 * columns, 2.5 * lines), layout="constrained")
    for place, number in enumerate(shown):
        values, kind = episodes.states[rows, number], episodes.kinds[number]
        axes = figure.add_subplot(lines, columns, place + 1)
        axes.scatter(
            components[:, 0],
            components[:, 1],
            c=np.angle(np.exp(1j * values)) if kind == "angle" else values,
            cmap="twilight" if kind == "angle" else "viridis",
            s=3,
            linewidths=0,
            rasterized=True,
        )
        axes.set_title(episodes.names[number], fontsize=10)
        axes.set(xticks=[], yticks=[])
    return figure


def _mean(values: NDArray[np.float64]) -> float | None:
    """Return the mean of the R² that there are; a variable may not vary in the episodes that test."""
    known = values[np.isfinite(values)]
    return round(float(known.mean()), 4) if len(known) else None


def _spread(values: NDArray[np.float64]) -> float | None:
    known = values[np.isfinite(values)]
    return round(float(known.std()), 4) if len(known) else None
