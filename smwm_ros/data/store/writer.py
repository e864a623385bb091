"""Writing an episode store."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self

from smwm_ros.contract import Contract
from smwm_ros.data.store.layout import (
    CHUNK_BYTES,
    INDEX,
    REQUIRED,
    Digests,
    EpisodeFacts,
    check_actions,
    check_columns,
    kinds,
    write_index,
)
from smwm_ros.data.store.output import NewFile
from smwm_ros.errors import DataError

Columns = Mapping[str, NDArray[Any]]


class EpisodeWriter:
    """
    Write an episode store, row by row or episode by episode, with bounded memory.

    Use it as a context manager. The file appears under its name only when the block ends without
    an exception; until then the rows are in a temporary file beside it, and a failure removes that.
    A file of the same name is replaced, at the end and at once.

    The columns are chunked, since nobody knows how many rows will come;
    :func:`smwm_ros.data.store.assemble.assemble` makes of it a store that readers can map into memory.
    """

    def __init__(self, path: Path | str, contract: Contract, source: Mapping[str, Any] | None = None) -> None:
        """
        Args:
            path: of the file to write.
            contract: what the rows were recorded under.
            source: where they came from, as JSON-able values; kept for people to read.

        Raises:
            DataError: the folder is missing or cannot be written.
        """
        self.path = Path(path)
        self.contract = contract
        self.source: dict[str, Any] = dict(source or {})
        self.fingerprint = ""
        """Of the contents; set once the file is complete."""
        self._lengths: list[int] = []
        self._facts: list[EpisodeFacts] = []
        self._rows = 0
        self._episode_rows = 0
        self._datasets: dict[str, h5py.Dataset] = {}
        self._digests = Digests()
        self._file = NewFile(self.path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._file:
            if kind is None:
                self._finish()

    def write(self, columns: Columns) -> None:
        """
        Add rows to the current episode.

        Args:
            columns: the same names, row shapes and types every time; ``pixels`` and ``action`` among them.

        Raises:
            DataError: columns are missing, of different lengths, or not as the contract says.
        """
        arrays = {name: np.ascontiguousarray(column) for name, column in sorted(columns.items())}
        self._check(arrays)
        if not self._datasets:
            self._create(arrays)
        count = len(arrays["action"])
        for name, array in arrays.items():
            self._datasets[name].resize(self._rows + count, axis=0)
            self._datasets[name][self._rows :] = array
            self._digests.update(name, array)
        self._file.check()
        self._rows += count
        self._episode_rows += count

    def end_episode(self, *, outcome: int = 0, label: str = "", origin: str = "") -> None:
        """
        Close the current episode; without rows in it, do nothing.

        Args:
            outcome: 0 unknown, 1 success, 2 failure, as in smwm_ros/msg/EpisodeEvent.
            label: free text, such as the task or the object.
            origin: where the rows come from, such as the bag.

        Raises:
            DataError: its actions are not finite up to the last row, the last row has one, or there
                is no such outcome.
        """
        if self._episode_rows == 0:
            return
        actions = self._datasets["action"][self._rows - self._episode_rows : self._rows]
        check_actions(actions, f"{self.path}: episode {len(self._lengths)}")
        self._facts.append(EpisodeFacts(outcome, label, origin))
        self._lengths.append(self._episode_rows)
        self._episode_rows = 0

    def append(self, columns: Columns, *, outcome: int = 0, label: str = "", origin: str = "") -> None:
        """Add one whole episode; see :meth:`write` and :meth:`end_episode`."""
        self.end_episode()
        self.write(columns)
        self.end_episode(outcome=outcome, label=label, origin=origin)

    def _check(self, arrays: Columns) -> None:
        missing = [name for name in REQUIRED if name not in arrays]
        if missing:
            raise DataError(f"{self.path}: rows without the columns {missing}; found {sorted(arrays)}")
        counts = {name: len(array) for name, array in arrays.items()}
        if len(set(counts.values())) != 1:
            raise DataError(f"{self.path}: columns differ in length: {counts}")
        clash = [name for name in arrays if name in INDEX]
        if clash:
            raise DataError(f"{self.path}: the columns {clash} are written by the store itself")
        check_columns(arrays, self.contract, str(self.path))
        found, before = kinds(arrays), kinds(self._datasets)
        if before and found != before:
            raise DataError(f"{self.path}: rows of {found} do not fit the earlier ones of {before}")

    def _create(self, arrays: Columns) -> None:
        for name, array in arrays.items():
            shape, kind = array.shape[1:], array.dtype
            rows = max(1, CHUNK_BYTES // (int(np.prod(shape)) * kind.itemsize))
            self._datasets[name] = self._file.hdf5.create_dataset(
                name, shape=(0, *shape), maxshape=(None, *shape), dtype=kind, chunks=(rows, *shape)
            )

    def _finish(self) -> None:
        self.end_episode()
        if not self._lengths:
            raise DataError(f"{self.path}: no episode was written, so there is nothing to keep")
        self.fingerprint = write_index(
            self._file.hdf5, self.contract, self._lengths, self._facts, self.source, self._digests
        )
        self._file.publish()
