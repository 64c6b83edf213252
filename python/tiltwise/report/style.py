"""Look of all figures, and their conversion to text that HTML can hold.

Figures are made without pyplot: `Figure` and the Agg or SVG canvas alone, which halves the time to import.
"""

from __future__ import annotations

import base64
import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter
from numpy.typing import NDArray
from PIL import Image

from tiltwise.report.drawing import HasImages, draw_both

# Okabe and Ito's colours, which colour-blind readers can tell apart.
BLUE, VERMILION, GREEN, ORANGE, SKY, GREY = "#0072B2", "#D55E00", "#009E73", "#E69F00", "#56B4E9", "#8A8F98"
INK = "#22262B"

DPI = 110.0
"""Of figures that are pixels in the page, and of all in `logfile.pdf`."""

_SETTINGS: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9.0,
    "axes.titlesize": 10.0,
    "axes.labelsize": 9.0,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.linewidth": 0.8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E3E6EA",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.8,
    "svg.fonttype": "none",
    "svg.hashsalt": "tiltwise",
    "path.simplify": True,
    "text.hinting": "none",  # a tenth of the time of a report
    "text.parse_math": False,  # a `$` in the name of a file is a `$`
}


@contextmanager
def style() -> Iterator[None]:
    """Make figures inside this block look like ours, and leave matplotlib's settings alone outside."""
    with mpl.rc_context(_SETTINGS), warnings.catch_warnings():
        # letters of some languages: the page has them all the same, pixels have a box in their place
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from font", UserWarning)
        yield


def new_figure(width: float, height: float) -> Figure:
    """Empty figure of a size in inches, without a window or a global registry."""
    return Figure(figsize=(width, height), facecolor="white")


class _Plain(LogFormatter):
    """Numbers as people write them: those of matplotlib are formulas."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        return "" if not super().__call__(x, pos) else f"{x:,.0f}" if abs(x) >= 1.0 else f"{x:g}"


def logarithmic(axes: Axes, direction: Literal["x", "y"], linear: float | None = None) -> None:
    """Scale an axis by powers of ten; from `linear` on, and linearly up to there, where values may be 0 or negative."""
    axis = axes.xaxis if direction == "x" else axes.yaxis
    scale = axes.set_xscale if direction == "x" else axes.set_yscale
    if linear is None:
        scale("log")
        axis.set_minor_formatter(_Plain(10.0))
        axis.set_major_formatter(_Plain(10.0))
    else:
        scale("symlog", linthresh=linear)
        axis.set_major_formatter(_Plain(10.0, linthresh=linear))


def plain_image_axes(axes: Axes) -> None:
    """Take away everything but the picture."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set_visible(False)


def grey_levels(image: NDArray[np.floating], low: float = 0.5, high: float = 99.7) -> tuple[float, float]:
    """Values shown black and white: percentiles, so that a few hot pixels do not decide."""
    finite = image[np.isfinite(image)]
    if finite.size == 0:
        return 0.0, 1.0
    black, white = (float(v) for v in np.percentile(finite, [low, high]))
    return (black, white) if white > black else (black, black + 1.0)


def png_bytes(figure: Figure) -> bytes:
    """Figure as a PNG file of 8 bit per colour, without date or program name: equal figures have equal bytes."""
    usual = figure.dpi
    canvas = FigureCanvasAgg(figure)
    figure.set_dpi(DPI)
    try:
        with style():
            canvas.draw()  # type: ignore[no-untyped-call]
            pixels = np.asarray(canvas.buffer_rgba())[..., :3]  # type: ignore[no-untyped-call]
    finally:
        figure.set_dpi(usual)
    return _png(np.ascontiguousarray(pixels))


def svg_and_png(figure: Figure, alt: str) -> tuple[str, bytes]:
    """What `inline_svg` and `png_bytes` give, in one go where that is possible."""
    try:
        with style():
            text, pixels = draw_both(figure, DPI)
    except HasImages:
        return inline_svg(figure, alt), png_bytes(figure)
    return _inline(text, alt), _png(pixels)


def _png(pixels: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="png", compress_level=1)
    return buffer.getvalue()


def inline_png(png: bytes, alt: str) -> str:
    """PNG file as an HTML image that holds its own data."""
    data = base64.b64encode(png).decode("ascii")
    return f'<img alt="{_escape(alt)}" src="data:image/png;base64,{data}">'


def inline_svg(figure: Figure, alt: str) -> str:
    """Figure as an SVG element inside HTML: no prologue, no metadata, no name spaces, hence no addresses."""
    buffer = io.StringIO()
    with style():
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return _inline(buffer.getvalue(), alt)


_INSIDE = "(?=[^<>]*>)"
"""After an attribute of a tag, which words that are drawn may look like: they have no `<` or `>` of their own."""


def _inline(text: str, alt: str) -> str:
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(rf"\s(xmlns(:\w+)?)=\"[^\"<>]*\"{_INSIDE}", "", text)
    # Only what is referred to needs a name; the others would occur again in the next figure.
    used = set(re.findall(r"(?:href=\"|url\()#([^\")]+)", text))
    text = re.sub(
        rf"\sid=\"([^\"<>]+)\"{_INSIDE}", lambda match: match.group(0) if match.group(1) in used else "", text
    )
    head, body = text.split(">", 1)
    head = re.sub(r"\s(width|height|version)=\"[^\"]*\"", "", head)
    return f'{head} role="img" aria-label="{_escape(alt)}">{body.strip()}'


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
