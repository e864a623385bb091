"""HTML pages that need nothing else: plots, pictures and videos are in them."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import cv2
import jinja2
import markupsafe
import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

GOOD, BAD, SOFT = "#0f9d6b", "#d1495b", "#98a2b3"
SERIES = (GOOD, "#3b82c4", "#8b6fc0", "#e3a008", "#d1495b", "#2aa5a0", "#b0578d", "#6b7d2e")
"""Colours of several models, in their order, and again from the beginning."""


def write_page(path: Path, template: str, *, title: str, **values: Any) -> None:
    """
    Write a page, all or nothing.

    Args:
        path: of the HTML file; its folder is made.
        template: name of a file beside this one, which extends ``page.html.j2``.
        title: of the page.
        values: what the template speaks of.
    """
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, loader=loader)
    html = environment.get_template(template).render(title=title, **values)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}")
    temporary.write_text(html, encoding="utf-8")
    temporary.replace(path)


def svg(figure: Figure) -> markupsafe.Markup:
    """Draw a figure as inline SVG whose black is the page's text colour, so that it fits a dark page."""
    buffer = io.StringIO()
    # Text stays text, and the same figure gives the same file twice.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "smwm", "font.family": "sans-serif"}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace("#000000", "currentColor")
    return markupsafe.Markup(text.replace("<text ", '<text fill="currentColor" '))


def png(picture: NDArray[np.uint8], side: int) -> str:
    """
    Return a picture as a data URL takes it, as PNG.

    Args:
        picture: RGB, shape (h, w, 3).
        side: pixels; a smaller picture is scaled up smoothly, as browsers would blur or block it.
    """
    large = (
        cv2.resize(picture, (side, side), interpolation=cv2.INTER_CUBIC) if len(picture) < side else picture
    )
    return base64_of(cv2.imencode(".png", cv2.cvtColor(large, cv2.COLOR_RGB2BGR))[1].tobytes())


def base64_of(content: bytes) -> str:
    """Return bytes as a data URL takes them."""
    return base64.b64encode(content).decode("ascii")
