"""
Corruptions of what the camera sees, each at severities 0 (none) to 5.

A corruption is made for one episode, from a generator, and is then given the episode's pictures one
after another: what is random about an episode (where the occluder is, how the distractors move) stays
while it lasts. All random numbers are drawn whatever the severity, so that a higher one is the same
corruption, only more of it.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable, Mapping

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
"""RGB, shape (S, S, 3)."""
View = Callable[[Image], Image]

SEVERITIES = (1, 2, 3, 4, 5)
NOISE = (0, 8, 16, 28, 44, 64)
"""Standard deviation of Gaussian noise on every number, grey levels."""
BLUR = (0.0, 0.5, 0.8, 1.2, 1.8, 2.5)
"""Standard deviation of a Gaussian blur, pixels of a picture of 64."""
BRIGHTNESS = (1.0, 1.15, 1.35, 1.6, 2.0, 2.5)
"""Factor by which an episode's pictures are brighter or, as often, darker."""
OCCLUSION = (0.0, 0.03, 0.06, 0.1, 0.16, 0.25)
"""Share of the picture behind one square of one colour, which does not move."""
DISTRACTORS = (0, 1, 2, 3, 5, 8)
"""Discs that wander about, opaque, 9 to 19 % of the picture's side across."""
PERIODS = (20.0, 80.0)
"""Ticks of the sines that distractors move by."""


def noise(size: int, severity: int, generator: np.random.Generator) -> View:
    """Add Gaussian noise, anew in each picture."""

    def view(image: Image) -> Image:
        added = NOISE[severity] * generator.standard_normal(image.shape, np.float32)
        return np.clip(image + np.rint(added), 0, 255).astype(np.uint8)

    return view


def blur(size: int, severity: int, generator: np.random.Generator) -> View:
    """Blur by a Gaussian."""
    width = BLUR[severity] * size / 64
    return lambda image: cv2.GaussianBlur(image, (0, 0), width).astype(np.uint8) if width else image


def brightness(size: int, severity: int, generator: np.random.Generator) -> View:
    """Multiply all grey levels, as a longer or a shorter exposure does."""
    factor = BRIGHTNESS[severity] ** generator.choice([-1, 1])
    return lambda image: np.clip(np.rint(factor * image), 0, 255).astype(np.uint8)


def occlusion(size: int, severity: int, generator: np.random.Generator) -> View:
    """Put a square before the camera, anywhere wholly inside the picture."""
    place, colour = generator.uniform(0, 1, 2), generator.integers(0, 256, 3)
    side = round(size * OCCLUSION[severity] ** 0.5)
    # A larger one covers the smaller ones.
    left, top = (round(float(share) * (size - side)) for share in place)

    def view(image: Image) -> Image:
        covered = image.copy()
        covered[top : top + side, left : left + side] = colour
        return covered

    return view


def distractors(size: int, severity: int, generator: np.random.Generator) -> View:
    """Let discs wander over the picture, one tick further with each one."""
    count = DISTRACTORS[-1]
    frequency = 1 / generator.uniform(*PERIODS, (2, count, 2))
    phase = generator.uniform(0, 1, (2, count, 2))
    radii = generator.uniform(0.045, 0.095, count) * size
    colours = [colorsys.hsv_to_rgb(hue, 0.8, 0.9) for hue in generator.uniform(0, 1, count)]
    tick = 0

    def view(image: Image) -> Image:
        nonlocal tick
        # Sums of two sines per axis, over the whole picture and a little beyond.
        waves = np.sin(2 * np.pi * (frequency * tick + phase)).sum(0)
        tick += 1
        centres = size * (0.5 + 0.3 * waves)
        covered = np.ascontiguousarray(image).copy()
        for centre, radius, colour in list(zip(centres, radii, colours, strict=True))[
            : DISTRACTORS[severity]
        ]:
            # In sixteenths of a pixel: slow ones move smoothly.
            x, y = (round(16 * float(number)) for number in centre)
            shade = tuple(round(255 * part) for part in colour)
            cv2.circle(covered, (x, y), round(16 * radius), shade, cv2.FILLED, cv2.LINE_AA, shift=4)
        return covered

    return view


CORRUPTIONS: Mapping[str, Callable[[int, int, np.random.Generator], View]] = {
    "noise": noise,
    "blur": blur,
    "brightness": brightness,
    "occlusion": occlusion,
    "distractors": distractors,
}


def corrupt(kind: str, severity: int, size: int, seed: int) -> Callable[[int], View]:
    """
    Return what makes the corruption of each episode.

    Args:
        kind: one of ``CORRUPTIONS``.
        severity: 0, which changes nothing, to 5.
        size: S, side of the pictures, pixels.
        seed: draws all that is random, together with the episode's number.
    """
    make, number = CORRUPTIONS[kind], list(CORRUPTIONS).index(kind)
    return lambda episode: make(size, severity, np.random.default_rng([seed, number, episode]))
