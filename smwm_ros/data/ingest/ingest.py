"""Bags to training data: read, align, check, and write the episode store."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from smwm_ros.contract import Contract
from smwm_ros.data.alignment import Aligner, Row
from smwm_ros.data.bags.reader import BagReader
from smwm_ros.data.bags.topics import noted_contract
from smwm_ros.data.images import picture
from smwm_ros.data.ingest.rows import Progress, aligned_rows
from smwm_ros.data.store.writer import EpisodeWriter
from smwm_ros.errors import DataError

BATCH_ROWS = 64
"""Rows handed to the store at once."""
RATE_TOLERANCE = 0.1
"""Part by which the images' rate may differ from the contract's before the report says so."""


@dataclass(frozen=True)
class BagReport:
    """What one bag gave. Every image is a frame, a surplus or duplicate one, or left out."""

    bag: str
    images: int
    """On the image topic."""
    frames: int
    """Rows written."""
    episodes: int
    actions: int
    """Applied actions read."""
    surplus: int
    """Images dropped because they came faster than the contract's rate."""
    duplicates: int
    """Images dropped because their stamp was that of the one before."""
    gaps: int
    """Splits because images were missing for longer than the contract's max_gap."""
    jumps: int
    """Splits because a stamp jumped back."""
    without_action: int
    """Splits because the action of a tick is unknown."""
    bad_joints: int
    """Splits because joint positions were missing, too old, or not finite."""
    late_actions: int
    """Actions that came out of order, and were put in their place."""
    duplicate_actions: int
    """Actions that replaced one with the same stamp."""
    rate: float
    """Images per second within the episodes, from the median distance."""
    notes: tuple[str, ...]
    """What a person should look at."""


@dataclass(frozen=True)
class IngestReport:
    """What an ingest gave, and how long it took."""

    path: str
    fingerprint: str
    robot: str
    bags: tuple[BagReport, ...]
    seconds: float

    def total(self, what: str) -> int:
        """Add up one of the counts of the bags."""
        return sum(getattr(bag, what) for bag in self.bags)

    @property
    def drops(self) -> int:
        """Images that are in no episode, for whatever reason."""
        return self.total("images") - self.total("frames")

    @property
    def splits(self) -> int:
        """Places where an episode was, or could not be, continued."""
        return sum(map(self.total, ("gaps", "jumps", "without_action", "bad_joints")))

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON-able values, totals first."""
        counts = ("frames", "episodes", "images", "actions", "surplus")
        return {
            **{what: self.total(what) for what in counts},
            "drops": self.drops,
            "splits": self.splits,
            "frames_per_s": self.total("frames") / self.seconds,
            **asdict(self),
        }


def ingest(
    bags: Sequence[Path | str],
    out: Path | str,
    *,
    contract: Contract | None = None,
    namespace: str = "",
    progress: Progress | None = None,
) -> IngestReport:
    """
    Read bags into one episode store.

    Row t of an episode is image t and the mean action applied from its stamp until the next image's;
    see :mod:`smwm_ros.data.alignment` for what begins and ends an episode.

    Args:
        bags: folders or files.
        out: the store to write; it appears only when all went well, and then replaces what was there.
        contract: of the robot; by default the one that the recorder noted in the first bag.
        namespace: of the robot, where a bag holds several.
        progress: called now and then.

    Raises:
        DataError: a bag that cannot be read or lacks what is needed, or not one episode in all of them.
        ContractError: the contract noted in a bag is not valid.
    """
    started = time.perf_counter()
    if not bags:
        raise DataError("no bag was given")
    if contract is None:
        with BagReader(bags[0]) as reader:
            contract = noted_contract(reader)
    reports: list[BagReport] = []
    with EpisodeWriter(out, contract) as writer:
        for bag in bags:
            with BagReader(bag) as reader:
                reports.append(_ingest_bag(reader, contract, namespace, writer, progress))
        if not any(report.episodes for report in reports):
            raise DataError("\n".join(map(_why_nothing, reports)))
        writer.source["bags"] = [asdict(report) for report in reports]
    return IngestReport(
        path=str(out),
        fingerprint=writer.fingerprint,
        robot=contract.name,
        bags=tuple(reports),
        seconds=time.perf_counter() - started,
    )


def _ingest_bag(
    bag: BagReader, contract: Contract, namespace: str, writer: EpisodeWriter, progress: Progress | None
) -> BagReport:
    """Align one bag and write its episodes."""
    aligner: Aligner[Any] = Aligner(contract)
    batch = _Batch(bag, contract, writer)
    for row in aligned_rows(bag, aligner, contract, namespace, progress):
        batch.add(row)
    gate = aligner.gate
    rate = 1e9 / float(np.median(batch.intervals)) if batch.intervals else 0.0
    notes = list(bag.notes)
    if batch.intervals and abs(rate / contract.rate - 1) > RATE_TOLERANCE:
        notes.append(
            f"images come at {rate:.1f} Hz, but the contract says {contract.rate:g}; correct one of them"
        )
    return BagReport(
        bag=str(bag.path),
        images=gate.images,
        frames=batch.frames,
        episodes=batch.episodes,
        actions=aligner.actions.received,
        surplus=gate.surplus,
        duplicates=gate.duplicates,
        gaps=gate.gaps,
        jumps=gate.jumps,
        without_action=aligner.without_action,
        bad_joints=aligner.bad_joints,
        late_actions=aligner.actions.reordered,
        duplicate_actions=aligner.actions.duplicates,
        rate=rate,
        notes=tuple(notes),
    )


class _Batch:
    """Rows on their way into the store, a few at a time."""

    def __init__(self, bag: BagReader, contract: Contract, writer: EpisodeWriter) -> None:
        self._source = str(bag.path)
        self._contract = contract
        self._writer = writer
        self._rows: list[Row[Any]] = []
        self._previous: int | None = None
        self.intervals: list[int] = []
        self.frames = 0
        self.episodes = 0

    def add(self, row: Row[Any]) -> None:
        if self._previous is not None:
            self.intervals.append(row.stamp - self._previous)
        self._previous = None if row.last else row.stamp
        self._rows.append(row)
        if row.last or len(self._rows) >= BATCH_ROWS:
            self._write()
        if row.last:
            self._writer.end_episode()
            self.episodes += 1

    def _write(self) -> None:
        stream = self._contract.observation.image
        try:
            pixels = np.stack([picture(row.image, stream) for row in self._rows])
        except DataError as error:
            raise DataError(f"{self._source}: {error}") from error
        no_action = np.full(self._contract.action.size, np.nan)
        columns: dict[str, Any] = {
            "pixels": pixels,
            "action": np.array(
                [no_action if row.action is None else row.action for row in self._rows], np.float32
            ),
            "stamp": np.array([row.stamp for row in self._rows], np.int64),
        }
        if self._contract.observation.joints:
            columns["joints"] = np.array([row.joints for row in self._rows], np.float32)
        self._writer.write(columns)
        self.frames += len(self._rows)
        self._rows.clear()


def _why_nothing(report: BagReport) -> str:
    return (
        f"{report.bag}: not one episode in it: {report.images} images ({report.surplus} surplus, "
        f"{report.duplicates} duplicate, {report.bad_joints} without usable joints), {report.actions} "
        f"actions, {report.without_action} ticks without an action. Were the camera, the joint states and "
        "the action node all running, with stamps from one clock?"
    )
