"""The base of the nodes that use a checkpoint: the one place where it is loaded."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from smwm_ros.contract import Contract
from smwm_ros.errors import ConfigError
from smwm_ros.nodes.lifecycle import SmwmNode
from smwm_ros.nodes.parameters import CHECKPOINT, CONTRACT, DEVICE, THREADS

if TYPE_CHECKING:
    from smwm_ros.models.checkpoint import Checkpoint


Loader = Callable[[str, str, int], "Checkpoint"]
"""From path, device and CPU threads to a checkpoint."""


def load(path: str, device: str, threads: int) -> Checkpoint:
    """
    Load a checkpoint from its file.

    Args:
        path: of the checkpoint.
        device: auto, cpu or cuda.
        threads: CPU threads for the whole process.

    Raises:
        CheckpointError: missing, damaged, or the device cannot be had.
    """
    import torch  # noqa: PLC0415 - takes seconds; a process that has another loader need not wait

    from smwm_ros.models.checkpoint import load_checkpoint  # noqa: PLC0415

    torch.set_num_threads(threads)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return load_checkpoint(path, device)


class ModelNode(SmwmNode):
    """A node that uses a checkpoint, of the robot in its contract."""

    model_parameters = (CONTRACT, CHECKPOINT, DEVICE, THREADS)

    def __init__(self, name: str, *, load: Loader = load, **arguments: Any) -> None:
        """
        Make the node.

        Args:
            name: the node's name, unless remapped.
            load: how to get a model.
            arguments: passed on to rclpy's LifecycleNode.
        """
        super().__init__(name, **arguments)
        self._load = load

    def read_model(self, contract: Contract) -> Checkpoint:
        """
        Load the checkpoint that the parameters name.

        Raises:
            ConfigError: the parameter is empty.
            CheckpointError: missing, damaged, or trained for another robot.
        """
        path = self.value("checkpoint")
        if not path:
            raise ConfigError(
                f"{self.get_fully_qualified_name()}: the parameter 'checkpoint' is empty; "
                "set it to the path of a checkpoint, as 'smwm train' writes"
            )
        model = self._load(path, self.value("device"), self.value("threads"))
        model.require(contract)
        self.monitor.show(model=model.id)
        return model

    def report(self) -> None:
        """Show how much of the GPU's memory the process has; nothing where the network runs on the CPU."""
        if (cuda := _cuda()) is not None:
            free, total = cuda.mem_get_info()
            self.monitor.show(
                gpu_memory_mb=f"{cuda.memory_allocated() / 1e6:.1f}",
                gpu_reserved_mb=f"{cuda.memory_reserved() / 1e6:.1f}",
                gpu_free_mb=f"{free / 1e6:.0f} of {total / 1e6:.0f}",
            )

    def release(self) -> None:
        """Give the network's memory back, to the GPU as well."""
        gc.collect()  # what is left of it may hang together in circles
        if (cuda := _cuda()) is not None:
            cuda.empty_cache()


def _cuda() -> Any:
    """Return torch.cuda if this process uses a GPU."""
    torch = sys.modules.get("torch")  # a process whose loader needs none has not imported it
    return torch.cuda if torch is not None and torch.cuda.is_initialized() else None
