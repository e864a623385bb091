"""docs/nodes.md: its tables are what the nodes declare, and every key of diagnostics is explained."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from smwm_ros.nodes.kinds import KINDS, node_class
from smwm_ros.nodes.parameters import Param
from smwm_ros.nodes.reference import rewrite

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "nodes.md"
SOURCES = sorted((ROOT / "smwm_ros" / "nodes").glob("*.py"))
NAMING = {"fault", "tally", "stand"}
"""Methods of a monitor, or a node, whose first argument is a key."""
STANDING = {"transition", "failure"}
"""Kinds that only ``stand``: they have a message, and no key."""


def test_the_tables_are_up_to_date() -> None:
    """If this fails: ``python -m smwm_ros.nodes.reference docs/nodes.md``."""
    page = PAGE.read_text(encoding="utf-8")
    assert rewrite(page) == page
    assert all(f"\n### {kind}\n" in page for kind in KINDS)


def declared() -> Iterator[Param]:
    for kind in KINDS:
        yield from node_class(kind).parameters


@pytest.mark.parametrize("param", declared(), ids=lambda param: param.name)
def test_parameters_are_described(param: Param) -> None:
    """A sentence, and a range that holds the default."""
    assert param.description.endswith(".")
    assert (
        not isinstance(param.default, int | float)
        or isinstance(param.default, bool)
        or (
            (param.low is None or param.low <= param.default)
            and (param.high is None or param.default <= param.high)
        )
    )


def keys_in_code() -> Iterator[tuple[str, str]]:
    """Find the keys that nodes give to their monitors; of a composed one, what it begins with."""
    for path in SOURCES:
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute)):
                continue
            if call.func.attr in NAMING and call.args:
                yield from ((path.name, key) for key in literals(call.args[0]))
            elif call.func.attr == "show":
                for keyword in call.keywords:
                    if keyword.arg is not None:
                        yield path.name, keyword.arg
                    elif isinstance(keyword.value, ast.Dict | ast.DictComp):
                        composed = (
                            keyword.value.keys if isinstance(keyword.value, ast.Dict) else [keyword.value.key]
                        )
                        for key in composed:
                            yield from ((path.name, one) for one in literals(key))


def literals(key: ast.expr | None) -> Iterator[str]:
    if isinstance(key, ast.Constant) and isinstance(key.value, str):
        yield key.value
    elif isinstance(key, ast.JoinedStr) and isinstance(key.values[0], ast.Constant):
        yield str(key.values[0].value)


def test_every_key_of_diagnostics_is_explained() -> None:
    """A counter that was added, or renamed, in the code alone."""
    rows = re.findall(r"^\| (`.*?`) \| [\w, ]+ \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    explained = {key for row in rows for key in re.findall(r"`([^`]+)`", row)}
    found = set(keys_in_code())
    assert {"rate_hz", "dropped.latent", "gate.REASON"} <= explained
    assert {("perception_node.py", "dropped.superseded"), ("planner_report.py", "missed.deadline")} <= found
    missing = {
        (file, key)
        for file, key in found
        if key not in STANDING and not any(one.startswith(key) for one in explained)
    }
    assert not missing
