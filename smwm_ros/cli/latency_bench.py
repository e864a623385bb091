"""`smwm bench latency`: from the camera's stamp to the command that rests on it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from smwm_ros.cli.options import Checkpoint, Json, Robot
from smwm_ros.cli.output import progress_bar, show_result

if TYPE_CHECKING:
    from smwm_ros.contract import Contract

Progress = Callable[[float], None]

GOALS = 10
LARGE = (640, 480)
"""Width and height of the large cameras, pixels."""
CAMERAS = {"vga_raw": "sensor_msgs/msg/Image", "vga_jpeg": "sensor_msgs/msg/CompressedImage"}
BESIDE = 0.5
"""Share of the time for each of the figures beside."""


def latency(
    seconds: Annotated[float, typer.Option(min=0.1, help="How long to measure the stack.")] = 60.0,
    robot: Robot = "reacher",
    checkpoint: Checkpoint = None,
    cameras: Annotated[
        bool, typer.Option(help="Beside it, the same with large cameras: VGA, raw and JPEG.")
    ] = True,
    empty: Annotated[
        bool, typer.Option(help="Beside it, processes that only pass the same messages on.")
    ] = True,
    as_json: Json = False,
) -> None:
    """From the camera's stamp to the command that rests on it: the whole stack, in real time."""
    from smwm_ros.cli.environment import isolate
    from smwm_ros.resources import checkpoint_path, contract_path, find_contract

    isolate()
    contract, own = find_contract(robot), contract_path(robot)
    model = checkpoint or checkpoint_path(contract.name)
    with TemporaryDirectory() as folder, progress_bar() as bar:

        def measured(
            what: str, seconds: float, measure: Callable[[Progress], dict[str, Any]]
        ) -> dict[str, Any]:
            step = bar.add_task(f"{what} (s)", total=round(seconds))
            return measure(lambda done: bar.update(step, completed=round(done)))

        def of_the_stack(what: str, seconds: float, robot: Path, model: Path) -> dict[str, Any]:
            return measured(what, seconds, lambda progress: _stack(robot, model, seconds, progress))

        def of_nothing(what: str, robot: Path) -> dict[str, Any]:
            share = BESIDE * seconds
            return measured(f"{what}, empty", share, lambda progress: _relay(robot, share, progress))

        figures = of_the_stack("the stack", seconds, own, model)
        if empty:
            figures["empty"] = of_nothing("the stack", own)
        for name, kind in CAMERAS.items() if cameras else ():
            large, its_model = _enlarged(contract, kind, model, Path(folder) / name)
            figures[name] = of_the_stack(name, BESIDE * seconds, large, its_model)
            if empty:
                figures[name]["empty"] = of_nothing(name, large)
    show_result({**figures, "rate_hz": contract.rate}, as_json, "camera stamp to command")


def _stack(robot: Path, model: Path, seconds: float, progress: Progress) -> dict[str, Any]:
    from smwm_ros.contract import load_contract
    from smwm_ros.data.images import enlarge
    from smwm_ros.nodes.client import RobotClient
    from smwm_ros.nodes.latency import measure_latency
    from smwm_ros.nodes.sim_node import small
    from smwm_ros.stack.description import describe
    from smwm_ros.stack.supervisor import Supervisor
    from smwm_ros.tasks import make_task

    contract = load_contract(robot)
    stream = contract.observation.image
    large = stream.width > stream.size
    specs = describe("sim", {"contract": str(robot), "checkpoint": str(model)}, {"sim": {"enlarge": large}})
    with make_task(small(contract) if large else contract) as task:
        goals = [task.reset(seed=number)[0]["pixels"] for number in range(GOALS)]
    if large:
        goals = [enlarge(goal, stream) for goal in goals]
    with Supervisor(specs) as stack:
        stack.wait_ready()
        with RobotClient(contract, check=stack.check) as client:
            client.wait_ready()
            return measure_latency(client, goals, seconds, progress)


def _relay(robot: Path, seconds: float, progress: Progress) -> dict[str, Any]:
    from smwm_ros.contract import load_contract
    from smwm_ros.nodes.client import RobotClient
    from smwm_ros.nodes.latency import measure_relay
    from smwm_ros.nodes.relay import STAGES
    from smwm_ros.stack.description import ProcessSpec
    from smwm_ros.stack.supervisor import Supervisor
    from smwm_ros.stack.transport import large_messages

    specs = [
        ProcessSpec(
            name=stage,
            module="smwm_ros.nodes.relay",
            parameters={"contract": str(robot)},
            environment=large_messages() if stage == "camera" else {},
        )
        for stage in STAGES
    ]
    with Supervisor(specs) as stack:
        stack.wait_ready()
        with RobotClient(load_contract(robot), check=stack.check) as client:
            return measure_relay(client, seconds, progress)


def _enlarged(contract: Contract, kind: str, model: Path, folder: Path) -> tuple[Path, Path]:
    """
    Give a robot a large camera, in whose middle its encoder sees what it has always seen.

    Returns:
        Where its contract is, and the same model for it.
    """
    from smwm_ros.contract import parse_contract
    from smwm_ros.models.checkpoint import load_checkpoint, save_checkpoint

    width, height = LARGE
    side = contract.observation.image.size
    side *= min(LARGE) // side
    content = contract.model_dump(mode="json") | {"planner": dict(contract.planner)}
    content["observation"] |= {"depth": None, "camera_info": None}
    content["observation"]["image"] |= {
        "type": kind,
        "width": width,
        "height": height,
        "crop": [(width - side) // 2, (height - side) // 2, side, side],
    }
    folder.mkdir()
    text = json.dumps(content)
    (folder / "robot.yaml").write_text(text, encoding="utf-8")
    checkpoint = load_checkpoint(model)
    info = checkpoint.info.model_copy(update={"contract": parse_contract(text, "the large camera")})
    save_checkpoint(folder / "model.safetensors", info, checkpoint.model, checkpoint.parts)
    return folder / "robot.yaml", folder / "model.safetensors"
