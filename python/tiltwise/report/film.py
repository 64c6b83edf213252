"""Arrows or trails that a slider in the page leads from one tilt to the next; the program is `film.js`.

Without scripts the picture beside it remains, which shows the same without the slider.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tiltwise.report.viewer import packed

F64 = NDArray[np.float64]

MOST = 300
"""Points that are drawn: more cannot be told apart, and a page is a few MB at most."""
LEAST_FIELD = 500.0
"""Å: fields are taken to be as wide at least, so that a few particles beside each other have room around them."""
_UNKNOWN = -32768
_LARGEST = 32767
_MARGIN = 0.06


@dataclass(frozen=True, slots=True)
class Panel:
    """A view along one axis."""

    axes: tuple[int, int]
    """to the right and up"""
    names: tuple[str, str]


@dataclass(frozen=True, slots=True)
class Layer:
    """Vectors of every point in every frame, and how they look."""

    name: str
    values: F64
    """(F, P, D), Å; NaN is not drawn"""
    colour: str = ""
    """of arrows: a variable of the page's style; trails have the colours of their frames"""


@dataclass(frozen=True, slots=True)
class Film:
    """What the slider leads through: F frames of P points in D dimensions."""

    kind: Literal["arrows", "trails"]
    """`trails` draws the layer as paths up to the frame"""
    words: str
    """what is seen, for those who do not see it"""
    labels: Sequence[str]
    """(F,)"""
    points: F64
    """(F, P, D) or, if they stay where they are, (P, D); Å"""
    layers: Sequence[Layer]
    panels: Sequence[Panel]
    """the first axis of all is the same"""
    magnify: float
    """how much longer than they are vectors are drawn at the start"""
    start: int = 0
    """frame"""
    colours: Sequence[str] = ()
    """(F,) of trails"""

    def packed(self) -> str:
        """JSON for the page."""
        still = self.points.ndim == 2
        chosen = chosen_points(self.points.shape[-2])
        points = self.points[..., chosen, :]
        content: dict[str, Any] = {
            "kind": self.kind,
            "labels": list(self.labels),
            "dims": points.shape[-1],
            "count": len(chosen),
            "still": still,
            "points": _quantised(points),
            "layers": [
                {"name": one.name, "colour": one.colour, "values": _quantised(one.values[:, chosen])}
                for one in self.layers
            ],
            "panels": [self._panel(one) for one in self.panels],
            "magnify": self.magnify,
            "start": self.start,
            "colours": list(self.colours),
        }
        return json.dumps(content).replace("<", "\\u003c")

    def _panel(self, panel: Panel) -> Mapping[str, Any]:
        """With what it shows: all points, and a margin that all panels share."""
        flat = self.points.reshape(-1, self.points.shape[-1])
        low, high = np.nanmin(flat, axis=0), np.nanmax(flat, axis=0)
        margin = _MARGIN * max(float((high - low).max()), LEAST_FIELD)
        x, y = ([round(float(v), 2) for v in (low[a] - margin, high[a] + margin)] for a in panel.axes)
        return {"axes": panel.axes, "names": panel.names, "x": x, "y": y}


def chosen_points(count: int) -> NDArray[np.intp]:
    """Numbers of the points that are drawn: all, or `MOST` of them evenly."""
    return np.unique(np.linspace(0, count - 1, min(count, MOST)).astype(np.intp))


def _quantised(values: F64) -> Mapping[str, Any]:
    """16 bit, little-endian, in the order of the array."""
    known = np.isfinite(values)
    scale = max(float(np.abs(values[known]).max(initial=0.0)), 1e-12) / _LARGEST
    numbers = np.where(known, np.rint(np.where(known, values, 0.0) / scale), _UNKNOWN)
    return {"scale": scale, "data": packed(numbers.astype("<i2").tobytes())}
