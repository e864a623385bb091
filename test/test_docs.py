"""What the documents say exists: commands, options, files, keys and messages."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import typer
import yaml

from smwm_ros.cli.main import app
from smwm_ros.contract import Action, Contract, Dimension, ImageStream, parse_contract
from smwm_ros.errors import ContractError

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
CODE = re.compile(r"```.*?\n(.*?)```|`([^`\n]+)`", re.DOTALL)
SMWM = re.compile(r"(?:^|[\s/])smwm ((?:[^\s#|]+ ?)+)")
MAKE = re.compile(r"(?:^|\s)make ([a-z]+)(?![\w.])")


def snippets(document: Path) -> list[str]:
    """Return the lines of code in a document: of blocks, and within sentences."""
    found = (block or inline for block, inline in CODE.findall(document.read_text(encoding="utf-8")))
    return [line for code in found for line in re.sub(r"\\\n\s*", "", code).splitlines()]


def command(words: list[str]) -> tuple[Any, list[str]]:
    """Follow a command line into the groups of commands; return the command and the words left."""
    found: Any = typer.main.get_command(app)
    while hasattr(found, "commands") and words and not words[0].startswith("-"):
        assert words[0] in found.commands, f"there is no command {' '.join(words)!r}"
        found, words = found.commands[words[0]], words[1:]
    return found, words


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_commands_exist_with_their_options(document: Path) -> None:
    """A command or an option renamed in the code and not in the documents."""
    for line in snippets(document):
        for text in SMWM.findall(line):
            found, words = command([word for word in text.split() if word != "..."])
            options = {name for option in found.params for name in (*option.opts, *option.secondary_opts)}
            unknown = {word for word in words if word.startswith("-")} - options - {"--help"}
            assert not unknown, f"smwm {text}: unknown {unknown}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_make_targets_exist(document: Path) -> None:
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    named = {name for line in snippets(document) for name in MAKE.findall(line)}
    assert named <= set(targets)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_linked_files_exist(document: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text(encoding="utf-8"))
    missing = [link for link in links if "://" not in link and not (document.parent / link).exists()]
    assert not missing


def test_readme_names_both_commands() -> None:
    assert {"demo", "test"} <= {name for line in snippets(ROOT / "README.md") for name in MAKE.findall(line)}


@pytest.mark.parametrize("part", [Contract, ImageStream, Action, Dimension])
def test_every_key_of_the_contract_is_described(part: Any) -> None:
    """A key added to the contract and not to its description."""
    text = (ROOT / "docs" / "contract.md").read_text(encoding="utf-8")
    for key in part.model_fields:
        assert re.search(rf"`([a-z]+\.)*{key}[`.]", text), key


def test_refusals_read_as_described() -> None:
    """Messages in docs/contract.md that the code no longer gives."""
    wrong = (ROOT / "config" / "robots" / "reacher.yaml").read_text(encoding="utf-8")
    said = []
    for old, new in (
        ("rate: 20.0", "rate: 0\ncolour: red"),
        ("timeout: 0.25", ""),
        ("safe: zero", "safe: [0, 3]"),
    ):
        assert old in wrong
        with pytest.raises(ContractError) as refusal:
            parse_contract(wrong.replace(old, new), "robot.yaml")
        said += str(refusal.value).splitlines()
    described = [line for line in snippets(ROOT / "docs" / "contract.md") if line.startswith("robot.yaml: ")]
    assert len(described) == 4
    assert set(described) <= set(said)


def test_python_packages_to_install_are_those_declared() -> None:
    """A dependency in setup.py that docs/install.md does not tell to install."""
    with mock.patch("setuptools.setup") as setup, mock.patch.object(sys, "argv", ["setup.py"]):
        runpy.run_path(str(ROOT / "setup.py"))
    declared = setup.call_args.kwargs["install_requires"]
    line = next(line for line in snippets(ROOT / "docs" / "install.md") if line.startswith("pip install '"))
    told = line.removeprefix("pip install ").replace("'", "").split()
    assert sorted(told) == sorted(name for name in declared if not name.startswith("ros-"))


def test_stack_arguments_in_documents_exist() -> None:
    """``name:=value`` that `smwm up` and ros2 launch do not know; a single node has its own."""
    stack = yaml.safe_load((ROOT / "config" / "stack.yaml").read_text(encoding="utf-8"))
    for document in DOCUMENTS:
        lines = [line for line in snippets(document) if "--ros-args" not in line]
        named = {name for line in lines for name in re.findall(r"(?<![\w.-])([a-z_]+):=", line)}
        assert named <= stack["arguments"].keys(), document.name
