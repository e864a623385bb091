"""Reading an episode store; :mod:`smwm_ros.data.store.layout` says what is in one."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self

from smwm_ros.contract import parse_contract
from smwm_ros.data.store.layout import INDEX, REQUIRED, check_columns, facts_from_json
from smwm_ros.data.store.rows import FileIdentity, MappedRows, Rows, SlicedRows
from smwm_ros.errors import ContractError, DataError

MEMORY_BYTES = 1 << 30
"""A column up to this size is read into memory where it cannot be mapped."""
CHECK_ROWS = 1 << 20
"""Rows of actions that are looked at together."""


class EpisodeStore:
    """
    Read an episode store. Safe to use in forked workers: each process opens the file for itself.

    Attributes:
        path: of the file.
        contract: what the episodes were recorded under.
        fingerprint: of the contents, the same for the same data.
        lengths: rows of each episode, shape (E,).
        offsets: first row of each episode, shape (E,).
        facts: what else is known of each episode: outcome, label, origin.
    """

    def __init__(self, path: Path | str) -> None:
        """
        Open a store and check it.

        Raises:
            DataError: no such file, not a store, empty, or contents that contradict each other.
        """
        self.path = Path(path)
        if not self.path.is_file():
            raise DataError(
                f"{self.path}: no such episode store; `smwm ingest BAG --output {self.path}` makes one"
            )
        self._identity = FileIdentity(self.path)
        try:
            self._file = self._identity.open()
        except OSError as error:
            raise DataError(
                f"{self.path}: not a readable HDF5 file ({error}); if it is damaged, ingest its bags again"
            ) from error
        self._process = os.getpid()
        missing = [name for name in (*REQUIRED, *INDEX) if not isinstance(self._file.get(name), h5py.Dataset)]
        if missing:
            raise DataError(
                f"{self.path}: not an episode store: the columns {missing} are missing; "
                f"found {sorted(self._file)}"
            )
        if "contract" not in self._file.attrs:
            raise DataError(
                f"{self.path}: holds no robot contract (file attribute 'contract'), so its actions have no "
                "units; make the store with `smwm ingest`"
            )
        try:
            self.contract = parse_contract(str(self._file.attrs["contract"]), f"{self.path}: contract")
        except ContractError as error:
            raise DataError(str(error)) from error
        self.fingerprint = str(self._file.attrs.get("fingerprint", ""))
        self.source: dict[str, Any] = json.loads(str(self._file.attrs.get("source", "{}")))
        self.lengths: NDArray[np.int64] = self._file["ep_len"][:].astype(np.int64)
        self.offsets: NDArray[np.int64] = self._file["ep_offset"][:].astype(np.int64)
        self._validate()
        known = str(self._file.attrs.get("episode_facts", "{}"))
        self.facts = facts_from_json(known, self.episodes, str(self.path))

    @property
    def episodes(self) -> int:
        """E, the number of episodes."""
        return len(self.lengths)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns, sorted."""
        return tuple(sorted(name for name in self._file if name not in INDEX))

    def __len__(self) -> int:
        """Return N, the number of rows."""
        return int(self.lengths.sum())

    def column(self, name: str) -> h5py.Dataset:
        """
        Give a column to slice rows from, without reading it.

        Raises:
            DataError: no such column; names those that are there.
        """
        if self._process != os.getpid():
            # HDF5 handles do not survive a fork: two processes would share one file position.
            self._file = self._identity.open()
            self._process = os.getpid()
        if name not in self.columns:
            raise DataError(f"{self.path}: no column {name!r}; there are {', '.join(self.columns)}")
        return self._file[name]

    def read(self, name: str) -> NDArray[Any]:
        """
        Read a whole column into memory.

        Raises:
            DataError: no such column.
        """
        return self.column(name)[:]

    def rows(self, name: str) -> Rows:
        """
        Give a column to take rows from by their numbers, also in forked and spawned workers.

        A contiguous column is mapped into memory, whatever its size; others are read into memory up
        to ``MEMORY_BYTES``, and row by row beyond.

        Raises:
            DataError: no such column.
        """
        column = self.column(name)
        offset = column.id.get_offset()  # none where rows are chunked, or lie in other files
        if offset is not None and column.dtype.isnative:
            return MappedRows(self._identity, offset, column.dtype, column.shape)
        if column.size * column.dtype.itemsize <= MEMORY_BYTES:
            rows: NDArray[Any] = column[:]
            return rows.astype(rows.dtype.newbyteorder("="), copy=False)
        return SlicedRows(self._identity, name)

    def episode(self, number: int) -> dict[str, NDArray[Any]]:
        """
        Read one episode, every column.

        Raises:
            DataError: no such episode.
        """
        if not 0 <= number < self.episodes:
            raise DataError(f"{self.path}: no episode {number}; there are {self.episodes}, from 0")
        rows = slice(self.offsets[number], self.offsets[number] + self.lengths[number])
        return {name: self.column(name)[rows] for name in self.columns}

    def window_starts(self, span: int) -> NDArray[np.int64]:
        """
        Find every row t whose rows t..t+span (that last one included) lie in one episode.

        Args:
            span: ticks from the first row to the last; the actions of t..t+span-1 are all there.

        Returns:
            Rows in rising order, shape (W,).
        """
        counts = np.maximum(self.lengths - span, 0)
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        return np.repeat(self.offsets, counts) + within

    def attribute(self, name: str) -> str:
        """Return one of the file's attributes as it stands there; empty if it is not there."""
        return str(self._file.attrs.get(name, ""))

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _validate(self) -> None:
        """Raise a DataError if the columns contradict each other or the contract."""
        rows = {name: self._file[name].shape[0] for name in self.columns}
        if self.episodes == 0 or len(self) == 0:
            raise DataError(f"{self.path}: the store is empty; record and ingest some data first")
        if set(rows.values()) != {len(self)}:
            raise DataError(f"{self.path}: ep_len adds up to {len(self)} rows, but the columns have {rows}")
        if (
            len(self.offsets) != self.episodes
            or (self.offsets != np.cumsum(self.lengths) - self.lengths).any()
        ):
            raise DataError(f"{self.path}: ep_offset does not follow from ep_len; ingest the bags again")
        if (self.lengths < 1).any():
            raise DataError(f"{self.path}: ep_len holds episodes without rows; ingest the bags again")
        check_columns({name: self._file[name] for name in self.columns}, self.contract, str(self.path))
        # The last row of an episode has no action (see above): it is not looked at.
        last = np.zeros(len(self), bool)
        last[self.offsets + self.lengths - 1] = True
        for first in range(0, len(self), CHECK_ROWS):
            span = slice(first, first + CHECK_ROWS)
            bad = ~np.isfinite(self._file["action"][span]).all(axis=1) & ~last[span]
            if bad.any():
                row = first + int(np.flatnonzero(bad)[0])
                episode = int(np.searchsorted(self.offsets, row, side="right")) - 1
                raise DataError(
                    f"{self.path}: the action at row {row - self.offsets[episode]} of episode {episode} is "
                    "not finite; only the last row of an episode may lack one"
                )
