"""Writing an episode store."""

from __future__ import annotations

import hashlib
import io
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

from smwm_ros.contract import Contract
from smwm_ros.data.store.layout import CHUNK_BYTES, INDEX, REQUIRED, check_actions, check_columns
from smwm_ros.errors import DataError

Columns = Mapping[str, NDArray[Any]]


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
        self._datasets: dict[str, h5py.Dataset] = {}
        self._digests: dict[str, Any] = {}
        try:
            self._output = _Output(self._partial)
            self._file = h5py.File(self._output, "w")
        except OSError as error:
            raise DataError(
                f"{self.path}: cannot write the store ({error}); its folder must exist and be writable"
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
            self._file.close()
            self._output.close()
            self._partial.unlink(missing_ok=True)

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
            self._digests[name].update(array)
        self._output.check(self.path)
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
        actions = self._datasets["action"][self._rows - self._episode_rows : self._rows]
        check_actions(actions, f"{self.path}: episode {len(self._lengths)}")
        self._lengths.append(self._episode_rows)
        self._episode_rows = 0

    def append(self, columns: Columns) -> None:
        """Add one whole episode; see :meth:`write` and :meth:`end_episode`."""
        self.end_episode()
        self.write(columns)
        self.end_episode()

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
        found, before = _kinds(arrays), _kinds(self._datasets)
        if before and found != before:
            raise DataError(f"{self.path}: rows of {found} do not fit the earlier ones of {before}")

    def _create(self, arrays: Columns) -> None:
        for name, array in arrays.items():
            shape, kind = array.shape[1:], array.dtype
            rows = max(1, CHUNK_BYTES // (int(np.prod(shape)) * kind.itemsize))
            self._datasets[name] = self._file.create_dataset(
                name, shape=(0, *shape), maxshape=(None, *shape), dtype=kind, chunks=(rows, *shape)
            )
            self._digests[name] = hashlib.sha256(f"{name} {kind.str} {shape}".encode())

    def _finish(self) -> None:
        self.end_episode()
        if not self._lengths:
            raise DataError(f"{self.path}: no episode was written, so there is nothing to keep")
        lengths = np.array(self._lengths, np.int64)
        contract = self.contract.model_dump_json()
        digest = hashlib.sha256(contract.encode())
        digest.update(lengths.tobytes())
        for _, column in sorted(self._digests.items()):
            digest.update(column.digest())
        self.fingerprint = digest.hexdigest()[:16]
        self._file["ep_len"] = lengths
        self._file["ep_offset"] = np.cumsum(lengths) - lengths
        self._file.attrs["contract"] = contract
        self._file.attrs["fingerprint"] = self.fingerprint
        self._file.attrs["source"] = json.dumps(self.source)
        self._file.close()
        self._output.sync()
        self._output.check(self.path)
        self._partial.replace(self.path)


class _Output(io.FileIO):
    """
    A file that HDF5 writes through, and that never fails it.

    HDF5 cannot close a file whose writes fail, and crashes the process at its end. So an error is
    kept, what comes after it is thrown away, and ``check`` raises it.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, "w+")
        self._error: OSError | None = None

    def write(self, data: Any) -> int:
        """Write all of the data, or pretend to."""
        left = memoryview(data).cast("B")
        size = len(left)
        try:
            while left and self._error is None:
                left = left[super().write(left) :]
        except OSError as error:
            self._error = error
        return size

    def truncate(self, size: int | None = None) -> int:
        """Set the file's size, or pretend to."""
        try:
            return super().truncate(size) if self._error is None else 0
        except OSError as error:
            self._error = error
            return 0

    def sync(self) -> None:
        """Wait until the contents would survive a power cut."""
        try:
            os.fsync(self.fileno())
        except OSError as error:
            self._error = self._error or error

    def check(self, path: Path) -> None:
        """Raise a DataError if anything has failed."""
        if self._error is not None:
            raise DataError(
                f"{path}: writing failed ({self._error}). Is the disk full? Nothing was left behind."
            ) from self._error


def _kinds(columns: Mapping[str, Any]) -> dict[str, str]:
    """Describe what a row of each column is, to compare and to show."""
    return {name: f"{column.shape[1:]} {column.dtype}" for name, column in columns.items()}
