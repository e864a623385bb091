"""
Bags to training data: read, align, check, and write the episode store.

Each bag becomes a part beside the store, a store of its own; when all parts are there, they and the
episodes of bags that were read before are put together. So an ingest that was interrupted goes on
where it was, and one that has nothing new to read reads nothing.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from smwm_ros.contract import Contract
from smwm_ros.data.ingest.find import find_bags
from smwm_ros.data.ingest.parallel import make_parts
from smwm_ros.data.ingest.part import Job, Record
from smwm_ros.data.ingest.parts import Parts
from smwm_ros.data.ingest.plan import Options, Planned, plan, raise_all
from smwm_ros.data.ingest.report import BagReport, IngestReport
from smwm_ros.data.store.assemble import Piece, assemble
from smwm_ros.data.store.reader import EpisodeStore
from smwm_ros.errors import DataError, SmwmError

RECORDS = "ingested"
"""Name of the bags' records in what the store says of its source."""
READING, WRITING = "reading messages", "writing bytes"
WORTH_PROCESSES = 1 << 26
"""Bytes of bags from which on starting processes for them pays."""
OTHER_FILES = 256
"""Files that may be open besides the parts."""

Episodes = dict[tuple[str, str], range]
"""Where the episodes of bags are in a store, by how and what was read."""
Progress = Callable[[str, int, int], None]
"""Called with what is done now, how far it is, and how much there is."""


def ingest(
    bags: Sequence[Path | str],
    out: Path | str,
    *,
    contract: Contract | None = None,
    namespace: str = "",
    depth: bool = False,
    jobs: int | None = None,
    progress: Progress | None = None,
) -> IngestReport:
    """
    Read bags into one episode store.

    Row t of an episode is image t and the mean action applied from its stamp until the next image's;
    see :mod:`smwm_ros.data.alignment` for what begins and ends an episode. The episodes are in the
    order of the bags, and the same whatever the number of jobs.

    Args:
        bags: bags, folders that hold bags, or patterns; see :func:`smwm_ros.data.ingest.find.find_bags`.
        out: the store to write; it appears only when all went well, and then replaces what was there.
        contract: of the robot; by default the one that the recorder noted in each bag.
        namespace: of the robot, where a bag holds several.
        depth: add a column ``depth``, float32 metres of shape (N, S, S), NaN where nothing is known.
        jobs: processes that read bags, or threads that decode images of a single one; by default as
            many as there are cores. The processes are spawned, so a script that calls this guards its
            main part by ``if __name__ == "__main__"``.
        progress: called now and then.

    Raises:
        DataError: bags that cannot be read, lack what is needed, or differ in contract; or not one
            episode in all of them. What was read until then is kept beside ``out``.
        ContractError: the contract noted in a bag is not valid, or has no depth where it is wanted.
    """
    started = time.perf_counter()
    out = Path(out)
    options = Options(contract=contract, namespace=namespace, depth=depth)
    found = find_bags(bags)
    with Parts(out) as parts:
        store, records = _stored(out)
        planned = plan(found, options, [*records, *parts.records()])
        first = planned[0].contract
        todo = [bag for bag in planned if bag.record is None]
        new = _read(todo, options, first, parts, jobs or _cores(), progress)
        made = [bag.record or new[bag.bag] for bag in planned]
        reports = _without_copies(made)
        unchanged = not todo and [_identity(record) for record in made] == [*map(_identity, records)]
        if not unchanged:
            if not any(report.episodes for report in reports):
                parts.remove()
                raise DataError("\n".join(map(_why_nothing, reports)))
            _assemble(out, made, store, parts, progress)
        parts.remove()
    with EpisodeStore(out) as written:
        fingerprint = written.fingerprint
    return IngestReport(
        path=str(out),
        fingerprint=fingerprint,
        robot=first.name,
        rate=first.rate,
        bags=reports,
        read=tuple(str(bag.bag) for bag in todo),
        unchanged=unchanged,
        seconds=time.perf_counter() - started,
    )


def _stored(out: Path) -> tuple[Episodes, list[Record]]:
    """
    Return what an earlier ingest has put into a store.

    Returns:
        The episodes of each bag, and the bags' records in their order; nothing where there is no store,
        or one of which that is not known.
    """
    with suppress(DataError), EpisodeStore(out) as store:
        records = [Record.from_json(content) for content in store.source.get(RECORDS, ())]
        known = [record for record in records if record is not None]
        episodes: Episodes = {}
        end = 0
        for record in known:
            if _identity(record) not in episodes:
                episodes[_identity(record)] = range(end, end + record.report.episodes)
                end += record.report.episodes
        if len(known) == len(records) and end == store.episodes:
            return episodes, known
    return {}, []


def _read(
    todo: Sequence[Planned],
    options: Options,
    store_contract: Contract,
    parts: Parts,
    jobs: int,
    progress: Progress | None,
) -> dict[Path, Record]:
    """Make the parts that are missing."""
    small = sum(sum(bag.looks.sizes) for bag in todo) < WORTH_PROCESSES
    processes = 1 if small else max(1, min(jobs, len(todo)))
    threads = jobs // processes
    work = [
        Job(
            bag=bag.bag,
            contract=bag.contract,
            store_contract=store_contract,
            namespace=options.namespace,
            depth=options.depth,
            key=options.key,
            part=parts.path(bag.bag),
            size=sum(bag.looks.sizes),
            threads=threads if threads > 1 else 0,
        )
        for bag in todo
    ]
    total = sum(bag.messages for bag in todo)
    step = None if progress is None else lambda done: progress(READING, done, total)
    results = make_parts(work, processes, step)
    errors = [result for result in results if isinstance(result, SmwmError)]
    if errors and len(errors) < len(results):
        errors.append(
            DataError(
                f"{len(results) - len(errors)} other bags were read, and that is kept: mend these, or leave "
                "them out, and run the same command again"
            )
        )
    raise_all(errors)
    return {job.bag: result for job, result in zip(work, results, strict=True) if isinstance(result, Record)}


def _assemble(
    out: Path, made: Sequence[Record], stored: Episodes, parts: Parts, progress: Progress | None
) -> None:
    """Put the store together from the parts and from what it holds already."""
    _allow_open_files(len(made))
    with ExitStack() as stack:
        pieces = []
        before: EpisodeStore | None = None
        taken: set[str] = set()
        for record in made:
            if record.content in taken or not record.report.episodes:
                continue
            taken.add(record.content)
            if _identity(record) in stored:
                before = before or stack.enter_context(EpisodeStore(out))
                piece = Piece(before, stored[_identity(record)])
            else:
                part = parts.path(Path(record.path)).with_suffix(".h5")
                piece = Piece(stack.enter_context(EpisodeStore(part)))
            pieces.append(piece)
        step = None if progress is None else lambda done, total: progress(WRITING, done, total)
        source = {"bags": [record.path for record in made], RECORDS: [record.to_json() for record in made]}
        assemble(pieces, out, source=source, progress=step)


def _allow_open_files(count: int) -> None:
    """Ask the system for leave to have so many stores open at a time; usually it is 1024 at first."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + OTHER_FILES
    if soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _without_copies(made: Sequence[Record]) -> tuple[BagReport, ...]:
    """Return the bags' reports; a bag that is a copy of one before gives nothing."""
    reports = []
    first: dict[str, BagReport] = {}
    for record in made:
        report = record.report
        original = first.setdefault(record.content, report)
        if original is not report:
            report = report.nothing(f"a copy of {original.bag}: its episodes were taken once")
        reports.append(report)
    return tuple(reports)


def _identity(record: Record) -> tuple[str, str]:
    """Say how and what was read: what is the same in both has the same rows."""
    return record.key, record.content


def _cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _why_nothing(report: BagReport) -> str:
    return (
        f"{report.bag}: not one episode in it: {report.images} images ({report.surplus} surplus, "
        f"{report.duplicates} duplicate, {report.bad_images} unusable, {report.bad_joints} without usable "
        f"joints), {report.actions} actions, {report.without_action} ticks without an action. Were the "
        "camera, the joint states and the action node all running, with stamps from one clock?"
    )
