"""What messages mean: their definitions in a bag, read with care, and messages read with them."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from rosbags.interfaces import MessageDefinition, MessageDefinitionFormat, Nodetype
from rosbags.interfaces.typing import Typesdict
from rosbags.typesys import Stores, get_types_from_idl, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from smwm_ros.data.bags.message_types import message_types
from smwm_ros.errors import DataError

TYPE_NAME = re.compile(r"[A-Za-z]\w*(/(msg|srv|action))?/[A-Za-z]\w*")
LONGEST = 2**18
"""Characters of a definition; the largest ones of ROS have some ten thousand."""
MOST_LINES = 10_000
MOST_ITEMS = 4096
"""Fields, and items of arrays of fixed length: code is made for each of them."""
IDL_SEPARATOR = "=" * 80 + "\n"


def deserializer(kind: str, definition: MessageDefinition) -> Callable[[bytes], Any]:
    """
    Return what makes messages of their bytes (CDR).

    Args:
        kind: message type, such as ``sensor_msgs/msg/Image``.
        definition: of the bag; without one, the type must be known.

    Raises:
        DataError: the definition is damaged or absurd, or there is none; the function that is returned
            raises whatever its parser does of damaged messages.
    """
    types = types_of(kind, definition)
    return lambda data: types.deserialize_cdr(memoryview(data), kind)


@lru_cache(maxsize=256)
def types_of(kind: str, definition: MessageDefinition) -> Typestore:
    """
    Return the types that a definition defines, or the known ones if it is empty.

    Raises:
        DataError: see :func:`deserializer`.
    """
    if definition.format is MessageDefinitionFormat.NONE or not definition.data:
        if kind not in message_types().fielddefs:
            raise DataError(f"the bag holds no definition of the message type {kind!r}, and it is not known")
        return message_types()
    if not TYPE_NAME.fullmatch(kind):
        raise DataError(f"{kind!r} is no name of a message type")
    if len(definition.data) > LONGEST or definition.data.count("\n") > MOST_LINES:
        raise DataError(f"the definition of {kind} in the bag is absurdly long")
    types = get_typestore(Stores.EMPTY)
    try:
        parsed = _parse(kind, definition)
        if kind not in parsed:
            raise DataError(f"the definition of {kind} in the bag is one of {', '.join(parsed) or 'nothing'}")
        _judge(kind, parsed)
        types.register(parsed)
        types.get_msgdef(kind)
    except (DataError, MemoryError):
        raise
    except Exception as error:  # parsers of damaged texts raise anything
        raise DataError(
            f"the definition of {kind} in the bag cannot be used: {str(error)[:200] or type(error).__name__}"
        ) from error
    return types


def lacking(kind: str, definition: MessageDefinition) -> str:
    """
    Compare a definition with the known one of the same name.

    Returns:
        The first field that is known and is not the same there, such as ``header.stamp``; empty if all
        are. More fields are no fault: a later distribution may have added them.

    Raises:
        DataError: see :func:`deserializer`.
    """
    known, there = message_types().fielddefs, types_of(kind, definition).fielddefs
    todo = [(kind, "")]
    while todo:
        name, prefix = todo.pop()
        fields = dict(there[name][1]) if name in there else {}
        for field, description in known[name][1] if name in known else ():
            if fields.get(field) != description:
                return prefix + field
            inner = (
                description[1][0] if description[0] in (Nodetype.ARRAY, Nodetype.SEQUENCE) else description
            )
            if inner[0] == Nodetype.NAME:
                todo.append((str(inner[1]), f"{prefix}{field}."))
    return ""


def _parse(kind: str, definition: MessageDefinition) -> Typesdict:
    text = definition.data
    if definition.format is MessageDefinitionFormat.MSG:
        return get_types_from_msg(text, kind)
    if not text.startswith(IDL_SEPARATOR + "IDL: "):
        return get_types_from_idl(text)
    types: Typesdict = {}
    for part in text.split(IDL_SEPARATOR)[1:]:
        types.update(get_types_from_idl(part.partition("\n")[2]))
    return types


def _judge(kind: str, types: Typesdict) -> None:
    """
    Refuse what would take endless time or memory to make code of, or to read.

    Raises:
        DataError: it is so.
    """
    todo, done, items = [kind], set(), 0
    while todo:
        name = todo.pop()
        if name in done:
            continue
        done.add(name)
        if name not in types:
            raise DataError(f"the definition of {kind} in the bag lacks that of {name}")
        for field, description in types[name][1]:
            items += 1
            inner = description
            if description[0] == Nodetype.ARRAY or description[0] == Nodetype.SEQUENCE:
                inner, length = description[1]
                if description[0] == Nodetype.ARRAY:
                    # What takes no bytes could be there any number of times in a few of them.
                    if length < 1:
                        raise DataError(f"the definition of {kind} in the bag has {length} items in {field}")
                    if inner[0] == Nodetype.NAME or inner[1][0] == "string":
                        items += length
            if inner[0] == Nodetype.NAME:
                todo.append(inner[1])
    if items > MOST_ITEMS:
        raise DataError(f"the definition of {kind} in the bag has {items} fields, which is not believed")
