"""The robot contract: what is accepted, and what each refusal says."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from smwm_ros.contract import COMMAND_FIELDS, Contract, load_contract, parse_contract
from smwm_ros.errors import ContractError

ROBOTS = sorted(Path(__file__).parents[1].glob("config/robots/*.yaml"))
REACHER = yaml.safe_load(Path(__file__).parents[1].joinpath("config/robots/reacher.yaml").read_text())
FIELDS = {
    "std_msgs/msg/Float64MultiArray": "data[{}]",
    "trajectory_msgs/msg/JointTrajectory": "points[0].velocities[{}]",
    "geometry_msgs/msg/Twist": "linear.{}",
    "geometry_msgs/msg/TwistStamped": "twist.angular.{}",
}
REMOVE = object()
ELBOW = {"joint": "elbow", "low": -2.5, "high": 2.5}


def changed(**changes: Any) -> dict[str, Any]:
    """Return the reacher's contract with values set, or removed, at ``a__b__0`` paths."""
    content = copy.deepcopy(REACHER)
    for path, value in changes.items():
        *parents, last = [int(part) if part.isdigit() else part for part in path.split("__")]
        at = content
        for part in parents:
            at = at[part]
        if value is REMOVE:
            del at[last]
        else:
            at[last] = value
    return content


def parse(content: Any) -> Contract:
    return parse_contract(yaml.safe_dump(content), "robot.yaml")


@pytest.mark.parametrize("path", ROBOTS, ids=lambda path: path.stem)
def test_shipped_contracts_load(path: Path) -> None:
    """A shipped file that the model no longer accepts, or one whose name is not its robot's."""
    assert load_contract(path).name == path.stem


def test_reacher_says_what_it_should() -> None:
    contract = parse(REACHER)
    assert (contract.period_ns, contract.max_gap_ns) == (50_000_000, 90_000_000)
    assert contract.period == pytest.approx(0.05)
    assert (contract.action.size, contract.block_size) == (2, 10)
    np.testing.assert_array_equal(contract.action.low, [-2.0, -2.0])
    np.testing.assert_array_equal(contract.action.high, [2.0, 2.0])
    np.testing.assert_array_equal(contract.action.max_change, [40.0, 40.0])
    np.testing.assert_array_equal(contract.action.safe_values, [0.0, 0.0])


# What is wrong, the key that the message must name, and a part of the reason it must give.
REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "unknown key": (changed(colour="red"), "colour", "unknown key"),
    "misspelt key": (changed(observation__image__witdh=64), "observation.image.witdh", "unknown key"),
    "unknown key of a dimension": (
        changed(action__dimensions__1__max=1.0),
        "action.dimensions.1.max",
        "unknown",
    ),
    "rate missing": (changed(rate=REMOVE), "rate", "missing"),
    "image missing": (changed(observation__image=REMOVE), "observation.image", "missing"),
    "limit missing": (changed(action__dimensions__0__low=REMOVE), "action.dimensions.0.low", "missing"),
    "unit missing": (changed(action__dimensions__0__unit=REMOVE), "action.dimensions.0.unit", "missing"),
    "name with capitals": (changed(name="My Robot"), "name", "pattern"),
    "rate zero": (changed(rate=0), "rate", "greater than 0"),
    "rate negative": (changed(rate=-20.0), "rate", "greater than 0"),
    "rate not a number": (changed(rate=float("nan")), "rate", "nan"),
    "rate without end": (changed(rate=float("inf")), "rate", "inf"),
    "rate in words": (changed(rate="fast"), "rate", "fast"),
    "rate beyond reach": (changed(rate=5000.0), "rate", "1000"),
    "block zero": (changed(block=0), "block", "1"),
    "block a fraction": (changed(block=2.5), "block", "2.5"),
    "gap of one tick": (changed(max_gap=1.0), "max_gap", "greater than 1"),
    "image without width": (changed(observation__image__width=0), "observation.image.width", "8"),
    "size negative": (changed(observation__image__size=-64), "observation.image.size", "8"),
    "encoding unknown": (changed(observation__image__encoding="yuv"), "observation.image.encoding", "rgb8"),
    "image type unknown": (
        changed(observation__image__type="Image"),
        "observation.image.type",
        "CompressedImage",
    ),
    "topic with a space": (
        changed(observation__image__topic="my camera"),
        "observation.image.topic",
        "my camera",
    ),
    "topic with a slash at the end": (changed(action__topic="commands/"), "action.topic", "commands/"),
    "crop outside": (changed(observation__image__crop=[10, 0, 60, 64]), "observation.image", "64x64"),
    "crop before the edge": (changed(observation__image__crop=[-1, 0, 8, 8]), "observation.image", "64x64"),
    "crop of nothing": (changed(observation__image__crop=[0, 0, 0, 64]), "observation.image", "64x64"),
    "crop of three": (changed(observation__image__crop=[0, 0, 64]), "observation.image.crop", "required"),
    "depth encoding": (changed(observation__depth__encoding="mono8"), "observation.depth.encoding", "32FC1"),
    "joints twice": (changed(observation__joints__names=["a", "a"]), "observation.joints.names", "repeat"),
    "no joints": (changed(observation__joints__names=[]), "observation.joints.names", "at least 1"),
    "command type": (changed(action__type="std_msgs/msg/String"), "action.type", "Float64MultiArray"),
    "timeout zero": (changed(action__timeout=0.0), "action.timeout", "greater than 0"),
    "safe unknown": (changed(action__safe="stop"), "action.safe", "zero"),
    "safe too short": (changed(action__safe=[0.0]), "action", "1 values"),
    "safe outside the limits": (changed(action__safe=[0.0, 3.0]), "action", "outside low"),
    "zero outside the limits": (changed(action__dimensions__0__low=0.5), "action", "outside low"),
    "no dimensions": (changed(action__dimensions=[]), "action.dimensions", "at least 1"),
    "low above high": (changed(action__dimensions__0__low=2.5), "action.dimensions.0", "less than high"),
    "low equals high": (changed(action__dimensions__0__low=2.0), "action.dimensions.0", "less than high"),
    "no limit": (changed(action__dimensions__0__high=float("inf")), "action.dimensions.0.high", "finite"),
    "no change allowed": (
        changed(action__dimensions__0__max_change=0),
        "action.dimensions.0.max_change",
        "0",
    ),
    "field of another type": (changed(action__dimensions__0__field="linear.x"), "action", "linear.x"),
    "field twice": (changed(action__dimensions__0__field="data[1]"), "action", "repeat a field"),
    "field with more behind it": (changed(action__dimensions__0__field="data[0].x"), "action", "data[0].x"),
    "name twice": (changed(action__dimensions__0__name="elbow"), "action", "repeat a name"),
    "points of a message that has one": (changed(action__points=3), "action", "only JointTrajectory"),
    "open loop": (changed(action__open_loop=0.01), "", "less than a control period of 0.05 s"),
    "no points": (changed(action__points=0), "action.points", "greater than or equal to 1"),
    "position limits the wrong way round": (
        changed(action__dimensions__1__position={"joint": "elbow", "low": 1.0, "high": -1.0}),
        "action.dimensions.1.position",
        "less than high",
    ),
    "position limit of a joint that is not sensed": (
        changed(action__dimensions__1__position={"joint": "wrist", "low": -1.0, "high": 1.0}),
        "action.dimensions.1.position.joint 'wrist'",
        "['shoulder', 'elbow']",
    ),
    "position limit without joint states": (
        changed(observation__joints=REMOVE, action__dimensions__1__position=ELBOW),
        "action.dimensions.1.position.joint 'elbow'",
        "observation.joints.names []",
    ),
    "position limit of one joint twice": (
        changed(action__dimensions__0__position=ELBOW, action__dimensions__1__position=ELBOW),
        "action",
        "repeat the joint",
    ),
    "position limit and a safe action that moves on": (
        changed(action__dimensions__1__position=ELBOW, action__safe="hold"),
        "action",
        "use zero or decelerate",
    ),
    "position limit and a safe action with a velocity": (
        changed(action__dimensions__1__position=ELBOW, action__safe=[0.0, 0.1]),
        "action",
        "use zero or decelerate",
    ),
    "position limit of a position": (
        changed(
            action__type="trajectory_msgs/msg/JointTrajectory",
            action__dimensions__0__field="points[0].positions[0]",
            action__dimensions__1__field="points[0].positions[1]",
            action__dimensions__1__position=ELBOW,
        ),
        "action",
        "is no velocity",
    ),
    "position limit and points without one": (
        changed(
            action__type="trajectory_msgs/msg/JointTrajectory",
            action__points=3,
            action__dimensions__0__field="points[0].velocities[0]",
            action__dimensions__1__field="points[0].velocities[1]",
            action__dimensions__1__position=ELBOW,
        ),
        "action",
        "leave out one of the two",
    ),
}


@pytest.mark.parametrize(("content", "key", "reason"), REFUSED.values(), ids=REFUSED.keys())
def test_refusals_name_file_key_and_reason(content: dict[str, Any], key: str, reason: str) -> None:
    """A wrong contract that is taken, or one refused without saying where and why."""
    with pytest.raises(ContractError) as refusal:
        parse(content)
    lines = [line for line in str(refusal.value).splitlines() if line.startswith(f"robot.yaml: {key}")]
    assert any(reason in line for line in lines), refusal.value


def test_every_fault_is_named() -> None:
    """Faults that come to light one by one, run after run."""
    with pytest.raises(ContractError) as refusal:
        parse(changed(rate=0, colour="red", action__timeout=REMOVE))
    assert [line.split(": ")[1] for line in str(refusal.value).splitlines()] == [
        "rate",
        "action.timeout",
        "colour",
    ]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "found NoneType"),
        ("- a\n- b\n", "found list"),
        ("reacher", "found str"),
        ("rate: [20", "not valid YAML"),
        ("rate: 20\nrate: 30\n", "'rate' is given twice"),
        ("action: {topic: a, topic: b}", "'topic' is given twice"),
        ("rate: !!python/object/apply:os.getcwd []", "not valid YAML"),
        ("? [1, 2]\n: 3\n", "not valid YAML"),
        pytest.param("[" * 5000, "not valid YAML", id="nested too deep"),
        ("a: &a [*a]", "a value contains itself"),
        ("1: one", "Keys should be strings"),
        ("name: \x00", "not valid YAML"),
        ("rate: 2001-99-99", "not valid YAML"),
        ("rate: !!int ''", "not valid YAML"),
        ("rate: !!bool maybe", "not valid YAML"),
        ("rate: !!timestamp now", "not valid YAML"),
        pytest.param("rate: " + "9" * 5000, "not valid YAML", id="too many digits"),
    ],
)
def test_text_that_is_no_contract(text: str, reason: str) -> None:
    """A traceback of the YAML or validation library in place of the package's own error."""
    with pytest.raises(ContractError, match=r"^robot\.yaml: ") as refusal:
        parse_contract(text, "robot.yaml")
    assert reason in str(refusal.value)


def test_an_exponentially_growing_document_is_refused_briefly() -> None:
    """A message as large as what nine nested aliases of nine expand to: 3.5 GB."""
    lines = ["x0: &a0 [lol]"]
    lines += [f"x{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]" for level in range(1, 10)]
    lines += ["name: *a9", "rate: *a9", "action: *a9"]
    with pytest.raises(ContractError) as refusal:
        parse_contract("\n".join(lines), "robot.yaml")
    assert len(str(refusal.value)) < 10_000


@pytest.mark.parametrize("content", [b"\x89PNG\r\n\x1a\n\xff\xfe", b"\x80\x81"])
def test_a_binary_file_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "robot.yaml"
    file.write_bytes(content)
    with pytest.raises(ContractError, match=r"robot\.yaml: cannot read"):
        load_contract(file)


def test_a_missing_file_and_a_directory_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(ContractError, match="cannot read the robot contract") as refusal:
            load_contract(path)
        assert str(path) in str(refusal.value)


@pytest.mark.parametrize("kind", COMMAND_FIELDS)
def test_each_command_type_takes_its_own_fields_only(kind: str) -> None:
    """A field form that no longer fits its message, or fits another's."""
    axes = "xy" if "Twist" in kind else "01"

    def with_fields(form: str) -> dict[str, Any]:
        return changed(
            action__type=kind,
            action__dimensions__0__field=form.format(axes[0]),
            action__dimensions__1__field=form.format(axes[1]),
        )

    assert parse(with_fields(FIELDS[kind])).action.type == kind
    for other in FIELDS.keys() - {kind}:
        with pytest.raises(ContractError, match="is not a field of"):
            parse(with_fields(FIELDS[other]))


def test_safe_actions() -> None:
    assert parse(changed(action__safe="hold")).action.safe == "hold"
    np.testing.assert_array_equal(parse(changed(action__safe=[0.5, -0.5])).action.safe_values, [0.5, -0.5])
    one_sided = changed(action__dimensions__0__low=0.5, action__safe="hold")
    assert parse(one_sided).action.safe == "hold", "holding needs no zero inside the limits"


def test_decelerate_needs_a_standstill_within_the_limits() -> None:
    np.testing.assert_array_equal(parse(changed(action__safe="decelerate")).action.safe_values, [0.0, 0.0])
    with pytest.raises(ContractError, match="outside low"):
        parse(changed(action__safe="decelerate", action__dimensions__0__low=0.5))


def test_position_limits_points_and_open_loop_concern_the_action_node_alone() -> None:
    """
    Pins that a robot whose joints are limited later has the same data, and takes the same checkpoints.

    A store's fingerprint is of the contract's JSON.
    """
    limited = parse(changed(action__dimensions__1__position=ELBOW, action__open_loop=0.5))
    assert {index: limit.joint for index, limit in limited.action.positions.items()} == {1: "elbow"}
    plain = parse(REACHER)
    assert limited.model_dump_json() == plain.model_dump_json()
    assert limited.differences(plain) == []
    assert plain.action.points == 1


def test_parts_cannot_be_changed_afterwards() -> None:
    contract = parse(REACHER)
    with pytest.raises(ValueError, match="frozen"):
        contract.action.timeout = 9.0  # type: ignore[misc]


# Contracts of any shape, for what must hold of all of them.
topics = st.from_regex(r"/?[a-z][a-z0-9_]{0,8}(/[a-z][a-z0-9_]{0,8}){0,3}", fullmatch=True)
limits = st.tuples(st.floats(-1e6, 0, allow_subnormal=False), st.floats(0.001, 1e6, allow_subnormal=False))


@st.composite
def contracts(draw: st.DrawFn) -> dict[str, Any]:
    kind = draw(st.sampled_from(sorted(FIELDS)))
    size = draw(st.integers(1, 3))
    width, height = draw(st.integers(8, 8192)), draw(st.integers(8, 8192))
    left, top = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
    crop = [left, top, draw(st.integers(1, width - left)), draw(st.integers(1, height - top))]
    return {
        "name": "robot",
        "rate": draw(st.floats(0.1, 1000)),
        "block": draw(st.integers(1, 100)),
        "max_gap": draw(st.floats(1.01, 100)),
        "observation": {
            "image": {
                "topic": draw(topics),
                "width": width,
                "height": height,
                "size": draw(st.integers(8, 512)),
                "crop": draw(st.one_of(st.none(), st.just(crop))),
            }
        },
        "action": {
            "topic": draw(topics),
            "type": kind,
            "timeout": draw(st.floats(0.001, 100)),
            "safe": draw(st.sampled_from(["zero", "decelerate", "hold", [0.0] * size])),
            "dimensions": [
                {
                    "field": FIELDS[kind].format("xyz"[number] if "Twist" in kind else number),
                    "name": f"joint_{number}",
                    "unit": draw(st.sampled_from(["m/s", "rad/s", "N m"])),
                    "low": low,
                    "high": high,
                    "max_change": draw(st.floats(0.001, 1e6)),
                }
                for number, (low, high) in enumerate(draw(st.lists(limits, min_size=size, max_size=size)))
            ],
        },
    }


@given(contracts())
def test_any_contract_survives_json_and_yaml(content: dict[str, Any]) -> None:
    """A checkpoint keeps the contract as JSON: what comes back must be the same, to the last bit."""
    contract = Contract.model_validate(content)
    assert parse_contract(contract.model_dump_json(), "checkpoint") == contract
    assert parse_contract(yaml.safe_dump(json.loads(contract.model_dump_json())), "copy") == contract
    assert contract.differences(contract) == []


@given(contracts(), contracts())
def test_differences_mirror_each_other(one: dict[str, Any], other: dict[str, Any]) -> None:
    """A field that differs one way round only."""
    first, second = Contract.model_validate(one), Contract.model_validate(other)
    keys = [line.split(":")[0] for line in first.differences(second)]
    assert keys == [line.split(":")[0] for line in second.differences(first)]
    assert ("rate" in keys) == (first.rate != second.rate)


@given(st.text())
def test_any_text_is_a_contract_or_a_contract_error(text: str) -> None:
    """Whatever is typed into the file: never another exception."""
    with pytest.raises(ContractError):
        parse_contract(text, "robot.yaml")


MATTERS: dict[str, tuple[str, Any]] = {
    "rate": ("rate", 10.0),
    "block": ("block", 4),
    "observation.image.size": ("observation__image__size", 32),
    "observation.image.width": ("observation__image__width", 128),
    "observation.image.crop.0": ("observation__image__crop", [0, 0, 32, 32]),
    "action.dimensions.0.high": ("action__dimensions__0__high", 1.0),
    "action.dimensions.1.unit": ("action__dimensions__1__unit", "deg/s"),
}


@pytest.mark.parametrize(("key", "change"), MATTERS.items(), ids=MATTERS.keys())
def test_differences_name_what_a_model_depends_on(key: str, change: tuple[str, Any]) -> None:
    """A model driving a robot that it was not trained on."""
    path, value = change
    there = parse(changed(**{path: value}))
    assert any(line.startswith(f"{key}: ") for line in parse(REACHER).differences(there))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("name", "other"),
        ("observation__image__topic", "other/image"),
        ("observation__image__type", "sensor_msgs/msg/CompressedImage"),
        ("observation__depth", REMOVE),
        ("observation__joints", REMOVE),
        ("action__topic", "other/commands"),
        ("action__timeout", 1.0),
        ("action__safe", "hold"),
    ],
)
def test_differences_leave_out_what_a_model_never_sees(path: str, value: Any) -> None:
    """A remapped robot that its own model refuses."""
    assert parse(REACHER).differences(parse(changed(**{path: value}))) == []


def test_settings_of_the_planner_are_no_part_of_what_data_and_models_depend_on() -> None:
    """
    Pins that a robot planned with other settings has the same data, and takes the same checkpoints.

    A store's fingerprint is of the contract's JSON.
    """
    plain, other = parse(REACHER), parse(changed(planner={"horizon": 8, "cost": "soon", "std": 1.0}))
    assert other.planner == {"horizon": 8, "cost": "soon", "std": 1.0}
    assert other.model_dump_json() == plain.model_dump_json()
    assert other.differences(plain) == []


@pytest.mark.parametrize("section", [["horizon"], {"horizon": [8]}, {8: 8}, None])
def test_settings_of_the_planner_are_names_with_plain_values(section: Any) -> None:
    with pytest.raises(ContractError, match=r"robot\.yaml: planner"):
        parse(changed(planner=section))
