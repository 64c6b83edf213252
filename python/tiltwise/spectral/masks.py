"""Soft masks with raised-cosine edges.

Distances are in pixels from the origin of an image or map, which is pixel N // 2.  Radii are outer ones,
where masks reach 0; RELION names the inner one: its mask of diameter D is `soft_sphere(N, D / 2 + 5, 5)`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def distances(size: int, ndim: int) -> NDArray[np.float64]:
    """Distance of every pixel of a `(size,) * ndim` array from its origin size // 2, in pixels."""
    square = np.zeros(())
    for _ in range(ndim):
        square = square[..., None] + (np.arange(size) - size // 2) ** 2
    return np.sqrt(square)


def soft_edge(distance: NDArray[np.float64], outer_radius: float, edge: float) -> NDArray[np.float64]:
    """1 below `outer_radius - edge`, 0 from `outer_radius` on, half a cosine between."""
    inside = outer_radius - np.asarray(distance, dtype=np.float64)
    if edge <= 0:
        return np.where(inside > 0, 1.0, 0.0)
    return 0.5 - 0.5 * np.cos(np.pi * np.clip(inside / edge, 0.0, 1.0))


def soft_sphere(size: int, outer_radius: float, edge: float) -> NDArray[np.float64]:
    """`(size,) * 3`, `soft_edge` of the distance from the origin."""
    return soft_edge(distances(size, 3), outer_radius, edge)


def soft_disc(size: int, outer_radius: float, edge: float) -> NDArray[np.float64]:
    """`(size,) * 2`, `soft_edge` of the distance from the origin."""
    return soft_edge(distances(size, 2), outer_radius, edge)


def circle_crop(
    images: NDArray[np.floating[Any]], distance: NDArray[np.float64], outer_radius: float, edge: float = 5.0
) -> NDArray[np.floating[Any]]:
    """Images inside a soft circle, the mean outside it subtracted first.

    The background is the mean of the pixels with `distance > outer_radius` (nothing is subtracted where
    there are none); what is left is multiplied by `soft_edge(distance, outer_radius, edge)`.

    `images` is `(..., n, n)` of any layout, `distance` `(n, n)` the distance of each pixel from the centre
    of the particle in that same layout.  The dtype of the images is kept.
    """
    outside = distance > outer_radius
    weights = outside / max(1, int(outside.sum()))
    background = np.einsum("...yx,yx->...", images, weights)
    cropped = (images - background[..., None, None]) * soft_edge(distance, outer_radius, edge)
    return np.asarray(cropped, dtype=images.dtype)
