"""One bag to its part: a store of its own, and a record that says what was read and how."""

from __future__ import annotations

import json
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
from typing_extensions import Self

from smwm_ros.contract import Contract, parse_contract
from smwm_ros.data.alignment import Row
from smwm_ros.data.bags.reader import BagReader
from smwm_ros.data.bags.topics import noted_contract
from smwm_ros.data.encodings import Picture
from smwm_ros.data.ingest.fingerprint import Looks, content, looks
from smwm_ros.data.ingest.quality import QualityMeter
from smwm_ros.data.ingest.report import BagReport
from smwm_ros.data.ingest.rows import BagRows, Progress
from smwm_ros.data.store.layout import OUTCOMES
from smwm_ros.data.store.writer import EpisodeWriter
from smwm_ros.errors import ContractError, DataError

BATCH_ROWS = 512
BATCH_BYTES = 1 << 24
"""Rows, and bytes of their pictures, that are handed to the store at once."""
BATCHES = 3
"""Those that may wait to be written."""
RATE_TOLERANCE = 0.1
"""Part by which the images' rate may differ from the contract's before the report says so."""
FROZEN_TOLERANCE = 0.01
"""Part of the images that may be the one before although the robot should have moved."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """A bag to read."""

    bag: Path
    contract: Contract
    """How to read it."""
    store_contract: Contract
    """What to write; it differs at most in names of topics."""
    namespace: str
    depth: bool
    key: str
    """Of the options: a part made under another key is of no use."""
    part: Path
    """Where to put the part; ``.h5`` and ``.json`` are added."""
    size: int
    """Bytes of the bag."""
    threads: int = 0
    """That decode images; 0 for none but the one that reads."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """What was read, how, and what came of it; all that is needed not to read it again."""

    key: str
    path: str
    """Of the bag, absolute."""
    looks: Looks
    content: str
    """Fingerprint of the bag."""
    contract: Contract
    """Under which the bag was read."""
    fingerprint: str
    """Of the part; empty where there was no episode."""
    report: BagReport

    def to_json(self) -> dict[str, Any]:
        """Return JSON-able values."""
        return {
            **{name: getattr(self, name) for name in ("key", "path", "content", "fingerprint")},
            "files": self.looks.files,
            "contract": self.contract.model_dump_json(),
            "report": asdict(self.report),
        }

    @classmethod
    def from_json(cls, content: Any) -> Self | None:
        """Undo :meth:`to_json`; None for what another version, or something else, has written."""
        try:
            return cls(
                **{name: str(content[name]) for name in ("key", "path", "content", "fingerprint")},
                looks=Looks(
                    tuple((str(name), int(size), int(time)) for name, size, time in content["files"])
                ),
                contract=parse_contract(content["contract"], "record"),
                report=BagReport.from_json(content["report"]),
            )
        except (KeyError, TypeError, ValueError, ContractError):
            return None


def read_record(part: Path) -> Record | None:
    """Read the record of a part; None if the part was not finished."""
    try:
        return Record.from_json(json.loads(part.with_suffix(".json").read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return None


def make_part(job: Job, progress: Progress | None = None) -> Record:
    """
    Read a bag into its part; the record is written last, and all at once.

    Raises:
        DataError: the bag cannot be read or lacks what is needed, or changed meanwhile.
    """
    before = looks(job.bag)
    given_up = Event()
    with ThreadPoolExecutor(1, "fingerprint") as pool, BagReader(job.bag) as bag:
        digest = pool.submit(content, job.bag, given_up)
        try:
            fingerprint, report = _write_part(job, bag, progress)
        except BaseException:
            given_up.set()
            raise
    if looks(job.bag) != before:
        raise DataError(f"{job.bag}: the bag changed while it was read; ingest it once it is complete")
    record = Record(
        key=job.key,
        path=str(job.bag.resolve()),
        looks=before,
        content=digest.result(),
        contract=job.contract,
        fingerprint=fingerprint,
        report=report,
    )
    file = job.part.with_suffix(".json")
    unfinished = file.with_suffix(".json.partial")
    unfinished.write_text(json.dumps(record.to_json()), encoding="utf-8")
    unfinished.replace(file)
    return record


def _write_part(job: Job, bag: BagReader, progress: Progress | None) -> tuple[str, BagReport]:
    """Write the rows of a bag; return their fingerprint, or none if there is no episode, and the report."""
    rows = BagRows(bag, job.contract, namespace=job.namespace, depth=job.depth, threads=job.threads)
    writer = EpisodeWriter(job.part.with_suffix(".h5"), job.store_contract)
    batches = _Batches(job, writer)
    with suppress(_NoEpisode), writer, batches:
        for row in rows.read(progress):
            batches.add(row)
        batches.flush()
        if not batches.meter.episodes:
            raise _NoEpisode
    return writer.fingerprint, _report(job, bag, rows, batches.meter)


class _NoEpisode(Exception):
    """There is nothing to make a store of."""


class _Batches:
    """
    Rows on their way into the store, many at a time; a context manager.

    A thread writes one batch after another, while the next ones are gathered.
    """

    def __init__(self, job: Job, writer: EpisodeWriter) -> None:
        self._contract = job.contract
        self._origin = str(job.bag)
        self._depth = job.depth
        self._writer = writer
        self._pool = ThreadPoolExecutor(1, "write")
        self._writing: deque[Future[None]] = deque()
        self._rows: list[Row[Picture]] = []
        size = job.contract.observation.image.size
        self._most = max(1, min(BATCH_ROWS, BATCH_BYTES // (3 * size * size)))
        self.meter = QualityMeter(job.contract)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # The store is closed next: nothing may be writing into it.
        self._pool.shutdown(wait=True, cancel_futures=True)

    def add(self, row: Row[Picture]) -> None:
        """Take a row; raise what went wrong with earlier ones."""
        self._rows.append(row)
        if row.last or len(self._rows) >= self._most:
            rows, self._rows = self._rows, []
            while len(self._writing) >= BATCHES:
                self._writing.popleft().result()
            self._writing.append(self._pool.submit(self._write, rows))

    def flush(self) -> None:
        """Wait until all is written, and raise what went wrong with it."""
        while self._writing:
            self._writing.popleft().result()

    def _write(self, rows: list[Row[Picture]]) -> None:
        contract = self._contract
        no_action = np.full(contract.action.size, np.nan)
        columns: dict[str, Any] = {
            "pixels": np.stack([row.image for row in rows]),
            "action": np.array([no_action if row.action is None else row.action for row in rows], np.float32),
            "stamp": np.array([row.stamp for row in rows], np.int64),
        }
        if contract.observation.joints:
            columns["joints"] = np.array([row.joints for row in rows], np.float32)
        if self._depth:
            side = contract.observation.image.size
            unknown = np.full((side, side), np.nan, np.float32)
            columns["depth"] = np.stack([unknown if row.depth is None else row.depth for row in rows])
        self._writer.write(columns)
        self.meter.add(columns["pixels"], columns["action"], rows)
        last = rows[-1]
        if last.last:
            outcome = last.outcome if last.outcome < len(OUTCOMES) else 0
            self._writer.end_episode(outcome=outcome, label=last.label, origin=self._origin)


def _report(job: Job, bag: BagReader, rows: BagRows, meter: QualityMeter) -> BagReport:
    aligner, gate = rows.aligner, rows.aligner.gate
    intervals = meter.intervals_ns
    p50, p99 = np.percentile(intervals, [50, 99]) if len(intervals) else (0.0, 0.0)
    episodes = meter.episodes
    time = meter.known_ns + aligner.unknown_ns
    report = BagReport(
        bag=str(job.bag),
        images=gate.images + rows.bad("image"),
        frames=sum(episode.rows for episode in episodes),
        episodes=len(episodes),
        actions=aligner.actions.received,
        surplus=gate.surplus,
        duplicates=gate.duplicates,
        late=gate.late,
        bad_images=rows.bad("image"),
        gaps=gate.gaps,
        jumps=gate.jumps,
        events=gate.ends,
        without_action=aligner.without_action,
        bad_joints=aligner.bad_joints,
        late_actions=aligner.actions.reordered,
        duplicate_actions=aligner.actions.duplicates,
        bad_commands=rows.bad("command"),
        without_depth=aligner.without_depth,
        rate=float(1e9 / p50) if p50 else 0.0,
        p50_ms=float(p50) * 1e-6,
        p99_ms=float(p99) * 1e-6,
        known=meter.known_ns / time if time else 0.0,
        frozen=sum(episode.frozen for episode in episodes),
        frozen_moving=sum(episode.frozen_moving for episode in episodes),
        interval_histogram=tuple(meter.interval_histogram()),
        coverage=tuple(meter.coverage()),
        quality=tuple(episodes),
        notes=(),
    )
    return BagReport(**{**vars(report), "notes": (*bag.notes, *_notes(job, bag, rows, report))})


def _notes(job: Job, bag: BagReader, rows: BagRows, report: BagReport) -> list[str]:
    notes = []
    with suppress(DataError, ContractError):
        if different := noted_contract(bag).differences(job.contract):
            notes.append(
                f"the bag was recorded under another contract than the one given: {'; '.join(different)}"
            )
    if rows.topics.commands:
        notes.append(
            f"the bag holds no applied_action: {rows.topics.actions} was taken for what was applied, as if "
            "every command took effect at once"
        )
    for count, kind, what in (
        (report.bad_images, "image", "images dropped"),
        (report.bad_commands, "command", "commands not understood"),
        (rows.bad("depth"), "depth", "depth images dropped"),
    ):
        if count:
            notes.append(f"{what}: {count}; the first: {rows.reasons[kind]}")
    if report.without_depth:
        notes.append(f"rows without a depth image within half a period: {report.without_depth}")
    rate = job.contract.rate
    if report.rate and abs(report.rate / rate - 1) > RATE_TOLERANCE:
        notes.append(
            f"images come at {report.rate:.1f} Hz, but the contract says {rate:g}; correct one of them"
        )
    if report.frozen_moving > FROZEN_TOLERANCE * report.frames:
        notes.append(
            f"{report.frozen_moving} of {report.frames} images are the one before, pixel by pixel, although "
            "the robot was told to move: does the camera freeze, or the robot not follow?"
        )
    for dimension in report.coverage:
        slack = 0.01 * (dimension.high - dimension.low)
        if dimension.minimum < dimension.low - slack or dimension.maximum > dimension.high + slack:
            notes.append(
                f"actions of {dimension.name} reach from {dimension.minimum:g} to {dimension.maximum:g} "
                f"{dimension.unit}, but the contract's limits are {dimension.low:g} and {dimension.high:g}"
            )
    return notes
