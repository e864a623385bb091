"""`smwm goal`: send a running robot to a goal image."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from smwm_ros.cli.options import Json, Robot
from smwm_ros.cli.output import console, show_result
from smwm_ros.errors import ConfigError, DataError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

NOT_REACHED = 3
"""Exit code when the goal was given up."""


def goal(
    image: Annotated[
        Optional[Path],  # noqa: UP045 - typer evaluates it
        typer.Argument(help="Picture of the goal, as the robot's camera takes them.", show_default=False),
    ] = None,
    state: Annotated[
        str, typer.Option(help="Instead of a picture: a state of the simulated robot, as 0.5,1.2,0,0.")
    ] = "",
    robot: Robot = "reacher",
    namespace: Annotated[str, typer.Option(help="Of the robot's nodes.")] = "",
    tolerance: Annotated[
        float, typer.Option(help="Model steps; 0: hold the goal; negative: the planner's own.")
    ] = -1.0,
    time_limit: Annotated[float, typer.Option(min=0, help="Seconds; 0: the planner's own.")] = 0.0,
    as_json: Json = False,
) -> None:
    """Send one goal to a running stack, and watch the robot get there. Ctrl-C gives the goal up."""
    from smwm_ros.nodes.client import RobotClient
    from smwm_ros.resources import find_contract

    contract = find_contract(robot)
    if (image is None) == (not state):
        raise ConfigError("give either a picture or --state, and not both")
    picture = read_picture(image) if image is not None else render(robot, state)
    with (
        RobotClient(contract, namespace=namespace) as client,
        console.status("looking for the robot") as line,
    ):
        client.wait_ready(simulated=False)
        sent = client.send_goal(picture, tolerance=tolerance, time_limit=time_limit)
        try:
            while not sent.done:
                client.wait(0.1)
                if sent.feedback:
                    newest = sent.feedback[-1]
                    line.update(
                        f"distance {newest.distance:.2f} model steps, plan {len(sent.feedback)}, "
                        f"{1e3 * newest.solve_time:.0f} ms, surprise {newest.surprise:.1f}"
                    )
        except (KeyboardInterrupt, SystemExit):
            client.cancel(sent)
            raise
    result = sent.result
    assert result is not None
    show_result(
        {
            "success": result.success,
            "error_code": result.error_code,
            "message": result.message,
            "final_distance": round(result.final_distance, 4),
            "plans": result.plans,
        },
        as_json,
        "goal",
    )
    raise typer.Exit(0 if result.success else NOT_REACHED)


def read_picture(path: Path) -> NDArray[np.uint8]:
    """
    Read a PNG or JPEG file as RGB.

    Raises:
        DataError: no such file, or no picture.
    """
    from smwm_ros.data.encodings import decode_compressed

    try:
        return decode_compressed(path.suffix.removeprefix("."), path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); give a PNG or JPEG file") from error


def render(robot: str, state: str) -> NDArray[np.uint8]:
    """
    Draw a state of the simulated robot.

    Raises:
        ConfigError: the text is no list of numbers.
        SimulationError: the robot has no such state, or no simulation.
    """
    from smwm_ros.resources import find_contract
    from smwm_ros.tasks import make_task

    try:
        values = [float(text) for text in state.split(",")]
    except ValueError as error:
        raise ConfigError(f"--state {state}: expected numbers with commas between, as 0.5,1.2,0,0") from error
    return make_task(find_contract(robot)).render_state(values)
