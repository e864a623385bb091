"""A new HDF5 file that appears under its name only when it is whole."""

from __future__ import annotations

import io
import os
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
from typing_extensions import Self

from smwm_ros.errors import DataError


class NewFile:
    """
    An HDF5 file in the making; a context manager.

    Until :meth:`publish` it is a temporary file beside ``path``, which the end of the block removes.
    A file of the same name is replaced then, at once; who has it open goes on reading the old one.
    """

    def __init__(self, path: Path | str, alignment: int = 1) -> None:
        """
        Args:
            path: of the file to write.
            alignment: of where its columns begin, bytes.

        Raises:
            DataError: the folder is missing or cannot be written.
        """
        self.path = Path(path)
        self._partial = self.path.with_name(f".{self.path.name}.{os.getpid()}.partial")
        try:
            self._output = _Output(self._partial)
            self.hdf5 = h5py.File(
                self._output, "w", alignment_threshold=alignment, alignment_interval=alignment
            )
        except OSError as error:
            raise DataError(
                f"{self.path}: cannot write the store ({error}); its folder must exist and be writable"
            ) from error

    def check(self) -> None:
        """Raise a DataError if anything written so far did not reach the disk."""
        self._output.check(self.path)

    def publish(self) -> None:
        """
        Finish the file and give it its name.

        Raises:
            DataError: not all of it could be written.
        """
        self.hdf5.close()
        self._output.sync()
        self.check()
        self._partial.replace(self.path)

    def close(self) -> None:
        """Throw the file away, unless it was published."""
        self.hdf5.close()
        self._output.close()
        self._partial.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


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
