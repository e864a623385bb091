"""What the other commands need of this installation: the checks of `smwm doctor` for which no robot runs."""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from smwm_ros.errors import CheckpointError, StackError
from smwm_ros.stack.findings import Finding, Level, fine

CAP_SYS_NICE = 23
"""Number of the capability to take any priority (linux/capability.h)."""


@dataclass(frozen=True)
class Check:
    """One thing to look at, and what to say where it is wrong."""

    name: str
    look: Callable[[], str]
    """Returns what was found if all is well; else raises what is wrong."""
    expected: str = ""
    mend: str = ""
    """What to do."""
    needs: str = ""
    """An earlier check; if that fails, this one has nothing to look at."""
    level: Level = Level.fault
    """How bad it is."""

    def finding(self) -> Finding:
        """Look. Whatever is raised is a finding: the next check must still run."""
        try:
            return fine(self.look())
        except Exception as error:
            return Finding(self.level, str(error) or repr(error), self.expected, self.mend)


def installation_checks(robot: str, checkpoint: Path | None, namespace: str) -> tuple[Check, ...]:
    """
    Return the checks, in the order in which they are to be made.

    Args:
        robot: the name of a shipped contract, or its file.
        checkpoint: to hold against the contract; None for the shipped one, if there is one.
        namespace: of the robot.
    """
    return (
        Check("python", lambda: sys.version.split()[0]),
        Check(
            "ROS 2",
            lambda: check_ros(namespace),
            "a message to oneself comes back",
            "if a module is missing: source ROS 2's setup.bash, or install as docs/install.md says; if no "
            "message came: bring the network up (`lo` at least), and allow multicast on it",
        ),
        Check(
            "messages",
            check_messages,
            "the package's own messages, built",
            "build them, with ROS 2 in place: `pip install -e .`, or `colcon build` and "
            "`source install/setup.bash`",
        ),
        Check(
            "gate priority",
            check_priority,
            "the capability CAP_SYS_NICE, or a limit rtprio that is as high",
            "add a line `USER - rtprio 99` to /etc/security/limits.conf, and log in anew; in a container, "
            "`--cap-add=sys_nice`; or do without: action.priority:=0",
            needs="messages",
            level=Level.warning,
        ),
        Check(
            "contract",
            lambda: check_contract(robot),
            "a valid robot contract",
            "correct the file as docs/contract.md says, or give another with --robot",
        ),
        Check(
            "rendering",
            lambda: check_rendering(robot),
            "an image of the simulated robot",
            "for GL: install libegl1, libgl1 and libgl1-mesa-dri, and leave MUJOCO_GL unset or set it to egl "
            "(or install libosmesa6, and set it to osmesa); for an unknown task: install what registers it",
            needs="contract",
        ),
        Check(
            "torch",
            check_torch,
            "torch, and its use of the GPU where there is one",
            "`pip install 'torch>=2.6'`; for a GPU, a CUDA build of it that suits the driver (nvidia-smi "
            "shows which)",
        ),
        Check(
            "checkpoint",
            lambda: check_checkpoint(robot, checkpoint),
            "a whole checkpoint, trained under this contract",
            "give another with --checkpoint, or train one: `smwm train`",
            needs="contract",
        ),
    )


def check_ros(namespace: str) -> str:
    """Send a message to oneself."""
    from smwm_ros.nodes.loopback import check_middleware

    return check_middleware(namespace)


def check_messages() -> str:
    """Import the package's own messages."""
    from smwm_ros.nodes import loopback

    return loopback.check_messages()


def check_priority() -> str:
    """Ask whether the action node may have its real-time priority; nobody's is changed."""
    from smwm_ros.nodes.action_node import ActionNode

    (priority,) = (int(param.default) for param in ActionNode.parameters if param.name == "priority")
    if capable(Path("/proc/self/status").read_text(encoding="utf-8"), CAP_SYS_NICE):
        return f"SCHED_FIFO {priority} is allowed, by CAP_SYS_NICE"
    limit, _ = resource.getrlimit(resource.RLIMIT_RTPRIO)
    if limit == resource.RLIM_INFINITY or limit >= priority:
        return f"SCHED_FIFO {priority} is allowed, by the limit rtprio"
    raise StackError(
        f"SCHED_FIFO {priority} is not allowed, the limit rtprio is {limit}: busy processes can hold up the "
        "robot's commands"
    )


def capable(status: str, capability: int) -> bool:
    """Tell whether a process has a capability in effect, by its /proc/PID/status."""
    (effective,) = (line.split()[1] for line in status.splitlines() if line.startswith("CapEff:"))
    return bool(int(effective, 16) >> capability & 1)


def check_contract(robot: str) -> str:
    """Read the robot contract."""
    from smwm_ros.resources import contract_path, find_contract

    contract = find_contract(robot)
    return f"{contract.name} at {contract.rate:g} Hz ({contract_path(robot)})"


def check_rendering(robot: str) -> str:
    """Draw one image of the robot's simulation, if it has one."""
    from smwm_ros.resources import find_contract
    from smwm_ros.tasks import make_task

    contract = find_contract(robot)
    if contract.task is None:
        return "a real robot: nothing to draw"
    observation, _ = make_task(contract).reset(seed=0)
    height, width, _ = observation["pixels"].shape
    return f"{contract.task}, {width}x{height}"


def check_torch() -> str:
    """Import torch, and see what it can compute on."""
    import torch

    if torch.cuda.is_available():
        return f"{torch.__version__} on {torch.cuda.get_device_name()}"
    if Path("/dev/nvidiactl").exists():
        raise StackError(
            f"torch {torch.__version__} cannot use the NVIDIA GPU that is here: all would run on the CPU"
        )
    return f"{torch.__version__} on CPU"


def check_checkpoint(robot: str, path: Path | None) -> str:
    """Load the checkpoint that was given, else the shipped one, and hold it against the contract."""
    from smwm_ros.models.checkpoint import load_checkpoint
    from smwm_ros.resources import checkpoint_path, find_contract

    contract = find_contract(robot)
    if path is None:
        try:
            path = checkpoint_path(contract.name)
        except CheckpointError:  # an untrained robot can explore and record
            return f"none is shipped for {contract.name}: nothing to check; --checkpoint checks one"
    checkpoint = load_checkpoint(path)
    checkpoint.require(contract)
    return f"{checkpoint.id} ({path})"
