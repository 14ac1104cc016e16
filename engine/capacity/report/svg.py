"""One style for every picture, and a drawn figure as SVG that can stand inside an HTML page."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable
from datetime import date
from html import escape
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

# Okabe and Ito's colours: told apart by people who see red and green alike, and in grey print by their lightness
BLUE: Final = "#0072B2"
SKY: Final = "#56B4E9"
ORANGE: Final = "#E69F00"
VERMILION: Final = "#D55E00"
GREEN: Final = "#009E73"
GREY: Final = "#8A8A8A"
INK: Final = "#222222"
WIDTH: Final = 8.6

# Text stays text, set by the reader's own fonts: it can be searched, read aloud, and holds Chinese wherever the reader's machine does.
FONTS: Final = (
    "DejaVu Sans",
    "Noto Sans CJK SC",
    "Source Han Sans SC",
    "Microsoft YaHei",
    "PingFang SC",
    "WenQuanYi Micro Hei",
    "Droid Sans Fallback",
    "SimHei",
)
_STYLE: Final[dict[str, Any]] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "text.color": INK,
    "font.size": 9.5,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.titlesize": 10.0,
    "axes.titlelocation": "left",
    "grid.color": "#E3E3E3",
    "grid.linewidth": 0.7,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 9.0,
    "ytick.labelsize": 9.0,
    "legend.frameon": False,
    "legend.fontsize": 9.0,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
}
_SHORT: Final = 44
_EPOCH: Final = date(1970, 1, 1)


def draw(name: str, title: str, description: str, height: float, paint: Callable[[Figure], None]) -> str:
    """Lets `paint` fill a figure of `height` inches; the SVG element, the same bytes for the same figure. `title` and `description`
    are what a screen reader says; `name` keeps the ids of two pictures on one page apart.
    """
    import matplotlib as mpl  # a second to load, and only a report needs it
    from matplotlib.figure import Figure

    style: Any = {**_STYLE, "font.family": _installed(), "svg.hashsalt": name}
    with mpl.rc_context(style), warnings.catch_warnings():
        # a machine without a Chinese font still writes the text; the reader's machine sets it
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        paint(figure)
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    return _inline(out.getvalue(), name, title, description)


def dated(axis: Axis, most: int) -> None:
    """Dates along an axis, at most so many, in as few words as they need."""
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    locator = AutoDateLocator(minticks=4, maxticks=most)  # type: ignore[no-untyped-call]
    axis.set_major_locator(locator)
    axis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]


def edge(day: date) -> float:
    """The beginning of a day on an axis of dates, which counts days since 1970."""
    return float((day - _EPOCH).days)


def short(text: str) -> str:
    """A name as a label in a picture; the table beside it has it whole."""
    flat = " ".join(text.split())
    return flat if len(flat) <= _SHORT else flat[: _SHORT - 1] + "…"


def _installed() -> list[str]:
    from matplotlib import font_manager

    known = set(font_manager.get_font_names())
    return [name for name in FONTS if name in known] or ["sans-serif"]


def _inline(document: str, name: str, title: str, description: str) -> str:
    """The svg element alone, without metadata and group ids, with what it shows in words."""
    body = document[document.index("<svg") :]
    head, _, rest = body.partition(">")
    view = re.search(r'viewBox="([^"]*)"', head)
    rest = re.sub(r"\s*<metadata>.*?</metadata>", "", rest, flags=re.DOTALL)
    rest = re.sub(r'<g id="[^"]*"', "<g", rest)
    # the reader's fonts follow those that this machine had
    family = ", ".join(f"'{font}'" for font in FONTS) + ", sans-serif"
    rest = re.sub(r"(font(?:-family)?: ?[^;\"]*?)'DejaVu Sans'[^;\"]*", lambda m: m[1] + family, rest)
    said = f'<title id="{name}-t">{escape(title)}</title><desc id="{name}-d">{escape(description)}</desc>'
    labels = f'role="img" aria-labelledby="{name}-t {name}-d"'
    return f'<svg viewBox="{view[1] if view else ""}" {labels}>{said}{rest.strip()}'
