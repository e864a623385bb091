"""Random damage to messages: from a sound one to what a broken or hostile sender might send."""

from __future__ import annotations

import copy
from array import array
from typing import Any

import numpy as np

REALS = (0.0, -0.0, 1.0, -1.0, 1e-300, 1e300, -1e300, float("nan"), float("inf"), float("-inf"))
STRINGS = ("", " ", "nobody", "../outside", "\x00mid\x00", "ü\U0001f916\u202e", "%s%n", "a" * 5_000)
HUGE = 2_000_000
"""Numbers in the largest array, bytes in the largest image."""
INTEGERS = {"int8": (-(2**7), 2**7 - 1), "uint8": (0, 255), "octet": (0, 255), "byte": (0, 255)}
INTEGERS |= {f"int{n}": (-(2 ** (n - 1)), 2 ** (n - 1) - 1) for n in (16, 32, 64)}
INTEGERS |= {f"uint{n}": (0, 2**n - 1) for n in (16, 32, 64)}
CODES = {"float": "f", "double": "d", "uint8": "B", "int8": "b", "uint16": "H", "int16": "h", "uint32": "I"}
CODES |= {"int32": "i", "uint64": "Q", "int64": "q"}


def damage(message: Any, generator: np.random.Generator, most: int = 4) -> Any:
    """
    Return a copy of a message with some of its fields changed, at any depth.

    What comes out can be sent: numbers stay within their types, which is all that the middleware demands.

    Args:
        message: any ROS message; left as it is.
        generator: of the damage.
        most: fields changed, at most; one at least.
    """
    made = copy.deepcopy(message)
    for _ in range(int(generator.integers(1, most + 1))):
        _damage_field(made, generator)
    return made


def _damage_field(message: Any, generator: np.random.Generator) -> None:
    fields = message.get_fields_and_field_types()
    if not fields:
        return
    name, kind = list(fields.items())[generator.integers(len(fields))]
    value = getattr(message, name)
    if hasattr(value, "get_fields_and_field_types"):
        _damage_field(value, generator)
    elif kind.startswith("sequence<"):
        setattr(message, name, _sequence(value, kind[9:-1].split(",")[0], generator))
    elif kind.endswith("]"):
        inner = kind[: kind.rindex("[")]
        if len(value) and inner in CODES:
            value[int(generator.integers(len(value)))] = _number(inner, generator)
    else:
        setattr(message, name, scalar(kind, generator))


def scalar(kind: str, generator: np.random.Generator) -> Any:
    """Return a random value of a plain type; extreme ones are as likely as others."""
    if kind.startswith(("string", "wstring")):
        return str(generator.choice(STRINGS))
    return _number(kind, generator)


def _number(kind: str, generator: np.random.Generator) -> Any:
    if kind == "boolean":
        return bool(generator.integers(2))
    if kind in INTEGERS:
        low, high = INTEGERS[kind]
        edges = (low, high, 0, 1, -1, 2, 999_999_999, 1_000_000_000)
        value = edges[generator.integers(len(edges))] if generator.random() < 0.7 else None
        if value is None or not low <= value <= high:
            value = int(
                generator.integers(low, high, endpoint=True, dtype=np.int64 if low < 0 else np.uint64)
            )
        return bytes([value % 256]) if kind in ("octet", "byte") else value
    if generator.random() < 0.7:
        value = float(generator.choice(REALS))
    else:
        value = float(generator.normal() * 10.0 ** generator.integers(-3, 6))
    return value if kind == "double" or not np.isfinite(value) else float(np.clip(value, -3e38, 3e38))


def _sequence(value: Any, kind: str, generator: np.random.Generator) -> Any:
    items = list(value)
    what = generator.integers(7)
    if what == 0:
        items = []
    elif what == 1:
        items = items[: generator.integers(len(items) + 1)]
    elif what == 2:
        items = items + items[: generator.integers(1, 4)]
    elif what == 3 and kind in CODES and generator.random() < 0.05:
        return array(CODES[kind], np.zeros(HUGE, CODES[kind]).tobytes())
    elif what == 4:
        items = items[::-1]
    elif items and hasattr(items[0], "get_fields_and_field_types"):
        items = [damage(item, generator, 2) for item in items]
    elif items:
        for _ in range(int(generator.integers(1, 4))):
            items[int(generator.integers(len(items)))] = scalar(kind, generator)
    elif kind in CODES or kind == "string":
        items = [scalar(kind, generator) for _ in range(int(generator.integers(1, 5)))]
    return array(CODES[kind], items) if kind in CODES else items


def damage_bytes(data: bytes, generator: np.random.Generator) -> bytes:
    """Return a serialized message with some bytes changed, cut off or appended; also its lengths."""
    made = bytearray(data)
    what = generator.integers(4)
    if what == 0:
        return bytes(made[: generator.integers(len(made) + 1)])
    if what == 1:
        return bytes(made) + generator.bytes(int(generator.integers(1, 64)))
    for _ in range(int(generator.integers(1, 9))):
        place = int(generator.integers(len(made)))
        if what == 2 or place + 4 > len(made):
            made[place] = generator.integers(256)
        else:  # a length, perhaps
            word = int(generator.choice(np.array([0, 1, 0x7FFFFFFF, 0xFFFFFFFF], np.uint32)))
            made[place : place + 4] = word.to_bytes(4, "little")
    return bytes(made)
