"""How good data are: known answers for each figure of the report, and the page that shows them."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ingesting import run
from recordings import PERIOD, Recording, action, numbered, record, robot

from smwm_ros.contract import Contract, parse_contract
from smwm_ros.data.alignment import Row
from smwm_ros.data.ingest.part import Record
from smwm_ros.data.ingest.plan import Options, plan
from smwm_ros.data.ingest.quality import BINS, INTERVAL_BINS, QualityMeter
from smwm_ros.data.ticks import Cut
from smwm_ros.evaluation.quality_report import merge_coverage, write_quality_report


def bounded(safe: str = "zero") -> Contract:
    """Return a robot with two dimensions from -1 to 1."""
    text = robot(joints=False).model_dump_json().replace("-1000000.0", "-1.0").replace("1000000.0", "1.0")
    return parse_contract(text.replace('"safe":"zero"', f'"safe":"{safe}"'), "test")


def measure(
    contract: Contract,
    actions: Any,
    pictures: list[int] | None = None,
    stamps: list[int] | None = None,
    batch: int = 99,
) -> QualityMeter:
    """Feed one episode, in batches, of pictures that say a number and of actions but for the last row."""
    actions = np.atleast_2d(np.array(actions, float))
    count = len(actions) + 1
    numbers = pictures or list(range(count))
    times = stamps or [PERIOD * (i + 1) for i in range(count)]
    meter = QualityMeter(contract)
    every = [*actions, np.full(actions.shape[1], np.nan)]
    rows: list[Row[Any]] = [
        Row(time, None, None if i == count - 1 else every[i], None, cut=Cut.GAP if i == count - 1 else None)
        for i, time in enumerate(times)
    ]
    pixels = np.array([np.full((4, 4, 3), number, np.uint8) for number in numbers])
    for first in range(0, count, batch):
        part = slice(first, first + batch)
        meter.add(pixels[part], np.array(every[part], np.float32), rows[part])
    return meter


def test_intervals_give_rate_jitter_and_missing_ticks() -> None:
    """Known answer: nine intervals of a period and one of two and a half."""
    stamps = [PERIOD * i for i in range(1, 11)]
    stamps.append(stamps[-1] + 5 * PERIOD // 2)
    meter = measure(bounded(), np.zeros((10, 2)), stamps=stamps)
    [episode] = meter.episodes
    assert (episode.rows, episode.rate, episode.p50_ms, episode.max_ms) == (11, 20.0, 50.0, 125.0)
    assert episode.p99_ms == pytest.approx(np.percentile([50] * 9 + [125], 99), rel=1e-5)
    assert (episode.missing, episode.ended, episode.seconds) == (1, "gap between images", 0.575)
    histogram = meter.interval_histogram()
    assert (len(histogram), sum(histogram)) == (INTERVAL_BINS, 10)
    assert (histogram[20], histogram[50]) == (9, 1)
    assert meter.known_ns == stamps[-1] - stamps[0]


@pytest.mark.parametrize("batch", [1, 2, 3, 99])
def test_frozen_pictures_are_counted_and_told_from_rest(batch: int) -> None:
    """Pictures 2 and 5 stand still; the robot was told to move only before the later ones."""
    pictures = [0, 1, 2, 2, 2, 3, 4, 5, 5, 5, 5, 6]
    actions = np.zeros((11, 2))
    actions[7:10, 1] = 0.5
    [episode] = measure(bounded(), actions, pictures, batch=batch).episodes
    assert (episode.frozen, episode.frozen_moving, episode.longest_freeze) == (5, 3, 3)


def test_coverage_of_known_actions() -> None:
    """Ten ticks: four at rest, three at a limit, one beyond it."""
    first = [0, 0, 0.005, 0, 1, 1, 1.5, 0.5, -0.5, 0.25]
    meter = measure(bounded(), np.stack([first, np.zeros(10)], axis=1))
    one, other = meter.coverage()
    assert (one.rest, one.saturated, one.minimum, one.maximum) == (0.4, 0.3, -0.5, 1.5)
    assert (other.rest, other.saturated) == (1.0, 0.0)
    assert (len(one.histogram), sum(one.histogram), one.histogram[-1]) == (BINS, 10, 3)
    assert other.histogram[BINS // 2] == 10


def test_at_rest_means_to_hold_where_that_is_safe() -> None:
    """A position-controlled arm rests anywhere; zero is just another place."""
    actions = np.array([0.5, 0.5, 0.5, 0.9, 0.9, 0.0])[:, np.newaxis].repeat(2, axis=1)
    [held, _] = measure(bounded("hold"), actions, batch=2).coverage()
    [zero, _] = measure(bounded("zero"), actions, batch=2).coverage()
    assert held.rest == pytest.approx(4 / 6, rel=1e-5)
    assert zero.rest == pytest.approx(1 / 6, rel=1e-5)


@given(st.lists(st.integers(0, 3), min_size=2, max_size=40), st.integers(1, 9), st.randoms())
def test_figures_do_not_depend_on_the_batches(pictures: list[int], batch: int, random: Any) -> None:
    """How many rows are written at once is nobody's business."""
    actions = [[random.uniform(-1, 1), random.choice([0, 1])] for _ in pictures[1:]]
    whole, parts = (measure(bounded(), actions, pictures, batch=size) for size in (99, batch))
    assert whole.episodes == parts.episodes
    assert whole.coverage() == parts.coverage()
    assert whole.episodes[0].frozen == sum(a == b for a, b in pairwise(pictures))


def test_time_without_a_known_action_is_told(tmp_path: Path) -> None:
    """Ten ticks of which the third to sixth have no action: the episode after them is not the whole truth."""
    with Recording(tmp_path / "bag", robot()) as bag:
        for number in range(11):
            bad = {"action": action((number + 1) * PERIOD, [np.nan, 0.0])} if 2 <= number < 6 else {}
            bag.tick((number + 1) * PERIOD, number, **bad)
    report = run(tmp_path, tmp_path / "bag")[1].bags[0]
    assert report.known == pytest.approx(0.6)
    assert report.without_action == 4


def test_a_camera_that_freezes_is_noted(tmp_path: Path) -> None:
    """It trains a model in which nothing moves, and looks like any other bag."""
    with Recording(tmp_path / "bag", robot()) as bag:
        for number in range(50):
            stamp = (number + 1) * PERIOD
            bag.tick(stamp, number, image=numbered(stamp, min(number, 40)), action=action(stamp, [1e6, 0.0]))
    report = run(tmp_path, tmp_path / "bag")[1].bags[0]
    assert (report.frozen, report.frozen_moving) == (9, 9)
    assert "9 of 50 images are the one before" in report.notes[0]


def test_actions_beyond_the_limits_are_noted(tmp_path: Path) -> None:
    contract = bounded()
    with Recording(tmp_path / "bag", contract) as bag:
        for number in range(5):
            stamp = (number + 1) * PERIOD
            bag.tick(stamp, number, joints=None, action=action(stamp, [3.0, 0.0]))
    assert "d0 reach from 3 to 3 rad/s" in run(tmp_path, tmp_path / "bag")[1].bags[0].notes[0]


def test_a_record_survives_json(tmp_path: Path) -> None:
    """What is kept in the store must say the same after it was read back; else bags are read for ever."""
    bag = record(tmp_path / "bag")
    store, report = run(tmp_path, bag)
    [kept] = store.source["ingested"]
    restored = Record.from_json(kept)
    assert restored is not None
    assert restored.report == report.bags[0]
    assert json.loads(json.dumps(restored.to_json())) == kept
    assert Record.from_json({**kept, "report": {}}) is None
    assert Record.from_json("nonsense") is None
    options = Options(contract=None, namespace="", depth=False)
    assert plan([bag], options, [restored])[0].record == restored


def test_the_page_shows_what_matters(tmp_path: Path) -> None:
    """Notes, names and figures are in it, nothing is loaded from elsewhere, and text is escaped."""
    for name, numbers in (("a & <b>", [0] * 20 + [1] * 20), ("good", range(10))):
        with Recording(tmp_path / name, bounded()) as bag:
            for tick, number in enumerate(numbers):
                stamp = (tick + 1) * PERIOD
                shown, moved = numbered(stamp, number), action(stamp, [0.9, 0.0])
                bag.tick(stamp, tick, joints=None, image=shown, action=moved)
    report = run(tmp_path, tmp_path / "a & <b>", tmp_path / "good")[1]
    write_quality_report(report, tmp_path / "out" / "report.html")
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "a &amp; &lt;b&gt;" in page
    assert "& <b>" not in page
    assert "38 of 40 images are the one before" in page
    assert page.count("<svg") == 4
    assert not re.findall(r"(?:src|href)=.http", page.replace('xlink:href="#', ""))
    assert "end of the recording" in page


def test_coverage_of_several_bags_is_weighed_by_their_ticks(tmp_path: Path) -> None:
    bags = run(tmp_path, record(tmp_path / "one", ticks=4), record(tmp_path / "two", ticks=10))[1].bags
    merged = merge_coverage(bags)[0]
    assert sum(merged.histogram) == 3 + 9
    assert (merged.minimum, merged.maximum) == (0.0, 8.0)
