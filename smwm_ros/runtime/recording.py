"""What the recorder does: recordings that start and end, and snapshots of the last seconds."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import Field

from smwm_ros.data.bags.writer import BagWriter
from smwm_ros.errors import DataError, SmwmError
from smwm_ros.runtime.backlog import Message, MessageWindow, store
from smwm_ros.runtime.bag_session import BagSession
from smwm_ros.validation import Settings, Unit

MB = 1_000_000
LOST_KEY = "messages_lost"
"""Name under which a bag's metadata tell how many messages it lacks, by topic (JSON)."""


class RecorderSettings(Settings):
    """How bags are written."""

    folder: str = Field(".", description="Where bags go that have a relative name or none.")
    format: Literal["mcap", "sqlite3"] = Field("mcap", description="Of the bag's files.")
    compression: Literal["zstd", "lz4", "none"] = Field(
        "zstd", description="Of the chunks of MCAP files; sqlite3 has none."
    )
    split_mb: Annotated[int, Unit("MB")] = Field(
        0, ge=0, description="Size at which the next file begins; 0: never."
    )
    split_seconds: Annotated[float, Unit("s")] = Field(
        0.0, ge=0, description="Time after which the next file begins; 0: never."
    )
    backlog_mb: Annotated[int, Unit("MB")] = Field(
        256, ge=1, description="Messages that may wait for the disk; beyond it the oldest are dropped."
    )
    snapshot_seconds: Annotated[float, Unit("s")] = Field(
        0.0, ge=0, description="What is kept in memory for the service ~/snapshot; 0: nothing."
    )
    snapshot_mb: Annotated[int, Unit("MB")] = Field(
        256, ge=1, description="Memory for that; beyond it the oldest messages give way."
    )


class Recorded(NamedTuple):
    """What a bag holds."""

    path: Path
    counts: Mapping[str, int]
    """Messages by topic."""
    lost: Mapping[str, int]
    """Messages that it lacks, by topic: those that never came, and those the disk was too slow for."""
    seconds: float
    """Spanned by them."""


class Recorder:
    """One recording at a time, beside it the last seconds in memory. Any thread may call it."""

    def __init__(
        self,
        settings: RecorderSettings,
        *,
        prefix: str,
        custom_data: Mapping[str, str],
        failed: Callable[[SmwmError], None],
    ) -> None:
        """
        Make a recorder that records nothing yet.

        Args:
            settings: how bags are written.
            prefix: of the names of bags that are given none.
            custom_data: notes that go into every bag's metadata.
            failed: called from another thread when a recording has failed, for instance on a full disk.
        """
        self.settings = settings
        self._prefix = prefix
        self._custom_data = custom_data
        self._failed = failed
        self._changing = threading.Lock()  # one start or stop at a time
        self._lock = threading.Lock()  # held for moments only: whoever offers messages must not wait
        self._session: BagSession | None = None
        self._missed: Counter[str] = Counter()
        self._kept = MessageWindow(
            settings.snapshot_mb * MB if settings.snapshot_seconds else 0,
            int(settings.snapshot_seconds * 1e9),
        )

    @property
    def recording(self) -> bool:
        """Whether a recording runs."""
        return self._session is not None

    @property
    def keeping(self) -> bool:
        """Whether the last seconds are kept for snapshots."""
        return self.settings.snapshot_seconds > 0

    def offer(self, messages: Sequence[Message]) -> Counter[str]:
        """Record messages; return how many older ones had to give way to them, by topic."""
        with self._lock:
            if self.keeping:
                for message in messages:
                    self._kept.add(message)
            return self._session.offer(messages) if self._session else Counter()

    def miss(self, lost: Mapping[str, int]) -> None:
        """Note how many messages never came, by topic."""
        with self._lock:
            self._missed += Counter(lost)

    def start(self, bag: str = "") -> Path:
        """
        Begin to record.

        Args:
            bag: folder to make; without a name, one by the date and time.

        Returns:
            The folder.

        Raises:
            DataError: a recording runs already, or the folder exists or cannot be made.
        """
        with self._changing:
            if self._session:
                raise DataError(f"already recording into {self._session.bag.path}; stop that one first")
            made = self._make_bag(bag)
            session = BagSession(made, self.settings.backlog_mb * MB, self._on_failure)
            with self._lock:
                self._session, self._missed = session, Counter()
        return made.path

    def within(self, bag: str) -> str:
        """
        Return a bag's name that came over the network, where anybody may have sent it.

        Raises:
            DataError: it leads out of the recorder's folder.
        """
        folder = Path(self.settings.folder).expanduser().resolve()
        if bag.startswith("~") or not (folder / bag).resolve().is_relative_to(folder):
            raise DataError(
                f"the bag {bag!r} is not within the recorder's folder {folder}; give a relative name"
            )
        return bag

    def stop(self) -> Recorded:
        """
        End the recording and make its bag whole.

        Raises:
            DataError: none runs; or writing it failed.
        """
        with self._changing:
            with self._lock:
                session, self._session = self._session, None
            if session is None:
                raise DataError("nothing is being recorded")
            lost = self._missed + session.dropped
            session.end({LOST_KEY: json.dumps(lost)})
        return Recorded(session.bag.path, session.bag.counts, lost, session.bag.seconds)

    def snapshot(self, bag: str = "", seconds: float = 0.0) -> Recorded:
        """
        Write what was received in the last seconds to a bag of its own.

        Args:
            bag: as for :meth:`start`.
            seconds: before the newest message; 0: all that is kept.

        Raises:
            DataError: nothing is kept, or has been received; or the bag cannot be written.
        """
        if not self.keeping:
            raise DataError("no messages are kept for snapshots; set the parameter snapshot_seconds")
        with self._lock:
            messages = self._kept.since(self._kept.newest - int(seconds * 1e9) if seconds else 0)
        if not messages:
            raise DataError("no message has been received that a snapshot could hold")
        with self._make_bag(bag) as made:
            store(made, messages)
        return Recorded(made.path, made.counts, {}, made.seconds)

    def status(self) -> dict[str, object]:
        """Return what diagnostics should show."""
        session = self._session
        shown: dict[str, object] = {
            "recording": session.bag.path if session else "",
            "backlog_mb": f"{session.waiting / MB if session else 0:.1f}",
        }
        if session:
            shown["written_mb"] = f"{session.written / MB:.1f}"
            shown |= {f"recorded {topic}": count for topic, count in dict(session.bag.counts).items()}
            shown |= {f"lost {topic}": count for topic, count in (self._missed + session.dropped).items()}
        if self.keeping:
            shown["snapshot_mb"] = f"{self._kept.bytes / MB:.1f}"
        return shown

    def _on_failure(self, error: SmwmError) -> None:
        self._failed(error)
        with self._lock:
            if self._session and self._session.failure:  # not one that was begun meanwhile
                self._session = None

    def _make_bag(self, name: str) -> BagWriter:
        settings = self.settings
        folder = Path(settings.folder).expanduser()
        return BagWriter(
            folder / Path(name).expanduser() if name else self._unused(folder),
            custom_data=self._custom_data,
            storage=settings.format,
            compression=settings.compression,
            split_bytes=settings.split_mb * MB,
            split_ns=int(settings.split_seconds * 1e9),
        )

    def _unused(self, folder: Path) -> Path:
        """Return a name for a bag, by the date and time as rosbag2 writes them."""
        name = f"{self._prefix}_{time.strftime('%Y_%m_%d-%H_%M_%S')}"
        path, number = folder / name, 1
        while path.exists():
            number += 1
            path = folder / f"{name}_{number}"
        return path
