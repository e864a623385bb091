"""What an ingest gave: counts and quality of each bag, and their sums."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from smwm_ros.data.ingest.quality import Coverage, EpisodeQuality

SPLITS = ("gaps", "jumps", "events", "without_action", "bad_joints")
DROPS = ("surplus", "duplicates", "late", "bad_images")


@dataclass(frozen=True, kw_only=True)
class BagReport:
    """What one bag gave. Every image is a frame, one of ``DROPS``, or left out beside a split."""

    bag: str
    images: int
    """On the image topic."""
    frames: int
    """Rows written."""
    episodes: int
    actions: int
    """Applied actions, or commands in their place, that were read."""
    surplus: int
    """Images dropped because they came faster than the contract's rate."""
    duplicates: int
    """Images dropped because their stamp was that of the newest one."""
    late: int
    """Images dropped because they came after one with a later stamp."""
    bad_images: int
    """Images dropped because they are damaged, or not as the contract says."""
    gaps: int
    """Splits because images were missing for longer than the contract's max_gap."""
    jumps: int
    """Splits because a stamp jumped back."""
    events: int
    """Splits because somebody said that the episode ends."""
    without_action: int
    """Splits because the action of a tick is unknown."""
    bad_joints: int
    """Splits because joint positions were missing, too old, or not finite."""
    late_actions: int
    """Actions that came out of order, and were put in their place."""
    duplicate_actions: int
    """Actions that replaced one with the same stamp."""
    bad_commands: int
    """Commands that are not as the contract says, so that the action is unknown."""
    without_depth: int
    """Rows without a depth image, where depth was asked for."""
    rate: float
    """Images per second within the episodes, from the median interval."""
    p50_ms: float
    """Median interval between the images of an episode."""
    p99_ms: float
    known: float
    """Part of the time for which the action is known."""
    frozen: int
    """Images that are, pixel by pixel, the one before."""
    frozen_moving: int
    """Those of them before which the robot was told to move."""
    interval_histogram: tuple[int, ...]
    """Intervals by length; see :mod:`smwm_ros.data.ingest.quality`."""
    coverage: tuple[Coverage, ...]
    """What the actions cover, for each dimension."""
    quality: tuple[EpisodeQuality, ...]
    """Of each episode."""
    notes: tuple[str, ...]
    """What a person should look at."""

    @property
    def drops(self) -> int:
        """Images that are in no episode, for whatever reason."""
        return self.images - self.frames

    @property
    def splits(self) -> int:
        """Places where an episode was, or could not be, continued."""
        return sum(getattr(self, what) for what in SPLITS)

    def nothing(self, why: str) -> BagReport:
        """Return the report of a bag that was left out."""
        changes: dict[str, Any] = {
            field.name: 0 for field in fields(self) if isinstance(getattr(self, field.name), int)
        }
        changes |= {"quality": (), "interval_histogram": (0,) * len(self.interval_histogram)}
        return replace(self, **changes, notes=(why,))

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> BagReport:
        """Undo ``dataclasses.asdict``; raises KeyError or TypeError on anything else."""
        return cls(
            **{
                **content,
                "interval_histogram": tuple(content["interval_histogram"]),
                "coverage": tuple(
                    Coverage(**{**item, "histogram": tuple(item["histogram"])})
                    for item in content["coverage"]
                ),
                "quality": tuple(EpisodeQuality(**item) for item in content["quality"]),
                "notes": tuple(content["notes"]),
            }
        )


@dataclass(frozen=True, kw_only=True)
class IngestReport:
    """What an ingest gave, and how long it took."""

    path: str
    fingerprint: str
    robot: str
    rate: float
    """Of the contract, Hz."""
    bags: tuple[BagReport, ...]
    read: tuple[str, ...]
    """The bags that were read this time; the others' episodes were there already."""
    unchanged: bool
    """Nothing was to do: the store is the one that was there."""
    seconds: float

    def total(self, what: str) -> int:
        """Add up one of the counts of the bags."""
        return sum(getattr(bag, what) for bag in self.bags)

    @property
    def drops(self) -> int:
        """Images that are in no episode, for whatever reason."""
        return self.total("drops")

    @property
    def splits(self) -> int:
        """Places where an episode was, or could not be, continued."""
        return self.total("splits")

    @property
    def frames_per_s(self) -> float:
        """Rows read and written per second."""
        read = set(self.read)
        return sum(bag.frames for bag in self.bags if bag.bag in read) / self.seconds

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON-able values, totals first."""
        counts = ("frames", "episodes", "images", "actions", *DROPS, "frozen", "frozen_moving")
        return {
            **{what: self.total(what) for what in counts},
            "drops": self.drops,
            "splits": self.splits,
            "frames_per_s": self.frames_per_s,
            **asdict(self),
        }
