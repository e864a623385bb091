"""MCAP files that were cut off while being written: where they end, and how to read them up to there."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

MAGIC = b"\x89MCAP0\r\n"
DATA_END, FOOTER = 0x0F, 0x02
# The records that make a file whole which has no summary: DataEnd without a checksum, and a
# footer that refers to nothing (mcap.dev/spec).
ENDING = (
    bytes([DATA_END])
    + (4).to_bytes(8, "little")
    + bytes(4)
    + bytes([FOOTER])
    + (20).to_bytes(8, "little")
    + bytes(20)
    + MAGIC
)


class CutOff:
    """The path of a file that reads as if it ended properly at ``end``."""

    def __init__(self, path: Path, end: int) -> None:
        self.path = path
        self.end = end
        self.name = path.name
        self.suffix = path.suffix

    def __str__(self) -> str:
        return str(self.path)

    def exists(self) -> bool:
        """As of the path."""
        return self.path.exists()

    def is_dir(self) -> bool:
        """As of a file."""
        return False

    def open(self, mode: str = "rb") -> io.BufferedReader:
        """Open the file as if it were whole."""
        return io.BufferedReader(_Ended(self.path, self.end))


class _Ended(io.RawIOBase):
    """The first ``end`` bytes of a file, and then the records that end an MCAP file."""

    def __init__(self, path: Path, end: int) -> None:
        self._file = path.open("rb")
        self._end = end
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = (0, self._position, self._end + len(ENDING))[whence]
        self._position = max(0, base + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        if self._position < self._end:
            self._file.seek(self._position)
            data = self._file.read(min(len(buffer), self._end - self._position))
        else:
            start = self._position - self._end
            data = ENDING[start : start + len(buffer)]
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()


def cut_off_at(path: Path) -> int | None:
    """Return where the last complete record of an MCAP file ends; None if the file is whole."""
    size = path.stat().st_size
    with path.open("rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            return 0
        file.seek(max(0, size - len(MAGIC)))
        if size > 2 * len(MAGIC) and file.read() == MAGIC:
            return None
        end = len(MAGIC)
        while True:
            file.seek(end)
            head = file.read(9)
            following = end + 9 + int.from_bytes(head[1:], "little")
            # No record is of kind 0: after a power cut, a file may go on in zeros.
            if len(head) < 9 or following > size or head[0] in (0, DATA_END):
                return end if end > len(MAGIC) else 0
            end = following
