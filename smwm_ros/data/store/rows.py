"""Rows of a column by their numbers, in whatever process: mapped into memory, or read as asked for."""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self

from smwm_ros.errors import DataError

CACHE_BYTES = 1 << 26
"""Of decompressed chunks that a process keeps, where a column cannot be mapped."""


class FileIdentity:
    """Which file a path led to; when it is opened again, it must be the same."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._identity = self._look()

    def open(self, **options: Any) -> h5py.File:
        """
        Open the file once more.

        Raises:
            DataError: another file lies there now.
        """
        self.check()
        return h5py.File(self.path, "r", **options)

    def check(self) -> None:
        """Raise a DataError if another file lies there now."""
        if self._look() != self._identity:
            raise DataError(f"{self.path}: was replaced or changed while it was being read; start again")

    def _look(self) -> tuple[int, int, int] | None:
        try:
            found = self.path.stat()
        except OSError:
            return None
        return found.st_ino, found.st_size, found.st_mtime_ns


class MappedRows:
    """
    Rows of a contiguous column, out of the file's pages in the system's cache.

    Nothing is read before it is asked for, and processes share what was: a file may be larger than
    the memory. Forked and spawned workers can use it.
    """

    def __init__(
        self, identity: FileIdentity, offset: int, dtype: np.dtype[Any], shape: tuple[int, ...]
    ) -> None:
        """
        Args:
            identity: of the file.
            offset: of the first row, bytes.
            dtype: of the numbers.
            shape: rows, and the shape of one.
        """
        identity.check()
        self._arguments = (identity, offset, dtype, shape)
        self.shape, self.dtype = shape, dtype
        # A plain array: numpy's memmap does extra work for every result.
        self._array = np.asarray(np.memmap(identity.path, dtype, "r", offset, shape))

    def __getitem__(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Return copies of the rows with these numbers."""
        return self._array.take(rows, axis=0)

    def __reduce__(self) -> tuple[type[Self], tuple[Any, ...]]:
        # Pickled as an array, a spawned worker would get the whole file through a pipe.
        return type(self), self._arguments


class SlicedRows:
    """Rows of a column that is chunked or compressed, read and unpacked each time they are asked for."""

    def __init__(self, identity: FileIdentity, name: str) -> None:
        """
        Args:
            identity: of the file.
            name: of the column.
        """
        self._arguments = (identity, name)
        self._process = -1
        column = self._column()
        self.shape = column.shape
        self.dtype = column.dtype.newbyteorder("=")

    def __getitem__(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Return copies of the rows with these numbers."""
        column = self._column()
        wanted, places = np.unique(rows, return_inverse=True)
        found = np.empty((len(wanted), *self.shape[1:]), self.dtype)
        bounds = [0, *(np.flatnonzero(np.diff(wanted) != 1) + 1), len(wanted)]
        for first, last in pairwise(bounds):
            if first < last:
                found[first:last] = column[wanted[first] : wanted[last - 1] + 1]
        return found[places.reshape(rows.shape)]

    def __reduce__(self) -> tuple[type[Self], tuple[Any, ...]]:
        return type(self), self._arguments

    def _column(self) -> h5py.Dataset:
        if self._process != os.getpid():
            # HDF5 handles do not survive a fork: two processes would share one file position.
            identity, name = self._arguments
            self._dataset = identity.open(rdcc_nbytes=CACHE_BYTES)[name]
            self._process = os.getpid()
        return self._dataset


Rows = NDArray[Any] | MappedRows | SlicedRows
"""A column whose rows are taken by an array of numbers: its shape, then that of a row."""
