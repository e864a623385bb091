"""A run to goals as one HTML file that needs nothing else: figures, curves, pictures and video in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from smwm_ros.evaluation.page import BAD, GOOD, SOFT, base64_of, png, svg, write_page

PICTURE_SIDE = 192
"""Pixels."""


@dataclass(frozen=True)
class GoalTrace:
    """What became of one goal."""

    name: str
    errors: NDArray[np.float64]
    """Largest error of the judged quantities at each tick from the start, shape (T,)."""
    threshold: float
    """The goal is reached when the error is at most this, at some tick."""
    start: NDArray[np.uint8]
    """RGB, shape (h, w, 3), as the two below."""
    goal: NDArray[np.uint8]
    closest: NDArray[np.uint8]
    """The camera's picture when the error was smallest."""

    @property
    def reached(self) -> bool:
        """Whether the goal was reached at some tick."""
        return bool((self.errors <= self.threshold).any())

    def verdict(self, unit: str) -> str:
        """Tell the outcome in words; the errors' unit is given."""
        if not self.reached:
            return f"missed, {self.errors.min():.2g} {unit}".rstrip() + " away"
        return f"reached at tick {int(np.argmax(self.errors <= self.threshold))}"


@dataclass(frozen=True)
class Rate:
    """A success rate with its 95 % interval, all from 0 to 1."""

    name: str
    value: float
    interval: tuple[float, float]


@dataclass(frozen=True)
class Report:
    """What goes into a report."""

    title: str
    summary: str
    figures: Sequence[tuple[str, str]]
    """The headline: (label, value)."""
    rates: Sequence[Rate]
    goals: Sequence[GoalTrace]
    period: float
    """Seconds from one tick to the next."""
    unit: str
    """Of the errors."""
    settings: Sequence[tuple[str, str]] = field(default_factory=tuple)
    """How it was made: (label, value)."""
    video: Path | None = None
    video_caption: str = ""


def write_report(report: Report, path: Path) -> None:
    """Write a report as one HTML file, all or nothing."""
    write_page(
        path,
        "report.html.j2",
        title=report.title,
        report=report,
        video=base64_of(report.video.read_bytes()) if report.video else "",
        success_plot=svg(plot_rates(report.rates)),
        distance_plot=svg(plot_errors(report.goals, report.period, report.unit)),
        goals=[
            {
                "name": goal.name,
                "reached": goal.reached,
                "verdict": goal.verdict(report.unit),
                "pictures": [
                    (label, png(picture, PICTURE_SIDE))
                    for label, picture in (
                        ("start", goal.start),
                        ("goal", goal.goal),
                        ("closest", goal.closest),
                    )
                ],
            }
            for goal in report.goals
        ],
    )


def plot_rates(rates: Sequence[Rate]) -> Figure:
    """Draw success rates as bars with their intervals; the first one stands out."""
    figure = Figure(figsize=(9, 0.7 * len(rates) + 0.7), layout="constrained")
    axes = figure.add_subplot()
    for row, rate in enumerate(rates):
        axes.barh(row, 100 * rate.value, color=SOFT if row else GOOD, height=0.6)
        low, high = rate.interval
        axes.plot([100 * low, 100 * high], [row, row], color="black", alpha=0.55, linewidth=1.5)
        axes.annotate(
            f" {100 * rate.value:.0f} %", (max(100 * high, 1), row), va="center", fontsize=11, weight="bold"
        )
    axes.set_yticks(range(len(rates)), [rate.name for rate in rates], fontsize=11)
    axes.invert_yaxis()
    axes.set(xlim=(0, 112), xticks=range(0, 101, 20), xlabel="goals reached, %  (line: 95 % interval)")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(left=False)
    return figure


def plot_errors(goals: Sequence[GoalTrace], period: float, unit: str) -> Figure:
    """Draw the error of every goal over time, with the threshold."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    axes = figure.add_subplot()
    for goal in goals:
        seconds = period * np.arange(len(goal.errors))
        axes.plot(seconds, goal.errors, color=GOOD if goal.reached else BAD, alpha=0.75, linewidth=1.6)
    for threshold in {goal.threshold for goal in goals}:
        axes.axhline(threshold, color=SOFT, linewidth=1, linestyle="--")
        axes.annotate(
            f" {threshold:g} {unit}", (1, threshold), xycoords=("axes fraction", "data"),
            va="center", fontsize=9, color=SOFT,
        )  # fmt: skip
    axes.set(
        xlabel="seconds since the goal was sent", ylabel=f"largest error, {unit}".rstrip(", "), ylim=(0, None)
    )
    axes.margins(x=0)
    axes.spines[["top", "right"]].set_visible(False)
    return figure
