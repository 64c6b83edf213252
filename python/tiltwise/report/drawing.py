"""A figure drawn once, as SVG and as pixels: most of the time goes into what is drawn where, not into drawing it."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from matplotlib.backend_bases import RendererBase
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.backends.backend_svg import RendererSVG
from matplotlib.figure import Figure
from matplotlib.transforms import Affine2D, TransformedBbox, TransformedPath
from numpy.typing import NDArray

POINTS = 72.0
"""Of an inch; SVG counts in them."""


_SVG: Any = RendererSVG
_AGG: Any = RendererAgg
"""Without types of their own."""


class HasImages(Exception):
    """The figure holds an image, which the two draw at resolutions of their own."""


def draw_both(figure: Figure, dpi: float) -> tuple[str, NDArray[np.uint8]]:
    """SVG as matplotlib writes it, and pixels `(rows, columns, 3)` on white ground.

    Raises
    ------
    HasImages
        if it cannot be drawn in one go.
    """
    width, height = (float(v) for v in figure.get_size_inches())
    buffer, usual = io.StringIO(), figure.dpi
    figure.set_dpi(POINTS)
    try:
        metadata = {"Date": None, "Creator": None, "Format": None, "Type": None}
        svg = _SVG(POINTS * width, POINTS * height, buffer, image_dpi=POINTS, metadata=metadata)
        agg = _AGG(int(dpi * width), int(dpi * height), dpi)
        figure.draw(_Both(svg, agg, dpi / POINTS))
        svg.finalize()
    finally:
        figure.set_dpi(usual)
    return buffer.getvalue(), np.ascontiguousarray(np.asarray(agg.buffer_rgba())[..., :3])


class _Both(RendererBase):
    """Passes what a figure draws, in points, to one renderer in points and to one in pixels."""

    def __init__(self, svg: Any, agg: Any, factor: float) -> None:
        super().__init__()
        self.svg, self.agg, self.factor = svg, agg, factor
        self.scale = Affine2D().scale(factor)

    def _scaled(self, gc: Any) -> Any:
        """The same pen where there are pixels; widths and dashes are in points for either."""
        own = self.agg.new_gc()
        own.copy_properties(gc)
        rectangle, (path, transform) = gc.get_clip_rectangle(), gc.get_clip_path()
        if rectangle is not None:
            own.set_clip_rectangle(TransformedBbox(rectangle, self.scale))
        if path is not None and transform is not None:
            own.set_clip_path(TransformedPath(path, transform + self.scale))
        return own

    def draw_path(self, gc: Any, path: Any, transform: Any, rgbFace: Any = None) -> None:
        """Both."""
        self.svg.draw_path(gc, path, transform, rgbFace)
        self.agg.draw_path(self._scaled(gc), path, transform + self.scale, rgbFace)

    def draw_markers(
        self,
        gc: Any,
        marker_path: Any,
        marker_trans: Any,
        path: Any,
        trans: Any,
        rgbFace: Any = None,
    ) -> None:
        """Both."""
        self.svg.draw_markers(gc, marker_path, marker_trans, path, trans, rgbFace)
        own = self._scaled(gc)
        self.agg.draw_markers(own, marker_path, marker_trans + self.scale, path, trans + self.scale, rgbFace)

    def draw_path_collection(
        self,
        gc: Any,
        master_transform: Any,
        paths: Any,
        all_transforms: Any,
        offsets: Any,
        offset_trans: Any,
        *rest: Any,
        **named: Any,
    ) -> None:
        """Both; the rest are colours, widths and the like."""
        self.svg.draw_path_collection(
            gc, master_transform, paths, all_transforms, offsets, offset_trans, *rest, **named
        )
        own, master, places = self._scaled(gc), master_transform + self.scale, offset_trans + self.scale
        self.agg.draw_path_collection(own, master, paths, all_transforms, offsets, places, *rest, **named)

    def draw_text(
        self, gc: Any, x: float, y: float, s: str, prop: Any, angle: float, ismath: Any = False, mtext: Any = None
    ) -> None:
        """Both; places count from the top."""
        self.svg.draw_text(gc, x, y, s, prop, angle, ismath, mtext)
        self.agg.draw_text(self._scaled(gc), x * self.factor, y * self.factor, s, prop, angle, ismath, mtext)

    def draw_image(self, gc: Any, x: float, y: float, im: Any, transform: Any = None) -> None:
        """Neither."""
        raise HasImages

    def draw_quad_mesh(self, *given: Any) -> None:
        """Neither: that without types of its own would draw it path by path."""
        raise HasImages

    def start_rasterizing(self) -> None:
        """Neither: what SVG holds as an image, such as bars of colours."""
        raise HasImages

    def open_group(self, s: str, gid: str | None = None) -> None:
        """SVG alone has groups."""
        self.svg.open_group(s, gid)

    def close_group(self, s: str) -> None:
        """See `open_group`."""
        self.svg.close_group(s)

    def new_gc(self) -> Any:
        """Pen in points."""
        return self.svg.new_gc()

    def flipy(self) -> bool:
        """Places of text count from the top."""
        return True

    def get_canvas_width_height(self) -> Any:
        """Points."""
        return self.svg.get_canvas_width_height()

    def get_text_width_height_descent(self, s: str, prop: Any, ismath: Any) -> Any:
        """Points."""
        return self.svg.get_text_width_height_descent(s, prop, ismath)
