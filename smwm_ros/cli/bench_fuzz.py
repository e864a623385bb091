"""What damaged bags do to those who read them: nothing but a message."""

from __future__ import annotations

import multiprocessing
import resource
import shutil
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import numpy as np

from smwm_ros.cli.bag_mutations import mutate
from smwm_ros.cli.small_bags import Files, small_bags, write_files
from smwm_ros.contract import Contract
from smwm_ros.data.bags.reader import BagReader
from smwm_ros.data.bags.recover import recover
from smwm_ros.data.ingest.ingest import ingest
from smwm_ros.data.ingest.parallel import one_thread_of_opencv
from smwm_ros.errors import SmwmError

MEMORY = 2**30
"""Bytes of address space that a worker may take beyond what it begins with."""
PATIENCE = 30.0
"""Seconds after which a bag counts as one that hangs its reader; they take hundredths."""
OUTCOMES = ("refused", "recovered", "unharmed", "undetected")
Raw = list[tuple[str, int, bytes]]


@dataclass
class Case:
    """What became of one damaged bag."""

    number: int
    format: str
    mutation: str
    outcome: str = ""
    """One of ``OUTCOMES``, or ``crash`` or ``hang``."""
    detail: str = ""
    """What was raised, if it should not have been."""
    seconds: float = 0.0
    memory: int = 0
    """Most that the worker has had in memory so far, kB."""

    @property
    def missed(self) -> bool:
        """Whether checksums should have told: those of chunks, unless they were forged."""
        checked = self.format in ("zstd", "none") and not self.mutation.startswith("forged")
        return checked and self.outcome == "undetected"


@dataclass
class FuzzReport:
    """What became of many."""

    cases: list[Case] = field(default_factory=list)
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Return the figures."""
        found = Counter(case.outcome for case in self.cases)
        return {
            "count": len(self.cases),
            "crashes": found["crash"],
            "hangs": found["hang"],
            **{outcome: found[outcome] for outcome in OUTCOMES},
            "undetected_despite_checksums": sum(case.missed for case in self.cases),
            "slowest_s": max((case.seconds for case in self.cases), default=0.0),
            "peak_rss_mb": max((case.memory for case in self.cases), default=0) / 1024,
            "seconds": self.seconds,
            "faults": [
                f"{case.number} ({case.format}, {case.mutation}): {case.outcome} {case.detail}"
                for case in self.cases
                if case.outcome in ("crash", "hang") or case.missed
            ],
        }


def bench_fuzz(
    count: int, *, seed: int = 0, workers: int = 2, progress: Callable[[int], None] | None = None
) -> FuzzReport:
    """
    Damage small bags at random, and give each to the reader, to recovery and to ingest.

    They run in processes with little memory, so that one that is taken down, hangs or fills the memory
    is seen as such. A bag is

    - ``unharmed`` if the reader gives all that was recorded,
    - ``recovered`` if only messages that were recorded are read, or are in the bag that recovery makes,
    - ``undetected`` if other messages are read: what no checksum protects, such as the rows of SQLite,
    - ``refused`` if both say what is wrong with it,
    - a ``crash`` if anything but an error of this package's own comes out, or the process ends.

    Args:
        count: of damaged bags.
        seed: of the damage; the case of a number is the same whatever the count.
        workers: processes.
        progress: called with the number of bags done.
    """
    started = time.monotonic()
    report = FuzzReport()
    # OpenCV ends its threads here: a forked process that is to end them, as ingest does, waits for ever.
    with one_thread_of_opencv(), tempfile.TemporaryDirectory(prefix="smwm-fuzz-", dir=_fast_folder()) as name:
        folder = Path(name)
        contract, bags = small_bags(folder / "bases")
        target = _Target(contract, bags, seed, folder)
        pool = [_Worker(target) for _ in range(workers)]
        numbers = iter(range(count))
        try:
            busy = [worker for worker in pool if worker.give(next(numbers, None))]
            while busy:
                ready = set(wait([worker.pipe for worker in busy], timeout=1.0))
                for worker in list(busy):
                    case = worker.result(worker.pipe in ready)
                    if case is None:
                        continue
                    report.cases.append(case)
                    if not worker.give(next(numbers, None)):
                        busy.remove(worker)
                if progress is not None:
                    progress(len(report.cases))
        finally:
            for worker in pool:
                worker.end()
    report.cases.sort(key=lambda case: case.number)
    report.seconds = time.monotonic() - started
    return report


@dataclass
class _Target:
    """What a worker needs to make any case."""

    contract: Contract
    bags: dict[str, Files]
    seed: int
    folder: Path

    def __post_init__(self) -> None:
        self.original: dict[str, Raw] = {}
        for name, files in self.bags.items():
            write_files(self.folder / "bag", files)
            with BagReader(self.folder / "bag") as bag:
                self.original[name] = list(bag.raw(bag.topics))
            shutil.rmtree(self.folder / "bag")

    def run(self, number: int, folder: Path) -> Case:
        """Make a case and see what comes of it."""
        generator = np.random.default_rng([self.seed, number])
        name = list(self.bags)[generator.integers(len(self.bags))]
        mutation, files = mutate(self.bags[name], generator, folder)
        case = Case(number, name, mutation.strip("_"))
        bag = folder / "bag"
        write_files(bag, files)
        started = time.monotonic()
        try:
            case.outcome = self._judge(bag, folder, self.original[name])
        except BaseException as error:
            frames = error.__traceback__
            while frames is not None and frames.tb_next is not None:
                frames = frames.tb_next
            place = "" if frames is None else f" in {frames.tb_frame.f_code.co_filename}:{frames.tb_lineno}"
            case.outcome, case.detail = "crash", f"{type(error).__name__}: {str(error)[:300]}{place}"
        case.seconds = time.monotonic() - started
        case.memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for made in folder.iterdir():
            shutil.rmtree(made) if made.is_dir() else made.unlink()
        return case

    def _judge(self, bag: Path, folder: Path, original: Raw) -> str:
        read = _attempt(lambda: _raw(bag))
        _attempt(lambda: _messages(bag))
        mended = _attempt(lambda: _raw(Path(recover(bag, folder / "new").path)))
        _attempt(lambda: ingest([bag], folder / "store.h5", contract=self.contract, jobs=1))
        if read == original:
            return "unharmed"
        if read is None and mended is None:
            return "refused"
        true = Counter(original)
        return "recovered" if Counter(read) <= true and Counter(mended) <= true else "undetected"


def _raw(path: Path) -> Raw:
    with BagReader(path) as bag:
        return list(bag.raw(bag.topics))


def _messages(path: Path) -> None:
    with BagReader(path) as bag:
        for _ in bag.messages(bag.topics):
            pass


def _attempt(action: Callable[[], Any]) -> Any:
    """Return what an action gives; None if it is refused, with a message."""
    try:
        return action()
    except SmwmError as error:
        if not str(error):
            raise ValueError("an error without a message") from error
        return None


class _Worker:
    """A process that works on one case after the other, and is replaced when one takes it down."""

    def __init__(self, target: _Target) -> None:
        self._target = target
        self._number: int | None = None
        self._begun = 0.0
        self._start()

    def give(self, number: int | None) -> bool:
        """Set it to work on a case; tell whether there was one."""
        self._number, self._begun = number, time.monotonic()
        if number is not None:
            self.pipe.send(number)
        return number is not None

    def result(self, ready: bool) -> Case | None:
        """Return what came of the case, if that is known by now."""
        assert self._number is not None
        if ready:
            try:
                case: Case = self.pipe.recv()
                return case
            except (EOFError, OSError):
                self._process.join()
                outcome, detail = "crash", f"the process ended with {self._process.exitcode}"
        elif time.monotonic() - self._begun > PATIENCE:
            outcome, detail = "hang", f"after {PATIENCE:g} s"
        else:
            return None
        self.end()
        self._start()
        return Case(self._number, "", "", outcome, detail, time.monotonic() - self._begun)

    def end(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.join()
        self.pipe.close()

    def _start(self) -> None:
        context = multiprocessing.get_context("fork")
        self.pipe, inner = context.Pipe()
        self._process = context.Process(target=_serve, args=(self._target, inner), daemon=True)
        self._process.start()
        inner.close()


def _serve(target: _Target, pipe: Connection) -> None:
    status = Path("/proc/self/statm").read_text(encoding="ascii")
    limit = int(status.split()[0]) * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    warnings.simplefilter("ignore")  # of numpy, about the absurd numbers in damaged messages
    with tempfile.TemporaryDirectory(prefix="worker-", dir=target.folder) as name:
        while True:
            try:
                number = pipe.recv()
            except EOFError:
                return
            pipe.send(target.run(number, Path(name)))


def _fast_folder() -> str | None:
    """Return where files live in memory, if that is known; waiting for disks shows nothing here."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None
