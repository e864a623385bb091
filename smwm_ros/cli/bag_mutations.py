"""What damage and malice make of bags: the material of `smwm bench fuzz-bags`."""

from __future__ import annotations

import sqlite3
from binascii import crc32
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from backports import zstd

from smwm_ros.cli.small_bags import Files
from smwm_ros.data.bags import mcap_records as mcap

Generator = np.random.Generator

NAMES = ("sensor_msgs/msg/Imu", "x", "a/msg/B'\"\n", "std_msgs/msg/Header")
HUGE = (0, 1, 2**16, 2**31 - 1, 2**32 - 1, 2**40, 2**63 - 1, 2**64 - 1)
BOMBS = (
    "string[100000000] x",
    "uint8[0] x",
    "A[4000] x\n{0}\nMSG: p/A\nB[4000] x\n{0}\nMSG: p/B\nuint8[0] x",
    "A x\n{0}\nMSG: p/A\nA x",
    "A[] x\n{0}\nMSG: p/A\nA[] x",
    "float64[99999999999999999999] x",
    "uint8 x\n" * 9000,
    "std_msgs/Header header\nuint64[] data",
    "uint8[] data\nuint8[] data",
    "wstring x",
    "",
    "\n" * 1000,
    "#" * 100_000,
    "x" * 100_000,
    'string X="' + "\\" * 10_000,
)
"""Definitions that are none, or would take endless time or memory."""
METADATA_BOMBS = (
    "[" * 100_000,
    "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\nrosbag2_bagfile_information: *c",
    "&a {<<: [*a, *a]}",
    "rosbag2_bagfile_information: " + "9" * 50_000,
    "rosbag2_bagfile_information: &a [*a]",
    "rosbag2_bagfile_information: {relative_file_paths: [../../etc/passwd]}",
    "rosbag2_bagfile_information: {relative_file_paths: [bag_0.mcap], compression_mode: message, "
    "compression_format: zstd}",
    "rosbag2_bagfile_information: {relative_file_paths: [], custom_data: {robot_contract: '{'}}",
    "",
    "- " * 10_000,
    "\ufeff\x85",
)
STATEMENTS = (
    "UPDATE messages SET topic_id = 99 WHERE id = 5",
    "UPDATE messages SET timestamp = 'soon' WHERE id = 5",
    "UPDATE messages SET timestamp = -5 WHERE id = 5",
    "UPDATE messages SET timestamp = 9e300",
    "UPDATE messages SET data = 'text' WHERE id = 5",
    "UPDATE messages SET data = zeroblob(3) WHERE id = 5",
    "UPDATE messages SET data = zeroblob(100000) WHERE id = 5",
    "UPDATE topics SET type = 'sensor_msgs/msg/Imu'",
    "UPDATE topics SET type = x'ff'",
    "UPDATE topics SET name = CAST(x'ff' AS TEXT)",
    "UPDATE topics SET offered_qos_profiles = '&a [*a]'",
    "UPDATE topics SET serialization_format = 'json'",
    "UPDATE message_definitions SET encoding = 'what'",
    "DELETE FROM topics WHERE id = 1",
    "DELETE FROM message_definitions",
    "DROP TABLE topics",
    "DROP TABLE messages; CREATE VIEW messages AS "
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) "
    "SELECT i AS id, 1 AS topic_id, i AS timestamp, zeroblob(100000) AS data FROM n",
    "DROP TABLE messages; CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id INTEGER, timestamp INTEGER,"
    " data AS (zeroblob(900000000))); INSERT INTO messages(topic_id, timestamp) VALUES (1, 1), (1, 2)",
    "DROP INDEX timestamp_idx",
)


# Damage to bytes, whatever they mean


def _any_of(numbers: Sequence[int], generator: Generator) -> int:
    return numbers[int(generator.integers(len(numbers)))]


def _truncated(data: bytes, generator: Generator) -> bytes:
    return data[: generator.integers(len(data))]


def _flipped_bits(data: bytes, generator: Generator) -> bytes:
    changed = bytearray(data)
    for place in generator.integers(len(data), size=generator.integers(1, 9)):
        changed[place] ^= 1 << int(generator.integers(8))
    return bytes(changed)


def _overwritten(data: bytes, generator: Generator) -> bytes:
    start = int(generator.integers(len(data)))
    noise = generator.bytes(int(generator.integers(1, 200)))
    return data[:start] + noise[: len(data) - start] + data[start + len(noise) :]


def _huge_number(data: bytes, generator: Generator) -> bytes:
    size = int(generator.choice([4, 8]))
    start = int(generator.integers(max(1, len(data) - size)))
    value = _any_of(HUGE, generator) % 2 ** (8 * size)
    return data[:start] + value.to_bytes(size, "little") + data[start + size :]


def _zeroed(data: bytes, generator: Generator) -> bytes:
    start = int(generator.integers(len(data)))
    size = min(int(generator.integers(1, 4096)), len(data) - start)
    return data[:start] + bytes(size) + data[start + size :]


def _swapped(data: bytes, generator: Generator) -> bytes:
    size = int(generator.integers(16, max(17, min(1024, len(data) // 3))))
    first, second = sorted(int(place) * size for place in generator.integers(len(data) // size, size=2))
    if first == second:
        return data[size:]
    parts = (
        data[:first],
        data[second : second + size],
        data[first + size : second],
        data[first : first + size],
    )
    return b"".join(parts) + data[second + size :]


def _inserted(data: bytes, generator: Generator) -> bytes:
    start = int(generator.integers(len(data)))
    return data[:start] + generator.bytes(int(generator.integers(1, 64))) + data[start:]


def _zero_tail(data: bytes, generator: Generator) -> bytes:
    return data[: generator.integers(len(data))] + bytes(int(generator.integers(1, 10_000)))


BYTES: tuple[Callable[[bytes, Generator], bytes], ...] = (
    _truncated,
    _flipped_bits,
    _overwritten,
    _huge_number,
    _zeroed,
    _swapped,
    _inserted,
    _zero_tail,
)


# Damage that knows the format, and sets checksums right, so that what they protect is tested too


def _records(data: bytes) -> list[tuple[int, int, int]]:
    return list(mcap.records(data[len(mcap.MAGIC) : -len(mcap.MAGIC)], 0))


def _damaged_record(data: bytes, generator: Generator) -> bytes:
    """Change the kind, the length, or the first bytes of a record."""
    records = _records(data)
    _, begin, _ = records[generator.integers(len(records))]
    begin += len(mcap.MAGIC)
    changed = bytearray(data)
    match int(generator.integers(4)):
        case 0:
            changed[begin - 9] = generator.integers(256)
        case 1:
            changed[begin - 8 : begin] = int(generator.choice(np.array(HUGE, np.uint64))).to_bytes(
                8, "little"
            )
        case 2:
            changed[begin - 8] = generator.integers(256)
        case _:
            place = begin + 4 * int(generator.integers(8))
            changed[place : place + 4] = (0xFFFFFFFF).to_bytes(4, "little")
    return bytes(changed[: len(data)])


def _rechunked(data: bytes, change: Callable[[bytes], bytes]) -> bytes:
    """Change the contents of the chunks, or of all, where there are none; all lengths and checksums fit."""
    parts = [mcap.MAGIC]
    body = data[len(mcap.MAGIC) :]
    chunks = False
    for opcode, begin, end in _records(data):
        content = body[begin:end]
        if opcode == mcap.CHUNK:
            chunks = True
            head = mcap.parse_chunk_head(content, 0, len(content))
            inner = content[head.data[0] - mcap.HEAD.size :]
            inner = change(zstd.decompress(inner) if head.compression else inner)
            name = head.compression.encode()
            packed = zstd.compress(inner) if name else inner
            content = mcap.CHUNK_HEAD.pack(*head[:2], len(inner), crc32(inner), len(name))
            content += name + len(packed).to_bytes(8, "little") + packed
        if opcode == mcap.DATA_END:
            break
        parts.append(mcap.HEAD.pack(opcode, len(content)) + content)
    if not chunks:
        parts = [mcap.MAGIC, change(b"".join(parts[1:]))]
    footer = mcap.HEAD.pack(mcap.DATA_END, 4) + bytes(4) + mcap.HEAD.pack(mcap.FOOTER, 20) + bytes(20)
    return b"".join(parts) + footer + mcap.MAGIC


def _forged_contents(data: bytes, generator: Generator) -> bytes:
    change = BYTES[generator.integers(len(BYTES))]
    return _rechunked(data, lambda content: change(content, generator) if content else content)


def _forged_definition(data: bytes, generator: Generator) -> bytes:
    """Exchange a definition, or the name of a type."""
    chosen = BOMBS[generator.integers(len(BOMBS))].format("=" * 80)
    target = int(generator.integers(3))
    kind = int(generator.integers(4))

    def change(content: bytes) -> bytes:
        parts = []
        number = 0
        for opcode, begin, end in mcap.records(content, 0):
            record = content[begin:end]
            if opcode == mcap.SCHEMA:
                if number == target:
                    fields = mcap.Fields(record, 0)
                    identity, name, language, text = (
                        fields.number(2),
                        fields.text(),
                        fields.text(),
                        fields.text(),
                    )
                    if kind == 0:
                        name = str(
                            generator.choice(
                                ["sensor_msgs/msg/Imu", "x", "a/msg/B'\"\n", "std_msgs/msg/Header"]
                            )
                        )
                    elif kind == 1:
                        language = str(generator.choice(["ros2idl", "omgidl", "protobuf", ""]))
                    elif kind == 2:
                        text = _overwritten(text.encode(), generator).decode(errors="replace")
                    else:
                        text = chosen
                    record = identity.to_bytes(2, "little")
                    for part in (name, language, text):
                        record += len(part.encode()).to_bytes(4, "little") + part.encode()
                number += 1
            parts.append(mcap.HEAD.pack(opcode, len(record)) + record)
        return b"".join(parts)

    return _rechunked(data, change)


def _forged_message(data: bytes, generator: Generator) -> bytes:
    """Set a length within a message to something huge."""
    target = int(generator.integers(24))

    def change(content: bytes) -> bytes:
        changed = bytearray(content)
        messages = [begin for opcode, begin, _ in mcap.records(content, 0) if opcode == mcap.MESSAGE]
        if messages:
            begin = messages[target % len(messages)] + mcap.MESSAGE_HEAD.size - mcap.HEAD.size
            place = begin + 4 * int(generator.integers(12))
            changed[place : place + 4] = int(generator.choice([2**31 - 1, 2**32 - 1, 70_000, 0])).to_bytes(
                4, "little"
            )
        return bytes(changed[: len(content)])

    return _rechunked(data, change)


def _forged_bomb(data: bytes, generator: Generator) -> bytes:
    """Make a chunk that would fill the memory."""
    size = int(generator.choice([2**27, 2**20]))
    packed = zstd.compress(bytes(size))
    content = mcap.CHUNK_HEAD.pack(0, 2**62, _any_of((size, 100, 2**50), generator), 0, 4)
    content += b"zstd" + len(packed).to_bytes(8, "little") + packed
    where = len(mcap.MAGIC) + _records(data)[0][2]
    return data[:where] + mcap.HEAD.pack(mcap.CHUNK, len(content)) + content + data[where:]


MCAP = (_damaged_record, _forged_contents, _forged_definition, _forged_message, _forged_bomb)


def _damaged_database(data: bytes, generator: Generator, folder: Path) -> bytes:
    """Let SQLite itself make a bag that makes no sense."""
    path = folder / "mutated.db3"
    path.write_bytes(data)
    database = sqlite3.connect(path)
    database.executescript(STATEMENTS[generator.integers(len(STATEMENTS))])
    database.commit()
    database.close()
    content = path.read_bytes()
    path.unlink()
    return content


def _damaged_page(data: bytes, generator: Generator) -> bytes:
    """Damage a page where it says what is in it."""
    size = int.from_bytes(data[16:18], "big") or 2**16
    size = 2**16 if size == 1 else size
    start = size * int(generator.integers(max(1, len(data) // size))) + (100 if generator.integers(2) else 0)
    changed = bytearray(data)
    for place in start + generator.integers(0, 40, size=4):
        if place < len(data):
            changed[place] = generator.integers(256)
    return bytes(changed)


def mutate(files: Files, generator: Generator, folder: Path) -> tuple[str, Files]:
    """
    Damage a bag.

    Args:
        files: of the bag: one for its messages, and ``metadata.yaml``.
        generator: chooses how.
        folder: for temporary files.

    Returns:
        What was done, and the bag.
    """
    name = next(name for name in files if name != "metadata.yaml")
    data = files[name]
    choice = generator.random()
    if choice < 0.1:
        return _mutate_metadata(files, generator)
    if choice < 0.5 and name.endswith(".mcap"):
        forge = MCAP[generator.integers(len(MCAP))]
        return forge.__name__, {**files, name: forge(data, generator)}
    if choice < 0.3 and name.endswith(".db3"):
        return "_damaged_database", {**files, name: _damaged_database(data, generator, folder)}
    if choice < 0.5 and name.endswith(".db3"):
        return "_damaged_page", {**files, name: _damaged_page(data, generator)}
    if choice < 0.55 and name.endswith(".db3"):
        ending = str(generator.choice(["-journal", "-wal"]))
        return "journal", {**files, name + ending: generator.bytes(int(generator.integers(1, 5000)))}
    change = BYTES[generator.integers(len(BYTES))]
    return change.__name__, {**files, name: change(data, generator)}


def _mutate_metadata(files: Files, generator: Generator) -> tuple[str, Files]:
    chosen = int(generator.integers(4))
    if chosen == 0:
        return "no metadata", {name: data for name, data in files.items() if name != "metadata.yaml"}
    if chosen == 1:
        bomb = METADATA_BOMBS[generator.integers(len(METADATA_BOMBS))]
        return "metadata bomb", {**files, "metadata.yaml": bomb.encode()}
    change = BYTES[generator.integers(len(BYTES))]
    return "metadata", {**files, "metadata.yaml": change(files["metadata.yaml"], generator)}
