"""What an ingest gave as one HTML file: what needs a look, how regular, how complete, how varied."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from smwm_ros.data.ingest.quality import BINS, INTERVAL_BINS, INTERVAL_END, Coverage, EpisodeQuality
from smwm_ros.data.ingest.report import DROPS, SPLITS, BagReport, IngestReport
from smwm_ros.evaluation.page import BAD, GOOD, SOFT, svg, write_page

WARN, BLUE, VIOLET = "#e3a008", "#3b82c4", "#8b6fc0"
MOST_BAGS = 30
"""Bags in a plot: those that lost most."""
MOST_EPISODES = 500
"""Episodes in the table: the first ones."""
OUTCOME_COLOURS = (BLUE, GOOD, BAD)
OUTCOMES = ("not said", "success", "failure")
KINDS = {
    "frames": GOOD,
    "surplus": BLUE,
    "duplicates": SOFT,
    "late": VIOLET,
    "bad_images": BAD,
    "beside": WARN,
}
"""What becomes of an image, and its colour."""


def write_quality_report(report: IngestReport, path: Path) -> None:
    """Write the report of an ingest as one HTML file, all or nothing."""
    episodes = [(bag, episode) for bag in report.bags for episode in bag.quality]
    coverage = merge_coverage(report.bags)
    frozen = any(episode.frozen for _, episode in episodes)
    hours = sum(episode.seconds for _, episode in episodes) / 3600
    images, frames = report.total("images"), report.total("frames")
    write_page(
        path,
        "quality_report.html.j2",
        title=f"Data of {report.robot}",
        report=report,
        figures=[
            ("episodes", f"{len(episodes):,}"),
            ("images", f"{frames:,}"),
            ("hours" if hours >= 1 else "minutes", f"{hours if hours >= 1 else 60 * hours:.1f}"),
            (f"Hz (contract: {report.rate:g})", f"{_rate(report):.4g}"),
            ("% of images dropped", f"{100 * (images - frames) / max(images, 1):.3g}"),
            ("% of time: action known", f"{100 * _known(report.bags):.3g}"),
        ],
        notes=[(bag.bag, note) for bag in report.bags for note in bag.notes],
        intervals=svg(plot_intervals(report.bags)),
        images=svg(plot_images(report.bags)),
        lengths=svg(plot_episodes([episode for _, episode in episodes], frozen)),
        actions=svg(plot_actions(coverage)) if coverage else "",
        coverage=coverage,
        episodes=episodes[:MOST_EPISODES],
        more=max(0, len(episodes) - MOST_EPISODES),
        outcomes=OUTCOMES,
        drops=DROPS,
        splits=SPLITS,
    )


def merge_coverage(bags: Sequence[BagReport]) -> list[Coverage]:
    """Return what the actions of all bags cover, for each dimension."""
    merged = []
    for dimension in zip(*(bag.coverage for bag in bags if bag.frames), strict=True):
        histogram = np.sum([part.histogram for part in dimension], axis=0)
        weights = [sum(part.histogram) for part in dimension]
        first = dimension[0]
        merged.append(
            Coverage(
                name=first.name,
                unit=first.unit,
                low=first.low,
                high=first.high,
                minimum=min(part.minimum for part in dimension),
                maximum=max(part.maximum for part in dimension),
                rest=float(np.average([part.rest for part in dimension], weights=weights)),
                saturated=float(np.average([part.saturated for part in dimension], weights=weights)),
                histogram=tuple(histogram.tolist()),
            )
        )
    return merged


def plot_intervals(bags: Sequence[BagReport]) -> Figure:
    """Draw how often neighbouring images are how many periods apart."""
    figure, axes = _axes(3.0)
    counts = np.sum([bag.interval_histogram for bag in bags], axis=0)
    width = INTERVAL_END / INTERVAL_BINS
    left = np.arange(INTERVAL_BINS) * width
    regular = np.abs(left + width / 2 - 1) <= 2 * width
    axes.bar(left, counts, width, align="edge", color=np.where(regular, GOOD, WARN))
    axes.set_yscale("symlog", linthresh=1)
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.set(xlim=(0, INTERVAL_END), ylim=(0, None), xlabel="control periods from one image to the next")
    axes.set_ylabel("intervals (log)")
    return figure


def plot_images(bags: Sequence[BagReport]) -> Figure:
    """Draw what became of the images of each bag."""
    shown = sorted(bags, key=lambda bag: -bag.drops)[:MOST_BAGS]
    figure, axes = _axes(0.34 * len(shown) + 1.3)
    left = np.zeros(len(shown))
    for kind, colour in KINDS.items():
        counts = np.array(
            [
                bag.drops - sum(getattr(bag, drop) for drop in DROPS)
                if kind == "beside"
                else getattr(bag, kind)
                for bag in shown
            ]
        )
        share = 100 * counts / np.maximum([bag.images for bag in shown], 1)
        label = {"beside": "left out beside a split", "bad_images": "unusable"}.get(kind, kind)
        axes.barh(range(len(shown)), share, left=left, color=colour, height=0.7, label=label)
        left += share
    axes.set_yticks(range(len(shown)), [Path(bag.bag).name for bag in shown])
    axes.invert_yaxis()
    axes.set(xlim=(0, 100), xlabel="% of the images on the topic")
    _legend_above(axes)
    return figure


def plot_episodes(episodes: Sequence[EpisodeQuality], frozen: bool) -> Figure:
    """Draw how long each episode is, and how often its pictures froze, where any did."""
    figure = Figure(figsize=(9, 4.6 if frozen else 3.0), layout="constrained")
    top = figure.add_subplot(2 if frozen else 1, 1, 1)
    number = np.arange(len(episodes))
    width = 1.0 if len(episodes) > 60 else 0.8
    for outcome, colour in enumerate(OUTCOME_COLOURS):
        here = np.array([episode.outcome == outcome for episode in episodes], bool)
        if here.any():
            seconds = np.array([episode.seconds for episode in episodes])[here]
            top.bar(
                number[here],
                seconds,
                1.0 if len(episodes) > 60 else 0.8,
                color=colour,
                label=OUTCOMES[outcome],
            )
    top.set(ylabel="seconds", xlabel="" if frozen else "episode")
    _legend_above(top)
    panels = [top]
    if frozen:
        below = figure.add_subplot(2, 1, 2, sharex=top)
        rows = np.array([episode.rows for episode in episodes])
        resting = np.array([episode.frozen - episode.frozen_moving for episode in episodes])
        moving = np.array([episode.frozen_moving for episode in episodes])
        below.bar(number, 100 * moving / rows, width, color=BAD, label="told to move")
        below.bar(
            number, 100 * resting / rows, width, bottom=100 * moving / rows, color=SOFT, label="at rest"
        )
        below.set(ylabel="% frozen", xlabel="episode")
        below.legend(frameon=False, fontsize=9, ncols=2)
        panels.append(below)
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
        axes.margins(x=0.01)
    return figure


def plot_actions(coverage: Sequence[Coverage]) -> Figure:
    """Draw how often which action was applied, one panel for each dimension."""
    columns = min(4, len(coverage))
    lines = -(-len(coverage) // columns)
    figure = Figure(figsize=(9, 2.3 * lines), layout="constrained")
    for place, dimension in enumerate(coverage):
        axes = figure.add_subplot(lines, columns, place + 1)
        share = 100 * np.array(dimension.histogram) / max(sum(dimension.histogram), 1)
        edges = np.linspace(dimension.low, dimension.high, BINS + 1)
        colours = [WARN if end and dimension.saturated > 0.05 else BLUE for end in _ends(BINS)]
        axes.bar(edges[:-1], share, np.diff(edges), align="edge", color=colours)
        axes.set_title(dimension.name, fontsize=10, loc="left")
        axes.set(xlim=(dimension.low, dimension.high), xlabel=dimension.unit)
        if place % columns == 0:
            axes.set_ylabel("% of the ticks")
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _axes(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(9, height), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _legend_above(axes: Axes) -> None:
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=6, frameon=False, fontsize=9)


def _ends(count: int) -> list[bool]:
    return [place in (0, count - 1) for place in range(count)]


def _rate(report: IngestReport) -> float:
    rates = [episode.rate for bag in report.bags for episode in bag.quality]
    return float(np.median(rates)) if rates else 0.0


def _known(bags: Sequence[BagReport]) -> float:
    frames = [bag.frames for bag in bags]
    return float(np.average([bag.known for bag in bags], weights=frames)) if sum(frames) else 0.0
