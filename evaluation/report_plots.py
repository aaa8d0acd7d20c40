"""Draws with matplotlib and returns inline SVG that takes its colours and its font from the page.

A colour is a name of the style sheet; while matplotlib draws it is a number of its own, and afterwards a CSS variable:
so one drawing serves light, dark and paper. Same drawing, same bytes: no date, no random ids. Knows no report.
"""

from __future__ import annotations

import io
import re
import warnings
import xml.etree.ElementTree as ET
from collections.abc import Callable
from typing import Any

from .. import MissingExtra

Paint = Callable[[Any], None]

COLOURS = ("ink", "soft", "line", "accent", "pass", "fail", "more", "none", "run1", "run2", "run3", "run4", "run5")
# matplotlib's own defaults but for these, whatever the user's matplotlibrc says; sizes in pixels
_SETTINGS: dict[str, Any] = {
    "svg.fonttype": "none",
    "font.size": 11,
    "axes.linewidth": 1,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11,
    "axes.labelsize": 11,
    "xtick.labelsize": 10.5,
    "ytick.labelsize": 10.5,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "lines.linewidth": 1.75,
    "lines.markersize": 5,
    "text.parse_math": False,
}
_VARIABLE = re.compile(r"#0000([0-9a-f]{2})\b")
_LOCAL = re.compile(r"^#|^url\(#(.*)\)$")


def colour(name: str) -> str:
    """Return the number that stands for a colour of the style sheet while matplotlib draws."""
    return f"#0000{COLOURS.index(name) + 1:02x}"


def draw(name: str, says: str, size: tuple[int, int], paint: Paint) -> str:
    """Return a drawing as inline SVG. name: unique on the page. says: what a reader who cannot see it is told.

    size: width and height, pixels. paint: draws on an empty matplotlib Figure. Raises MissingExtra without matplotlib.
    """
    try:
        import matplotlib
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure
        from matplotlib.layout_engine import ConstrainedLayoutEngine
    except ImportError as error:
        raise MissingExtra("evaluate", "matplotlib") from error
    stream = io.StringIO()
    ink = {key: colour("soft") for key in ("text.color", "axes.labelcolor", "xtick.color", "ytick.color")}
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)  # the page's own font writes the text
        matplotlib.rcdefaults()
        parameters: Any = matplotlib.rcParams
        parameters.update(_SETTINGS | ink | {"svg.hashsalt": name, "axes.edgecolor": colour("line")})
        figure: Any = Figure(
            figsize=(size[0] / 72, size[1] / 72), layout=ConstrainedLayoutEngine(w_pad=2 / 72, h_pad=2 / 72)
        )
        figure.patch.set_visible(False)
        paint(figure)
        if not any(axes.get_subplotspec() for axes in figure.axes):
            figure.set_layout_engine("none")  # axes that were placed by hand stay where they are
        for axes in figure.axes:
            axes.patch.set_visible(False)
        canvas: Any = FigureCanvasSVG(figure)
        canvas.print_svg(stream, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    return _inline(stream.getvalue(), name, says)


def _inline(text: str, name: str, says: str) -> str:
    root = ET.fromstring(text)
    parents = {child: parent for parent in root.iter() for child in parent}
    for node in list(root.iter()):
        node.tag = node.tag.rpartition("}")[2]
        node.attrib = {key.rpartition("}")[2]: value for key, value in node.attrib.items()}
        if node.tag in ("style", "metadata"):
            parents[node].remove(node)
    targets = dict.fromkeys(
        match[1] or value[1:]
        for node in root.iter()
        for key, value in node.attrib.items()
        if key in ("href", "clip-path") and (match := _LOCAL.match(value))
    )
    ids = {old: f"{name}-{number}" for number, old in enumerate(targets)}
    for node in root.iter():
        own = node.attrib.pop("id", "")
        if own in ids:
            node.set("id", ids[own])
        for key, form in (("href", "#{}"), ("clip-path", "url(#{})")):
            if key in node.attrib and (match := _LOCAL.match(node.attrib[key])):
                node.set(key, form.format(ids[match[1] or node.attrib[key][1:]]))
        if "style" in node.attrib:
            node.set("style", _style(node.attrib["style"]))
        if "d" in node.attrib:
            node.set("d", " ".join(node.attrib["d"].split()))
        if node.tag != "text":
            node.text = None
        node.tail = None
    view = root.attrib["viewBox"]
    root.attrib = {"class": "plot", "viewBox": view, "role": "img", "aria-label": says}
    return ET.tostring(root, encoding="unicode")


def _style(text: str) -> str:
    """Return a style with the page's colours and without matplotlib's font family."""
    kept = []
    for part in text.split(";"):
        key, _, value = (piece.strip() for piece in part.partition(":"))
        if key == "font":  # matplotlib before 3.11 writes size and family as one
            size = re.search(r"[\d.]+px", value)
            key, value = "font-size", size[0] if size else ""
        if value and key != "font-family":
            kept.append(f"{key}:{_VARIABLE.sub(_named, value)}")
    return ";".join(kept)


def _named(match: re.Match[str]) -> str:
    number = int(match[1], 16)
    return f"var(--{COLOURS[number - 1]})" if 0 < number <= len(COLOURS) else match[0]
