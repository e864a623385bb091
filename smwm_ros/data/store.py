"""
The episode store: aligned episodes in one HDF5 file, in the layout of LeWM and stable-worldmodel.

Every column is a dataset with one row per tick, all episodes after one another; ``ep_len`` and
``ep_offset`` (int64, one per episode) say where each lies:

========  ======================  ===============================================================
pixels    (N, S, S, 3) uint8      RGB, as the encoder sees it
action    (N, A) float32          applied from this image until the next, in the contract's units;
                                  NaN in the last row of an episode, where no next image is
stamp     (N,) int64              of the image, nanoseconds
others    (N, ...)                state columns such as ``joints``
========  ======================  ===============================================================

The file's attributes hold the contract (JSON), a fingerprint of the contents, and where they came
from (JSON).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self

from smwm_ros.contract import Contract, parse_contract
from smwm_ros.errors import ContractError, DataError

Columns = Mapping[str, NDArray[Any]]

REQUIRED = ("pixels", "action")
INDEX = ("ep_len", "ep_offset")
CHUNK_BYTES = 1 << 18
"""Bytes in one chunk: large enough for fast sequential writes, small enough for random windows."""


class EpisodeWriter:
    """
    Write an episode store, row by row or episode by episode, with bounded memory.

    Use it as a context manager. The file appears under its name only when the block ends without
    an exception; until then the rows are in a temporary file beside it, and a failure removes that.
    A file of the same name is replaced, at the end and at once.
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
        self._partial = self.path.with_name(f".{self.path.name}.{os.getpid()}.partial")
        self._lengths: list[int] = []
        self._rows = 0
        self._episode_rows = 0
        self._digests: dict[str, Any] = {}
        try:
            self._file = h5py.File(self._partial, "w", libver="latest")
        except OSError as error:
            raise DataError(
                f"{self.path}: cannot write the episode store ({error}); its folder must exist and be writable"
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            if self._file:
                self._file.close()
            self._partial.unlink(missing_ok=True)

    def write(self, columns: Columns) -> None:
        """
        Add rows to the current episode.

        Args:
            columns: the same names, row shapes and types every time; ``pixels`` and ``action`` among them.

        Raises:
            DataError: columns are missing, of different lengths, or not as the contract says.
        """
        arrays = {name: np.ascontiguousarray(column) for name, column in columns.items()}
        count = self._check(arrays)
        for name, array in sorted(arrays.items()):
            if name not in self._file:
                rows = max(1, CHUNK_BYTES // max(1, array[:1].nbytes))
                self._file.create_dataset(
                    name,
                    shape=(0, *array.shape[1:]),
                    maxshape=(None, *array.shape[1:]),
                    dtype=array.dtype,
                    chunks=(rows, *array.shape[1:]),
                )
                self._digests[name] = hashlib.sha256(f"{name} {array.dtype.str} {array.shape[1:]}".encode())
            dataset = self._file[name]
            try:
                dataset.resize(self._rows + count, axis=0)
                dataset[self._rows :] = array
            except OSError as error:
                raise DataError(
                    f"{self.path}: writing failed ({error}). Is the disk full? Nothing was left behind."
                ) from error
            self._digests[name].update(array)
        self._rows += count
        self._episode_rows += count

    def end_episode(self) -> None:
        """
        Close the current episode; without rows in it, do nothing.

        Raises:
            DataError: its actions are not finite up to the last row, or the last row has one.
        """
        if self._episode_rows == 0:
            return
        actions = self._file["action"][self._rows - self._episode_rows : self._rows]
        _check_actions(actions, f"{self.path}: episode {len(self._lengths)}")
        self._lengths.append(self._episode_rows)
        self._episode_rows = 0

    def append(self, columns: Columns) -> None:
        """Add one whole episode; see :meth:`write` and :meth:`end_episode`."""
        self.end_episode()
        self.write(columns)
        self.end_episode()

    def _check(self, arrays: Columns) -> int:
        """Return how many rows there are, having found nothing wrong."""
        missing = [name for name in REQUIRED if name not in arrays]
        if missing:
            raise DataError(f"{self.path}: rows without the columns {missing}; found {sorted(arrays)}")
        counts = {name: len(array) for name, array in arrays.items()}
        if len(set(counts.values())) != 1:
            raise DataError(f"{self.path}: columns differ in length: {counts}")
        clash = [name for name in arrays if name in INDEX]
        if clash:
            raise DataError(f"{self.path}: the columns {clash} are written by the store itself")
        for name, array in arrays.items():
            if self._digests and (name not in self._file or self._file[name].shape[1:] != array.shape[1:]):
                raise DataError(
                    f"{self.path}: column {name!r} with rows {array.shape[1:]} differs from the earlier rows"
                )
        if self._digests and len(arrays) != len(self._digests):
            raise DataError(
                f"{self.path}: expected the columns {sorted(self._digests)}, found {sorted(arrays)}"
            )
        _check_columns(arrays, self.contract, str(self.path))
        return counts["pixels"]

    def _finish(self) -> None:
        self.end_episode()
        if not self._lengths:
            raise DataError(f"{self.path}: no episode was written, so there is nothing to keep")
        lengths = np.array(self._lengths, np.int64)
        self._file["ep_len"] = lengths
        self._file["ep_offset"] = np.cumsum(lengths) - lengths
        contract = self.contract.model_dump_json()
        digest = hashlib.sha256(contract.encode())
        digest.update(lengths.tobytes())
        for _, column in sorted(self._digests.items()):
            digest.update(column.digest())
        self.fingerprint = digest.hexdigest()[:16]
        self._file.attrs["contract"] = contract
        self._file.attrs["fingerprint"] = self.fingerprint
        self._file.attrs["source"] = json.dumps(self.source)
        try:
            self._file.close()
            with self._partial.open("rb") as file:
                os.fsync(file.fileno())
            self._partial.replace(self.path)
        except OSError as error:
            raise DataError(f"{self.path}: writing failed ({error}). Is the disk full?") from error


class EpisodeStore:
    """
    Read an episode store. Safe to use in forked workers: each process opens the file for itself.

    Attributes:
        path: of the file.
        contract: what the episodes were recorded under.
        fingerprint: of the contents, the same for the same data.
        lengths: rows of each episode, shape (E,).
        offsets: first row of each episode, shape (E,).
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
        try:
            self._file = h5py.File(self.path, "r")
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
            self._file = h5py.File(self.path, "r")
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
        _check_columns({name: self._file[name] for name in self.columns}, self.contract, str(self.path))
        finite = np.isfinite(self._file["action"][:]).all(axis=1)
        # The last row of an episode has no action (see above): it is not looked at.
        finite[self.offsets + self.lengths - 1] = True
        if not finite.all():
            row = int(np.flatnonzero(~finite)[0])
            episode = int(np.searchsorted(self.offsets, row, side="right")) - 1
            raise DataError(
                f"{self.path}: the action at row {row - self.offsets[episode]} of episode {episode} is not "
                "finite; only the last row of an episode may lack one"
            )


def _check_columns(columns: Mapping[str, Any], contract: Contract, source: str) -> None:
    """Raise a DataError if pixels or actions are not as the contract says."""
    size = contract.observation.image.size
    pixels, action = columns["pixels"], columns["action"]
    if pixels.shape[1:] != (size, size, 3) or pixels.dtype != np.uint8:
        raise DataError(
            f"{source}: pixels are {pixels.shape[1:]} {pixels.dtype}; the contract {contract.name!r} expects "
            f"{(size, size, 3)} uint8"
        )
    if action.shape[1:] != (contract.action.size,) or action.dtype.kind != "f":
        raise DataError(
            f"{source}: actions are {action.shape[1:]} {action.dtype}; the contract {contract.name!r} "
            f"expects {(contract.action.size,)} floats"
        )


def _check_actions(actions: NDArray[Any], source: str) -> None:
    """Raise a DataError unless exactly the last row lacks its action."""
    if not np.isfinite(actions[:-1]).all():
        row = int(np.flatnonzero(~np.isfinite(actions[:-1]).all(axis=1))[0])
        raise DataError(f"{source}: the action of row {row} is not finite; only the last row may lack one")
    if not np.isnan(actions[-1]).all():
        raise DataError(
            f"{source}: the last row has an action, but no image follows it; set the action to NaN, "
            "or give the last image"
        )
