"""`smwm demo`: a simulated robot reaches goal images, live, and a report tells how it went."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from smwm_ros.cli.environment import STARTED, isolate
from smwm_ros.cli.options import Checkpoint, Json, Model, Robot
from smwm_ros.cli.output import console, show_result
from smwm_ros.errors import ConfigError, SmwmError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from smwm_ros.evaluation.pairs import Pair, Pairs
    from smwm_ros.evaluation.protocol import Rollouts
    from smwm_ros.nodes.client import RobotClient
    from smwm_ros.tasks.base import RobotTask

OFFSET = 25
"""Ticks between start and goal; the robot gets twice as many."""
MADE = ("report.html", "result.json", "run.webm", "bag", "logs")
"""What the demo leaves in its folder, and replaces there."""


@dataclass(frozen=True)
class Attempt:
    """What was seen of one goal, from the moment it was accepted."""

    errors: NDArray[np.float64]
    """Largest error of the judged quantities at each tick, shape (T,)."""
    images: list[NDArray[np.uint8]]
    """From the camera, RGB."""
    closest: int
    """Index of the image taken when the error was smallest."""


def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for report, video and bag.")] = Path(
        "demo_output"
    ),
    goals: Annotated[int, typer.Option(min=1, help="Goal images, one after the other.")] = 10,
    seed: Annotated[int, typer.Option(help="Draws starts and goals.")] = 0,
    robot: Robot = "reacher",
    model: Model = "smwm",
    checkpoint: Checkpoint = None,
    as_json: Json = False,
) -> None:
    """Simulator and nodes in processes of their own, in real time; goals for any task with a checkpoint."""
    from smwm_ros.resources import checkpoint_path, find_contract
    from smwm_ros.stack.description import describe
    from smwm_ros.stack.supervisor import Supervisor

    isolate()
    contract = find_contract(robot)
    shown = checkpoint or checkpoint_path(contract.name, model)
    specs = describe(
        "sim", {"contract": robot, "checkpoint": str(shown), "bag": str(output / "bag"), "seed": seed}
    )
    clear(output)
    with Supervisor(specs, logs=output / "logs") as stack:
        with console.status("starting the nodes") as line:
            # These imports take as long as the nodes' own, which go on meanwhile.
            from smwm_ros.evaluation.pairs import draw_pairs
            from smwm_ros.evaluation.protocol import run_random
            from smwm_ros.nodes.client import RobotClient
            from smwm_ros.tasks import make_task

            task = make_task(contract)
            problems = draw_pairs(task, goals, OFFSET, seed)
            floor = run_random(task, problems, seed)
            stack.wait_ready(progress=lambda name: line.update(f"starting the nodes: {name} is ready"))
        with RobotClient(contract, images=True, check=stack.check) as client:
            client.wait_ready()
            startup = time.monotonic() - STARTED
            console.print(f"{len(specs)} nodes up after {startup:.1f} s", highlight=False)
            attempts = run_goals(client, task, problems)
    with console.status("writing the report"):
        result = write_results(output, task, problems, attempts, floor, startup)
    console.print(f"report: {output / 'report.html'}", soft_wrap=True)
    show_result(result, as_json, "demo")


def clear(output: Path) -> None:
    """
    Make the folder, and remove what an earlier demo left there.

    Raises:
        ConfigError: there is a file in the way.
    """
    if output.exists() and not output.is_dir():
        raise ConfigError(f"{output} is a file; give a folder with --output")
    output.mkdir(parents=True, exist_ok=True)
    for name in MADE:
        path = output / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def run_goals(client: RobotClient, task: RobotTask, problems: Pairs) -> list[Attempt]:
    """Send one goal after the other, and show how the robot gets nearer."""
    from rich.live import Live
    from rich.table import Table

    table = Table("goal", "error towards it", "nearest", "", box=None)
    attempts: list[Attempt] = []
    with Live(table, console=console, refresh_per_second=8) as live:
        for number, pair in enumerate(problems.pairs):
            for attempt in pursue(client, task, pair, problems.budget):
                rows = [*attempts, attempt]
                table = Table("goal", "error towards it", "nearest", "", box=None)
                for index, row in enumerate(rows):
                    nearest = float(row.errors.min())
                    reached = nearest <= task.threshold
                    running = index == number and len(row.errors) <= problems.budget
                    verdict = "[green]reached" if reached else "[yellow]..." if running else "[red]missed"
                    table.add_row(
                        str(index + 1), sparkline(row.errors), f"{nearest:.2g} {task.unit}", verdict
                    )
                live.update(table)
            attempts.append(attempt)
    return attempts


def pursue(client: RobotClient, task: RobotTask, pair: Pair, budget: int) -> Any:
    """
    Reset the robot, send a goal, and yield what has been seen of it so far, until the goal ends.

    Raises:
        StackError: the stack ended, or did not answer.
    """
    import numpy as np

    contract = client.contract
    joints = contract.observation.joints
    if joints is None:
        raise ConfigError("the demo judges by joint states, and this contract has none")
    client.reset(pair.start_state, pair.seed)
    goal = client.send_goal(pair.goal_image, tolerance=0.0, time_limit=budget * contract.period)
    # Only what comes after the acceptance counts; nothing was commanded until then.
    begin, first_image = len(client.joints) - 1, len(client.images) - 1
    deadline = client.joints[begin].stamp + (budget + 0.5) * contract.period_ns
    while True:
        finished = goal.done
        seen = [row for row in client.joints[begin:] if row.stamp <= deadline]
        errors = np.array(
            [task.errors(row.as_state(joints.names, task.state_names), pair.goal_state).max() for row in seen]
        )
        stamp = seen[int(errors.argmin())].stamp
        pictures = [picture for picture in client.images[first_image:] if picture[0] <= deadline]
        closest = min(range(len(pictures)), key=lambda index: abs(pictures[index][0] - stamp))
        yield Attempt(errors, [picture for _, picture in pictures], closest)
        if finished:
            return
        client.wait(0.1)


def sparkline(errors: NDArray[np.float64], width: int = 26) -> str:
    """Draw errors as a line of blocks, scaled to the first one."""
    blocks = " ▁▂▃▄▅▆▇█"
    step = max(1, -(-len(errors) // width))
    top = max(float(errors[0]), 1e-9)
    return "".join(blocks[min(8, round(8 * float(error) / top))] for error in errors[::step])


def write_results(
    output: Path, task: RobotTask, problems: Pairs, attempts: list[Attempt], floor: Rollouts, startup: float
) -> dict[str, Any]:
    """
    Judge, and write video, report and result.json; that one last, when all the rest is there.

    Returns:
        What is in result.json.
    """
    from smwm_ros.evaluation.judging import errors, reached, wilson
    from smwm_ros.evaluation.report import GoalTrace, Rate, Report, write_report
    from smwm_ros.evaluation.video import beside, write_video

    count, period = len(attempts), task.contract.period
    traces = [
        GoalTrace(
            f"goal {number + 1}", attempt.errors, task.threshold,
            start=attempt.images[0], goal=pair.goal_image, closest=attempt.images[attempt.closest],
        )
        for number, (pair, attempt) in enumerate(zip(problems.pairs, attempts, strict=True))
    ]  # fmt: skip
    successes = sum(trace.reached for trace in traces)
    random = int(reached(errors(task, problems, floor), task.threshold)[0].sum())
    video: Path | None = output / "run.webm"
    try:
        write_video(
            output / "run.webm",
            (
                beside([image, trace.goal], f"{trace.name}: camera and goal image")
                for trace, attempt in zip(traces, attempts, strict=True)
                for image in attempt.images
            ),
            task.contract.rate,
        )
    except SmwmError as error:  # a report without a video is still a report
        console.print(f"[yellow]no video:[/] {error}")
        video = None
    result = {
        "goals": count,
        "reached": successes,
        "floor": random,
        "seconds": round(time.monotonic() - STARTED, 1),
        "startup_seconds": round(startup, 1),
        "threshold": task.threshold,
    }
    write_report(
        Report(
            title=f"The {task.contract.name} reaches goal images",
            summary=(
                f"The robot was given {count} pictures in turn, and {2 * OFFSET * period:.1f} s for each. "
                "A world model trained on what the robot saw while exploring, without rewards, planned every "
                "motion; what counts is the true state, which the model never sees."
            ),
            figures=[
                ("goals reached", f"{successes} of {count}"),
                ("by random actions", f"{random} of {count}"),
                ("seconds until the first goal", f"{startup:.1f}"),
            ],
            rates=[
                Rate("world model", successes / count, wilson(successes, count)),
                Rate("random actions", random / count, wilson(random, count)),
            ],
            goals=traces,
            period=period,
            unit=task.unit,
            settings=[
                ("starts and goals", f"{OFFSET} ticks apart in exploration episodes that no training saw"),
                ("success", f"{task.criterion(task.threshold)} at some tick"),
                ("rate", f"{task.contract.rate:g} Hz, real time, every node a process of its own"),
                ("bag of the run", str(output / "bag")),
            ],
            video=video,
            video_caption="Left the camera, right the goal image.",
        ),
        output / "report.html",
    )
    (output / "result.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return result
