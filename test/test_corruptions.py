"""Corruptions of pictures: what each severity does, and that nothing of it is left to chance."""

from __future__ import annotations

import numpy as np
import pytest

from smwm_ros.evaluation.corruptions import CORRUPTIONS, OCCLUSION, corrupt
from smwm_ros.evaluation.robustness import Curves, gaps, plot_curves


def pictures(count: int = 6, size: int = 64) -> np.ndarray:
    """Coloured squares on grey: something for each corruption to change."""
    images = np.full((count, size, size, 3), 150, np.uint8)
    for number, image in enumerate(images):
        image[8 + number : 24 + number, 20:40] = (200, 40, 40)
        image[30:50, 10 + number : 26 + number] = (20, 60, 120)
    return images


def corrupted(kind: str, severity: int, seed: int = 0, episode: int = 0, size: int = 64) -> np.ndarray:
    view = corrupt(kind, severity, size, seed)(episode)
    return np.stack([view(image) for image in pictures(size=size)])


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_severity(kind: str) -> None:
    """0 changes nothing; each further one changes pictures more; they stay pictures, and ours untouched."""
    given = pictures()
    for seed in range(4):
        far = []
        for severity in range(6):
            view = corrupt(kind, severity, 64, seed)(seed)
            result = np.stack([view(image) for image in given])
            assert (result.dtype, result.shape) == (np.uint8, given.shape)
            far.append(np.abs(result.astype(int) - given).mean())
        assert far[0] == 0
        assert (np.diff(far) > 0).all(), far
    np.testing.assert_array_equal(given, pictures())


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_seeds(kind: str) -> None:
    """Seed and episode give the same twice, and others in another episode or with another seed."""
    first = corrupted(kind, 4)
    np.testing.assert_array_equal(first, corrupted(kind, 4))
    if kind == "blur":
        return
    others = [corrupted(kind, 4, episode=episode) for episode in range(1, 6)]
    assert any(not np.array_equal(first, other) for other in others)
    assert any(not np.array_equal(first, corrupted(kind, 4, seed=seed)) for seed in range(1, 6))


def test_noise_is_new_in_each_picture_and_distractors_move() -> None:
    """An occluder stays where it is; distractors wander by little from one tick to the next."""
    grey = np.full((64, 64, 3), 128, np.uint8)
    changes = {}
    for kind in ("noise", "occlusion", "distractors"):
        view = corrupt(kind, 5, 64, 0)(0)
        seen = [view(grey).astype(int) for _ in range(12)]
        changes[kind] = [int((np.abs(seen[0] - each) > 5).any(-1).sum()) for each in seen[1:]]
    assert min(changes["noise"]) > 3000
    assert max(changes["occlusion"]) == 0
    assert 0 < changes["distractors"][0] < changes["distractors"][-1]


def test_occlusion_covers_its_share() -> None:
    """Measured in pixels that change on a picture of a colour that is hardly drawn."""
    grey = np.full((64, 64, 3), 128, np.uint8)
    for severity in range(1, 6):
        changed = (corrupt("occlusion", severity, 64, 1)(0)(grey) != grey).any(-1).mean()
        assert changed == pytest.approx(OCCLUSION[severity], abs=0.02)


def test_blur_and_occlusion_scale_with_the_picture() -> None:
    """A picture of twice the size is changed by as much: severities mean the same for every encoder."""
    for kind in ("blur", "occlusion", "distractors"):
        small, large = pictures(), np.repeat(np.repeat(pictures(), 2, axis=1), 2, axis=2)
        made = corrupt(kind, 4, 128, 0)(0)
        seen = np.stack([made(image) for image in large]).astype(int)
        far = np.abs(corrupted(kind, 4).astype(int) - small).mean()
        assert np.abs(seen - large).mean() == pytest.approx(far, rel=0.25)


def curves(level: float, share: float) -> Curves:
    falling = np.linspace(level, -level, 6)
    hits = np.arange(10) < 10 * share
    return Curves(
        dict.fromkeys(CORRUPTIONS, falling),
        dict.fromkeys(CORRUPTIONS, falling),
        {kind: {"elbow": falling} for kind in CORRUPTIONS},
        dict.fromkeys(CORRUPTIONS, np.tile(hits, (6, 1))),
    )


def test_gap_by_hand() -> None:
    """Mean over severities 1 to 5, negative R² counting as none; success in points."""
    found = gaps(curves(1.0, 0.9), curves(0.5, 0.4))["blur"]
    # .6 + .2 against .3 + .1, over five severities
    assert found == {"linear_r2": 0.08, "mlp_r2": 0.08, "success_any": 50.0}
    assert curves(1.0, 0.9).figures()["noise"]["success_any"] == [90.0] * 6
    plot_curves({"with": curves(1, 0.9), "without": curves(0.5, 0.4)})
