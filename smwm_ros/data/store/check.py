"""Whether an episode store is whole, and what in it a person should look at."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smwm_ros.data.store.layout import Digests, batches
from smwm_ros.data.store.reader import EpisodeStore
from smwm_ros.errors import DataError

BLACK = 8
"""An image without a brighter number is counted as black."""

Progress = Callable[[int, int], None]


@dataclass
class StoreCheck:
    """What a check found."""

    path: str
    problems: list[str] = field(default_factory=list)
    """Why the store is damaged; empty if it is not."""
    notes: list[str] = field(default_factory=list)
    """What can be right, and often is not."""
    counts: dict[str, int] = field(default_factory=dict)
    """``rows`` and ``episodes``, and what the notes count."""


def check_store(path: Path | str, progress: Progress | None = None) -> StoreCheck:
    """
    Read all of a store and check it, with bounded memory.

    A store is damaged if it is not laid out as one, if its numbers contradict each other or the
    contract, if a stamp does not rise, or if the contents are not those of the fingerprint.

    Args:
        path: of the store.
        progress: called now and then with the bytes read and all of them.

    Raises:
        DataError: no such file.
    """
    report = StoreCheck(str(path))
    if not Path(path).is_file():
        raise DataError(f"{path}: no such episode store")
    try:
        with EpisodeStore(path) as store:
            report.counts = {"rows": len(store), "episodes": store.episodes}
            _check_rows(store, report, progress or (lambda done, total: None))
    except DataError as error:
        report.problems.append(str(error))
    except OSError as error:  # a chunk that cannot be unpacked
        report.problems.append(f"{path}: rows cannot be read ({error})")
    return report


def _check_rows(store: EpisodeStore, report: StoreCheck, progress: Progress) -> None:
    """Look at every row once: columns one after another, each in its order."""
    digests = Digests()
    columns = {name: store.column(name) for name in store.columns}
    total = sum(column.size * column.dtype.itemsize for column in columns.values())
    done = 0
    looks: dict[str, _Look] = {"action": _Actions(store), "stamp": _Stamps(store), "pixels": _Images(store)}
    for name, column in columns.items():
        look = looks.get(name)
        for first, rows in batches(column, 0, len(store)):
            digests.update(name, rows)
            if look:
                look.at(first, rows)
            done += rows.nbytes
            progress(done, total)
        if look:
            look.report(report)
    found = digests.fingerprint(store.contract, store.lengths)
    if found != store.fingerprint:
        report.problems.append(
            f"the contents have the fingerprint {found}, but the store was written with "
            f"{store.fingerprint or 'none'}: something was changed or damaged since; make it again"
        )


class _Look:
    """What is looked for in one column, a few rows at a time."""

    def __init__(self, store: EpisodeStore) -> None:
        self.store = store
        self._starts = np.zeros(len(store), bool)
        self._starts[store.offsets] = True
        self._before: NDArray[Any] | None = None

    def at(self, first: int, rows: NDArray[Any]) -> None:
        """Look at the rows from number ``first`` on."""
        raise NotImplementedError

    def report(self, report: StoreCheck) -> None:
        """Say what was found."""
        raise NotImplementedError

    def pairs(self, first: int, rows: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.bool_]]:
        """Return rows, those before them, and whether both are of one episode; none come twice."""
        joined = rows if self._before is None else np.concatenate([self._before, rows])
        self._before = rows[-1:]
        within = ~self._starts[first + len(rows) - len(joined) + 1 : first + len(rows)]
        return joined[1:], joined[:-1], within

    def place(self, row: int) -> str:
        """Name a row for people."""
        episode = int(np.searchsorted(self.store.offsets, row, side="right")) - 1
        return f"row {row - self.store.offsets[episode]} of episode {episode}"


class _Actions(_Look):
    """Values outside the contract's limits."""

    outside = 0

    def at(self, first: int, rows: NDArray[Any]) -> None:
        limits = self.store.contract.action
        # The limits as the rows hold them: 0.1 is another number in 32 bits.
        low, high = limits.low.astype(rows.dtype), limits.high.astype(rows.dtype)
        self.outside += int(((rows < low) | (rows > high)).any(axis=1).sum())

    def report(self, report: StoreCheck) -> None:
        report.counts["actions_outside_limits"] = self.outside
        if self.outside:
            report.notes.append(
                f"{self.outside} actions lie outside the contract's low and high; are the units the same?"
            )


class _Stamps(_Look):
    """Stamps that do not rise, and images that are missing between two."""

    gaps = 0
    falling: int | None = None

    def at(self, first: int, rows: NDArray[Any]) -> None:
        later, earlier, within = self.pairs(first, rows)
        steps = (later - earlier)[within]
        if self.falling is None and (steps <= 0).any():
            which = np.flatnonzero(within)[np.flatnonzero(steps <= 0)[0]]
            self.falling = first + len(rows) - len(later) + int(which)
        self.gaps += int((steps > self.store.contract.max_gap_ns).sum())

    def report(self, report: StoreCheck) -> None:
        report.counts["gaps"] = self.gaps
        if self.falling is not None:
            report.problems.append(f"the stamp at {self.place(self.falling)} is not after the one before")
        if self.gaps:
            report.notes.append(
                f"{self.gaps} times an image comes later than the contract's max_gap within an episode"
            )


class _Images(_Look):
    """Images that say nothing: black ones, and those equal to the one before."""

    black = frozen = longest = run = 0

    def at(self, first: int, rows: NDArray[Any]) -> None:
        self.black += int((rows.reshape(len(rows), -1).max(axis=1) < BLACK).sum())
        later, earlier, within = self.pairs(first, rows)
        same = (later == earlier).all(axis=(1, 2, 3)) & within
        self.frozen += int(same.sum())
        for length, ended in _runs(same):
            self.run += length
            self.longest = max(self.longest, self.run)
            if ended:
                self.run = 0

    def report(self, report: StoreCheck) -> None:
        report.counts |= {"black_images": self.black, "frozen_images": self.frozen}
        report.counts["longest_freeze"] = self.longest
        if self.black:
            report.notes.append(f"{self.black} images are black")
        if self.frozen:
            report.notes.append(
                f"{self.frozen} images equal the one before, {self.longest} in a row at most: "
                "either the robot stood still, or the camera"
            )


def _runs(flags: NDArray[np.bool_]) -> Iterator[tuple[int, bool]]:
    """Yield the lengths of the runs of True, and whether each ends before the flags do."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]])))
    if len(flags) and not flags[0]:
        yield 0, True
    for start, stop in edges.reshape(-1, 2):
        yield int(stop - start), bool(stop < len(flags))
