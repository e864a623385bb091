"""The planner's settings: plain values, so that each is a parameter of the planner node, too."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, model_validator

from smwm_ros.validation import Settings, Unit


class PlannerConfig(Settings):
    """How to plan. A robot's contract may give others than these defaults."""

    model_config = ConfigDict(use_attribute_docstrings=True)  # the planner node shows them

    planner: Literal["flat", "hierarchical", "inverse"] = "flat"
    """flat: a search over action sequences; hierarchical: the same, towards waypoints that a search over
    macro-actions finds; inverse: what the goal-conditioned inverse model proposes."""
    optimiser: Literal["icem", "cem", "mppi", "gradient", "choice"] = "icem"
    """How the search goes; choice: only the best of the proposals."""
    horizon: Annotated[int, Field(ge=1, le=50), Unit("model steps")] = 3
    """H, how far ahead to look."""
    samples: Annotated[int, Field(ge=2, le=65536)] = 64
    """Action sequences drawn per iteration; with a time budget the most of them."""
    iterations: Annotated[int, Field(ge=1, le=1000)] = 4
    """Rounds of drawing and refitting."""
    elites: Annotated[int, Field(ge=2)] = 8
    """cem, icem: best sequences that the search is refitted to."""
    noise_exponent: Annotated[float, Field(ge=0, le=4)] = 2.0
    """All but cem: power law of the noise along time: 0 white, 2 Brownian."""
    keep: Annotated[float, Field(ge=0, le=1)] = 0.3
    """icem: share of the elites that compete again in the next iteration."""
    temperature: Annotated[float, Field(gt=0, le=100)] = 0.1
    """mppi: temperature, as a share of the costs' standard deviation."""
    step: Annotated[float, Field(gt=0, le=10)] = 0.3
    """gradient: size of a step, in widths of the search."""
    std: Annotated[float, Field(gt=0, le=10), Unit("standard deviations of the training actions")] = 0.5
    """Width of the first iteration's noise."""
    cost: Literal["final", "running", "min_over_horizon", "soon"] = "running"
    """Which predicted distances to the goal count."""
    action_consistency: Annotated[float, Field(ge=0, le=100)] = 0.0
    """Weight, relative to the goal's cost, of actions that the inverse model does not find again."""
    smoothness: Annotated[float, Field(ge=0, le=100)] = 0.0
    """Weight, relative to the goal's cost, of changes from tick to tick."""
    constraint: str = ""
    """Entry point of the group smwm_ros.costs: a cost of an installed package, added; empty: none."""
    proposals: str = "auto"
    """
    Where the search begins: zero, warm_start, inverse, bank, or several of them, joined by +. auto:
    warm_start, and inverse where the checkpoint has been trained for it.
    """
    replan: Annotated[int, Field(ge=1, le=1000), Unit("control ticks")] = 5
    """How much of a plan is played before the next one."""
    macros: Annotated[int, Field(ge=1, le=50), Unit("macro-actions")] = 4
    """hierarchical: how far ahead to look."""
    macro_samples: Annotated[int, Field(ge=2, le=65536)] = 256
    """hierarchical: sequences of macro-actions drawn per iteration."""
    macro_iterations: Annotated[int, Field(ge=1, le=1000)] = 4
    """hierarchical: rounds of drawing and refitting them."""
    macro_cost: Literal["final", "running", "min_over_horizon", "soon"] = "soon"
    """hierarchical: which predicted waypoints' distances to the goal count."""
    macro_residual: Annotated[float, Field(ge=0, le=10), Unit("standard deviations")] = 0.3
    """hierarchical: how far a macro-action may be from one of the training data."""
    macro_replan: Annotated[int, Field(ge=1, le=1000), Unit("model steps")] = 3
    """hierarchical: time after which the waypoint is chosen anew, if nothing else demands it."""
    naive: bool = False
    """hierarchical: search any macro-actions, known or not. Only a control experiment."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Arithmetic of the forward model in the first two thirds of a search; all else is always float32."""
    compiled: bool = False
    """CUDA only: run the forward model as a CUDA graph, which takes a minute to make."""
    time_budget: Annotated[float, Field(ge=0, le=60), Unit("s")] = 0.0
    """Time for a plan; the search stops refining in time. 0: no limit."""

    @model_validator(mode="after")
    def _possible(self) -> PlannerConfig:
        if self.elites > self.samples:
            raise ValueError(f"elites {self.elites} must not exceed samples {self.samples}")
        if self.compiled and self.time_budget:
            raise ValueError(
                "compiled needs as many samples in each plan, and a time_budget changes them; set one only"
            )
        return self


CHANGEABLE = frozenset(
    {
        *("optimiser", "samples", "iterations", "elites", "noise_exponent", "keep", "temperature", "step"),
        *("std", "cost", "action_consistency", "smoothness", "time_budget"),
        *("macro_samples", "macro_iterations", "macro_cost", "macro_residual", "macro_replan"),
    }
)
"""Settings that may change between two plans, since the last plan means the same under the new ones."""
