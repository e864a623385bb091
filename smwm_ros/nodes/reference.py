"""
The reference of the nodes' parameters, as the nodes themselves declare them.

``python -m smwm_ros.nodes.reference docs/nodes.md`` writes the tables of that page anew.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import rclpy
from rclpy.node import Node

from smwm_ros.nodes.kinds import KINDS, node_class
from smwm_ros.nodes.parameters import Param

BEGIN = (
    "<!-- Written by `python -m smwm_ros.nodes.reference docs/nodes.md`; change the tables in the code. -->"
)
END = "<!-- end of what is written by the code -->"
TYPES = {bool: "bool", int: "integer", float: "double", str: "string"}


def rewrite(page: str) -> str:
    """Return a page with the part between ``BEGIN`` and ``END`` as it should be."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{reference()}\n{END}{after}"


def reference() -> str:
    """Return a table of parameters for each kind of node, in Markdown."""
    context = rclpy.Context()
    rclpy.init(context=context, args=[], signal_handler_options=rclpy.SignalHandlerOptions.NO)
    try:
        tables = {}
        for kind in KINDS:
            node = node_class(kind)(kind, context=context, enable_rosout=False)
            tables[kind] = [_row(node, param) for param in node.declared.table.values()]
            node.destroy_node()
    finally:
        context.try_shutdown()
    head = "| parameter | default | range | may be set | what it is |\n|---|---|---|---|---|\n"
    return "\n".join(f"### {kind}\n\n{head}" + "\n".join(rows) + "\n" for kind, rows in tables.items())


def _row(node: Node, param: Param) -> str:
    """Write one parameter as `ros2 param describe` tells of it."""
    told = node.describe_parameter(param.name)
    default = str(param.default).lower() if isinstance(param.default, bool) else str(param.default) or '""'
    cells = (
        f"`{param.name}`",
        f"{TYPES[type(param.default)]} `{default}` {param.unit}".rstrip(),
        _range(param),
        param.when,
        re.sub(r" Unit: .*\.$", "", told.description),
    )
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _range(param: Param) -> str:
    if param.choices:
        return ", ".join(f"`{choice}`" for choice in param.choices)
    if param.low is None and param.high is None:
        return ""
    if param.high is None:
        return f"{param.low:g} and more"
    if param.low is None:
        return f"up to {param.high:g}"
    return f"{param.low:g} to {param.high:g}"


def main() -> None:
    """Write a page's tables anew."""
    page = Path(sys.argv[1])
    page.write_text(rewrite(page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
