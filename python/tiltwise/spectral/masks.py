"""Soft masks with raised-cosine edges.

Distances are in pixels from the origin of an image or map, which is pixel N // 2.  Radii are outer ones,
where masks reach 0; RELION names the inner one: its mask of diameter D is `soft_sphere(N, D / 2 + 5, 5)`.
"""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from tiltwise.spectral.fft import irfft2_part, rfft2

Real = TypeVar("Real", bound=np.floating[Any])


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


class CircleCrop:
    """Images inside a soft circle, the mean outside it subtracted first.

    The background is the mean of the pixels with `distance > outer_radius` (nothing is subtracted where
    there are none); what is left is multiplied by `soft_edge(distance, outer_radius, edge)`.

    `distance` `(n, n)` is that of each pixel from the centre of the particle, in the layout of the images.
    With `window`, the rows and columns to keep, results are cut down to these.
    """

    def __init__(
        self,
        distance: NDArray[np.float64],
        outer_radius: float,
        edge: float = 5.0,
        window: NDArray[np.intp] | None = None,
    ) -> None:
        outside = distance > outer_radius
        self._outside = outside / max(1, int(outside.sum()))
        self._window = None if window is None else (window[:, None], window)
        kept = distance if self._window is None else distance[self._window]
        self._circle = soft_edge(kept, outer_radius, edge)
        spectrum = rfft2(self._outside)
        both = np.ones(spectrum.shape[1])  # components that stand for their conjugates, too
        both[1 : (len(distance) + 1) // 2] = 2.0
        self._outside_spectrum = np.stack([spectrum.real * both, spectrum.imag * both], axis=-1).astype(np.float32)

    def __call__(self, images: NDArray[Real]) -> NDArray[Real]:
        """`(..., n, n)` -> the same, or `(..., m, m)` with a window; the dtype is kept."""
        outside, circle = self._outside.astype(images.dtype), self._circle.astype(images.dtype)
        background = np.einsum("...yx,yx->...", images, outside)[..., None, None]
        cropped = images - background if self._window is None else images[..., *self._window] - background
        cropped *= circle
        return np.asarray(cropped)

    def inverse(self, spectra: NDArray[np.complex64]) -> NDArray[np.float32]:
        """The same of images whose unitary transforms are given, (F, n, n // 2 + 1); overwrites them.

        Rows and columns outside the window are not transformed.
        """
        pairs = spectra.view(np.float32).reshape(len(spectra), self._outside_spectrum.size)
        background = np.einsum("fk,k->f", pairs, self._outside_spectrum.ravel())
        window = None if self._window is None else self._window[1]
        cropped = irfft2_part(spectra, len(self._outside), window)
        cropped -= background[:, None, None]
        cropped *= self._circle.astype(np.float32)
        return cropped
