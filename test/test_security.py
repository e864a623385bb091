"""What is read may be made to do harm: it must not run, grow without bound, or write where it likes."""

from __future__ import annotations

import ast
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from checkpoints import information
from safetensors.torch import save as save_tensors

from smwm_ros.cli.peer_solvers import start_solvers
from smwm_ros.contract import load_contract, parse_contract
from smwm_ros.data.bags.contents import contents_of
from smwm_ros.errors import CheckpointError, ConfigError, ContractError, DataError
from smwm_ros.models.checkpoint import load_checkpoint
from smwm_ros.models.config import ModelConfig, load_model_config
from smwm_ros.models.world_model import WorldModel
from smwm_ros.resources import checkpoint_path, find_contract
from smwm_ros.stack.description import load_stack_file, parse_settings
from smwm_ros.validation import DEEPEST, LARGEST_TEXT, parse_value

ROOT = Path(__file__).parents[1]
SOURCES = [*(ROOT / "smwm_ros").rglob("*.py"), *(ROOT / "launch").glob("*.py")]
FORBIDDEN_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "jsonpickle"}
FORBIDDEN_CALLS = {
    "eval",
    "exec",
    "os.system",
    "os.popen",
    "yaml.unsafe_load",
    "yaml.full_load",
    "yaml.load_all",
    "yaml.unsafe_load_all",
    "pandas.read_pickle",
    "torch.load",
    "torch.save",
}


def calls(tree: ast.AST) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the calls in a module: dotted name, and keyword arguments (constants as they are)."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            keywords = {
                str(k.arg): k.value.value if isinstance(k.value, ast.Constant) else ast.unparse(k.value)
                for k in node.keywords
            }
            yield ast.unparse(node.func), keywords


def dangers(tree: ast.AST) -> Iterator[str]:
    """Yield what a module, or the script for another environment in it, does that could run what it reads."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "PEER":
            yield from dangers(ast.parse(ast.literal_eval(node.value)))
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        yield from {name.partition(".")[0] for name in names} & FORBIDDEN_MODULES
    for name, keywords in calls(tree):
        if (
            name in FORBIDDEN_CALLS
            or keywords.get("shell") is True
            or keywords.get("allow_pickle") is True
            or (name == "yaml.load" and keywords.get("Loader") not in ("_BoundedLoader", "Loader"))
        ):
            yield name


def test_nothing_that_is_read_can_run_code():
    """Pickles, YAML with objects, evaluated text, a shell: one of them, anywhere, is enough."""
    found = {path.name: list(dangers(ast.parse(path.read_text(encoding="utf-8")))) for path in SOURCES}
    assert len(found) > 100
    assert not {name: what for name, what in found.items() if what}


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "from pickle import loads",
        "torch.load(path, weights_only=True)",
        "np.load(path, allow_pickle=True)",
        "yaml.load(text)",
        "yaml.load(text, Loader=yaml.Loader)",
        "subprocess.run(text, shell=True)",
        "eval(text)",
        "PEER = 'torch.load(path)'",
    ],
)
def test_dangers_are_seen(text: str):
    """The test above could not fail."""
    assert list(dangers(ast.parse(text)))


def test_weights_for_a_peer_are_no_pickle(tmp_path: Path):
    """The benchmarks' peer gets them as they are, in a file that numpy reads without one."""
    peer = tmp_path / "python"
    peer.write_text("#!/bin/sh\necho '\"peer\"'\nread line\n")
    peer.chmod(0o755)
    ours = load_checkpoint(checkpoint_path("reacher"))
    weights = ours.model.dynamics.state_dict() | {"count": torch.tensor(3)}
    with (
        start_solvers(peer, ours, tmp_path, threads=1, official=weights),
        np.load(tmp_path / "model.npz", allow_pickle=False) as found,
    ):
        assert set(found) == weights.keys()
        assert all(torch.equal(torch.from_numpy(found[name]), weight) for name, weight in weights.items())


def test_the_loaders_named_loader_are_safe_ones():
    """The test above goes by names."""
    from smwm_ros.data.bags import yaml_text  # noqa: PLC0415
    from smwm_ros.validation import _BoundedLoader  # noqa: PLC0415

    assert issubclass(_BoundedLoader, yaml.SafeLoader)
    assert yaml_text.Loader in (yaml.SafeLoader, getattr(yaml, "CSafeLoader", None))


LAUGHS = ["x0: &a0 [lol]"] + [f"x{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10)]


CHAIN = ["x0: &a0 [lol]"] + [f"x{n}: &a{n} [*a{n - 1}]" for n in range(1, 60)]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param("\n".join(LAUGHS), "references written out", id="laughs"),
        pytest.param("\n".join(CHAIN), "32 levels", id="chain"),
        ("a: &a [*a]", "contains itself"),
        ("a: &a {b: *a}", "contains itself"),
        pytest.param("[" * 5000, "nested more than 32", id="lists"),
        pytest.param("{a: " * 5000, "nested more than 32", id="mappings"),
        pytest.param("- " * 5000, "nested more than 32", id="dashes"),
        ("a: &a {b: 1}\nc: {<<: *a}", "merged"),
        ("a: 1\n" * 2, "given twice"),
        ("a: !!python/object/apply:os.system [true]", "not valid YAML"),
        ("? [a]\n: 1", "unhashable"),
        pytest.param("x" * (LARGEST_TEXT + 1), f"more than {LARGEST_TEXT} characters", id="long"),
    ],
)
def test_yaml_that_grows_is_refused(text: str, says: str):
    """A kilobyte that becomes gigabytes, or a stack overflow, when it is walked through."""
    with pytest.raises(ContractError, match=says) as refusal:
        parse_contract(text, "robot.yaml")
    assert len(str(refusal.value)) < 1000


def test_yaml_within_bounds_is_read():
    """References save typing, and stay allowed."""
    content = parse_value("a: &a {low: -1, high: 1}\nb: [*a, *a]", "x", ConfigError)
    assert content["b"] == [{"low": -1, "high": 1}] * 2
    deep = "[" * DEEPEST + "]" * DEEPEST
    assert json.dumps(parse_value(deep, "x", ConfigError)) == deep


def test_large_files_are_not_read_whole(tmp_path: Path):
    """A disk full of YAML, by mistake or not."""
    path = tmp_path / "robot.yaml"
    with path.open("wb") as file:
        file.truncate(1 << 40)  # a terabyte that takes no room
    with pytest.raises(ContractError, match=r"robot\.yaml: more than 65536 characters"):
        load_contract(path)
    with pytest.raises(ConfigError, match="more than 65536 characters"):
        load_stack_file(path)
    with pytest.raises(ConfigError, match="more than 65536 characters"):
        load_model_config(path)


def test_wrong_yaml_on_the_command_line_is_a_users_error():
    """And not a traceback."""
    with pytest.raises(ConfigError, match=r"planner\.samples: not valid YAML"):
        parse_settings([("planner.samples", "[")])


@pytest.fixture(scope="module")
def weights() -> tuple[WorldModel, ModelConfig]:
    contract = find_contract("reacher")
    config = load_model_config("smwm")
    return WorldModel(config, contract), config


def checkpoint(path: Path, model: WorldModel, info: Any) -> Path:
    """Write a checkpoint whose JSON may say what it likes."""
    content = save_tensors(
        model.state_dict(), metadata={"smwm": info if isinstance(info, str) else json.dumps(info)}
    )
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("slot", "lie"),
    [
        ("dynamics", {"hidden": 200_000}),
        ("inverse", {"hidden": 1_000_000}),
        ("dynamics", {"layers": 10_000_000}),
        ("encoder", {"latent": 100_000_000}),
    ],
)
def test_checkpoints_that_lie_about_sizes_are_refused(
    tmp_path: Path, weights, slot: str, lie: dict[str, int]
):
    """Weights of some megabytes, and settings that ask for terabytes."""
    model, config = weights
    info = information(config, find_contract("reacher")).model_dump(mode="json")
    info["config"][slot] |= lie
    with pytest.raises(CheckpointError, match="larger one than the"):
        load_checkpoint(checkpoint(tmp_path / "liar.safetensors", model, info))


@pytest.mark.parametrize(
    "content",
    [
        struct.pack("<Q", 2 << 30) + b"{}",
        struct.pack("<Q", (1 << 64) - 1) + b"{}",
        struct.pack("<Q", 2) + b"{}",
        struct.pack("<Q", 10) + b"[" * 10,
        struct.pack("<Q", 64)
        + b'{"a":{"dtype":"F32","shape":[1000000000],"data_offsets":[0,4]}}'.ljust(64)
        + b"\0\0\0\0",
    ],
)
def test_headers_that_lie_about_sizes_are_refused(tmp_path: Path, content: bytes):
    """Two gigabytes of header in a file of ten bytes."""
    path = tmp_path / "liar.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="not a whole smwm checkpoint"):
        load_checkpoint(path)


def test_deeply_nested_json_in_a_checkpoint_is_refused(tmp_path: Path, weights):
    """It overflows the parser's stack."""
    with pytest.raises(CheckpointError, match="not a whole smwm checkpoint"):
        load_checkpoint(checkpoint(tmp_path / "deep.safetensors", weights[0], "[" * 100_000))


def test_a_huge_file_is_not_read_as_a_checkpoint(tmp_path: Path):
    path = tmp_path / "huge.safetensors"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(CheckpointError, match="this is no checkpoint"):
        load_checkpoint(path)


def test_shipped_checkpoints_stay_within_the_bound(weights):
    """The bound is on what is built, and some layers build parameters twice."""
    for path in sorted((ROOT / "config" / "checkpoints" / "reacher").glob("*.safetensors")):
        assert load_checkpoint(path).latent_size


def test_a_bags_metadata_leads_nowhere_else(tmp_path: Path):
    """Files of another folder would be read, and recovered over."""
    bag = tmp_path / "bag"
    bag.mkdir()
    (tmp_path / "secret.mcap").write_bytes(b"x")
    content = {
        "rosbag2_bagfile_information": {
            "relative_file_paths": ["../secret.mcap", "/etc/passwd"],
            "compression_mode": "",
            "compression_format": "",
        }
    }
    (bag / "metadata.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(DataError, match="secret"):
        contents_of(bag)
    assert all(path.parent == bag for path in contents_of(bag, salvage=True).files)


@pytest.mark.parametrize("name", ["../evil", "/evil", "a/b", "..", "A", ""])
def test_a_robots_name_is_no_path(name: str):
    """It names folders of checkpoints and bags."""
    text = (ROOT / "config" / "robots" / "reacher.yaml").read_text()
    with pytest.raises(ContractError, match="name"):
        parse_contract(text.replace("name: reacher\n", f"name: '{name}'\n", 1), "robot.yaml")
