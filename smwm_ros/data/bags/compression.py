"""Decompressing what may be damaged, or made to fill the memory."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from lz4.frame import LZ4FrameDecompressor  # type: ignore[import-untyped]

from smwm_ros.errors import DataError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

LARGEST = 2**30
"""Bytes of the largest chunk or message that is read; recorders make chunks of about 1 MiB."""
SMALL = 2**26
"""Bytes up to which any rate of compression is believed: zstd makes 8 kB of 256 MB of zeros."""
BEST_RATE = 1000
"""Times by which what is larger may have been compressed."""


def largest_content(compressed: int) -> int:
    """Return up to how many bytes are believed to come out of some compressed ones."""
    return min(LARGEST, max(SMALL, BEST_RATE * compressed))


def decompress(data: bytes, compression: str, size: int | None = None) -> bytes:
    """
    Decompress one frame, without ever taking more memory than it should need.

    Args:
        data: the frame.
        compression: ``zstd``, ``lz4``, or empty.
        size: bytes that must come out; None if that is not known.

    Raises:
        DataError: the data are damaged, or give another or an absurd number of bytes.
    """
    limit = largest_content(len(data)) if size is None else size
    if limit > largest_content(len(data)):
        raise DataError(f"{len(data)} bytes are said to hold {limit}, which is not believed")
    if compression == "":
        content = data
    else:
        decompressor: Any
        if compression == "zstd":
            decompressor = zstd.ZstdDecompressor()
        elif compression == "lz4":
            decompressor = LZ4FrameDecompressor()
        else:
            raise DataError(f"the compression {compression!r} is unknown; zstd and lz4 are known")
        try:
            content = decompressor.decompress(data, max_length=limit + 1)
        except (zstd.ZstdError, RuntimeError, EOFError) as error:
            raise DataError(f"{compression} cannot decompress it ({error})") from error
        if len(content) <= limit and not (decompressor.eof and not decompressor.unused_data):
            raise DataError(f"its {compression} data do not end where they should")
    if len(content) > limit or (size is not None and len(content) != size):
        more = "more" if len(content) > limit else f"{len(content)}"
        raise DataError(f"{limit} bytes should come out of it, but there are {more}")
    return content


def decompress_file(source: Path, target: Path) -> Path:
    """
    Decompress a file that was compressed as a whole.

    Returns:
        The target.

    Raises:
        DataError: it is damaged, or would grow absurdly.
    """
    left = max(SMALL, BEST_RATE * source.stat().st_size)
    try:
        with zstd.open(source, "rb") as content, target.open("wb") as file:
            while part := content.read(2**20):
                left -= len(part)
                if left < 0:
                    raise DataError(f"more comes out of its {source.stat().st_size} bytes than is believed")
                file.write(part)
    except (zstd.ZstdError, EOFError) as error:
        raise DataError(f"zstd cannot decompress it ({error})") from error
    return target
