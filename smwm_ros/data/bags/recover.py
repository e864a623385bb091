"""Making a bag whole again that was cut off while it was recorded, or was damaged later."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import chain, count
from pathlib import Path
from typing import Any

from rosbags.interfaces import MessageDefinitionFormat

from smwm_ros.data.bags.definitions import types_of
from smwm_ros.data.bags.message_types import message_types
from smwm_ros.data.bags.reader import BagReader
from smwm_ros.data.bags.storage import CDR, Channel, Loss
from smwm_ros.data.bags.writer import BagWriter
from smwm_ros.errors import DataError

Progress = Callable[[int, int], None]
"""Called with the messages written so far, and how many there are."""
PROGRESS_EVERY = 1000
BACKUP = ".damaged"


@dataclass(frozen=True)
class Recovery:
    """What was made of a bag."""

    path: str
    """The whole bag."""
    original: str
    """Where the damaged one is; empty if the bag was whole, and nothing was done."""
    messages: int
    """Kept, byte for byte, each with its time of reception."""
    topics: dict[str, int]
    """Messages kept on each."""
    seconds: float
    """Between the first message and the last."""
    losses: tuple[Loss, ...]
    """What could not be kept, and why."""
    notes: tuple[str, ...]
    """What else was wrong; the messages at the end of a recording may have been lost by it, but no others."""

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON-able values."""
        return {**asdict(self), "losses": [str(loss) for loss in self.losses], "notes": list(self.notes)}


def recover(
    path: Path | str, output: Path | str | None = None, *, progress: Progress | None = None
) -> Recovery:
    """
    Write a bag anew from all that is intact of it.

    Every message that can be read, with the checksum of its chunk right, is kept byte for byte with its
    time of reception; its topic with type, definition and quality of service. The new bag appears only
    when it is complete. Without ``output`` it takes the place of the old one, which is kept beside it
    under a name that ends in ``.damaged``; a bag without fault is then left alone.

    Args:
        path: a bag's folder, or one of its files, for which ``output`` is needed.
        output: folder of the new bag; it must not exist.
        progress: called now and then.

    Raises:
        DataError: nothing can be recovered, or the new bag cannot be written. Nothing is changed then.
    """
    path = Path(path).absolute()
    if output is None and path.is_file():
        raise DataError(f"{path}: a bag is a folder; say with --output which one to make of this file")
    target = path if output is None else Path(output).absolute()
    if output is not None and target.exists():
        raise DataError(f"{target} exists already, and a bag is never overwritten; give another folder")
    with BagReader(path, salvage=True) as bag:
        counts = {topic: bag.count([topic]) for topic in bag.topics}
        original = ""
        if output is not None or bag.losses or bag.notes:
            with _workshop(target) as folder:
                counts = _copy(bag, folder / target.name, progress)
                original = str(_put_in_place(folder / target.name, target) or path)
        first, last = bag.span
        return Recovery(
            path=str(target),
            original=original,
            messages=sum(counts.values()),
            topics=counts,
            seconds=(last - first) / 1e9,
            losses=tuple(bag.losses),
            notes=tuple(bag.notes),
        )


def _copy(bag: BagReader, target: Path, progress: Progress | None) -> dict[str, int]:
    """Write the messages into a new bag; note in the old one's losses what has no place there."""
    total = bag.count(bag.topics)
    misfits: Counter[str] = Counter()
    moved = 0
    sizes = [file.stat().st_size for file in bag.files]
    with BagWriter(
        target,
        custom_data=bag.custom_data,
        storage=bag.storage,
        compress=bool(bag.compression),
        split_bytes=max(sizes) if len(sizes) > 1 else 0,
    ) as writer:
        announced = {topic: bag.channel(topic) for topic in bag.topics}
        for channel in announced.values():
            if channel.encoding == CDR:
                _announce(bag, channel, writer)
        newest = 0
        for number, (received, channel, data) in enumerate(bag.records(bag.topics)):
            if channel.encoding != CDR or channel.kind != announced[channel.topic].kind:
                misfits[f"{channel.topic} ({channel.kind}, {channel.encoding})"] += 1
                continue
            moved += received < newest
            newest = max(newest, received)
            writer.write(channel.topic, received, data)
            if progress is not None and number % PROGRESS_EVERY == 0:
                progress(number, total)
    for what, left_out in misfits.items():
        bag.losses.append(Loss(bag.path.name, 0, 0, f"{what} has no place in a bag of ROS 2", left_out))
    if moved:
        bag.notes.append(f"{moved} messages lay far out of order; they bear later times now")
    with BagReader(target) as made:
        if made.notes or made.count(made.topics) != sum(writer.counts.values()):
            raise DataError(f"{target}: the new bag does not hold what was written; nothing was changed")
    if progress is not None:
        progress(total, total)
    return writer.counts


def _announce(bag: BagReader, channel: Channel, writer: BagWriter) -> None:
    """Announce a topic with all that the old bag says of it."""
    definition = None
    if channel.definition.format is not MessageDefinitionFormat.NONE:
        text, digest = channel.definition.data, ""
        try:
            digest = bag.type_hash(channel.kind)
            if channel.definition.format is not MessageDefinitionFormat.MSG:
                types = types_of(channel.kind, channel.definition)
                text = types.generate_msgdef(channel.kind, ros_version=2)[0]
        except (DataError, LookupError) as error:
            bag.notes.append(str(error))
        definition = (text, digest)
    elif channel.kind not in message_types().fielddefs:
        definition = ("", "")
    writer.add_topic(
        channel.topic, channel.kind, more_qos=bag.offered_qos(channel.topic), definition=definition
    )


@contextmanager
def _workshop(target: Path) -> Iterator[Path]:
    """Make a folder beside the target, on the same disk, and remove it in the end."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.recovering-", dir=target.parent))
    except OSError as error:
        raise DataError(f"{target.parent}: the new bag cannot be written ({error})") from error
    try:
        yield folder
    except OSError as error:
        raise DataError(f"{target}: the new bag cannot be written ({error}); nothing was changed") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _put_in_place(new: Path, target: Path) -> Path | None:
    """Move the new bag to where it belongs; return where the one that was there is now."""
    for file in (*new.iterdir(), new):
        _to_disk(file)
    backup = None
    if target.exists():
        names = chain([f"{target.name}{BACKUP}"], (f"{target.name}{BACKUP}-{n}" for n in count(2)))
        backup = next(path for path in map(target.with_name, names) if not path.exists())
        target.rename(backup)
    try:
        new.rename(target)
    except OSError:
        if backup is not None:
            backup.rename(target)
        raise
    _to_disk(target.parent)
    return backup


def _to_disk(path: Path) -> None:
    """Wait until the disk has it: the old bag must not give way to one that a power cut empties."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
