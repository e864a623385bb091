"""The folder beside a store in which its parts wait until all are there."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
from pathlib import Path

from typing_extensions import Self

from smwm_ros.data.ingest.part import Record, read_record
from smwm_ros.errors import DataError


class Parts:
    """
    Finished parts of one store; a context manager, which one process at a time may enter.

    They outlive a process that is killed, and one that leaves by an exception, so that the next one
    goes on from there.
    """

    def __init__(self, out: Path) -> None:
        self._out = out
        self._folder = out.with_name(f".{out.name}.parts")

    def __enter__(self) -> Self:
        try:
            self._folder.mkdir(exist_ok=True)
            self._lock = (self._folder / "lock").open("w")
        except OSError as error:
            raise DataError(
                f"{self._out}: cannot write the store ({error}); its folder must exist and be writable"
            ) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock.close()
            raise DataError(
                f"{self._out}: another ingest is writing this store; wait for it, or give another --output"
            ) from error
        for file in self._folder.iterdir():
            if file.name != "lock" and not (file.suffix in (".h5", ".json") and self._finished(file)):
                file.unlink()
        return self

    def __exit__(self, *_: object) -> None:
        if self._folder.exists() and not any(self._folder.glob("*.json")):
            self.remove()
        self._lock.close()

    def path(self, bag: Path) -> Path:
        """Return where the part of a bag belongs, without its suffix."""
        return self._folder / hashlib.sha256(str(bag.resolve()).encode()).hexdigest()[:16]

    def records(self) -> list[Record]:
        """Return the records of the finished parts."""
        return [record for file in sorted(self._folder.glob("*.json")) if (record := read_record(file))]

    def remove(self) -> None:
        """Throw all parts away."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _finished(self, file: Path) -> bool:
        record = read_record(file)
        if record is None:
            return False
        return file.with_suffix(".h5").exists() or not record.fingerprint
