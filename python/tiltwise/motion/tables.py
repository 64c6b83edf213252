"""Grids of shifts on which correlations of particle images with their predictions are tabulated (Eqs. 31-33).

`CC(d) = sum over the full Fourier plane of Re[ X conj(P) exp(2 pi i k.d / N) ] / sigma^2` is the gain of log-likelihood
if the particle lies d away from where it was cut, P = C V being its prediction there.  With the premultiplied images
of `tiltwise.extract.images` it is `conj(V) (C X) / sigma^2`.  Tables hold it on a grid of shifts as coefficients of
interpolating cubic B-splines, whose gradient is exact.  The taper of their rim and the filter that makes coefficients
act along either axis, so they are part of the functions of shifts that the kernel `cc_table` multiplies with.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import spline_filter1d

from tiltwise.kernels.api import F32, F64, I32, Backend
from tiltwise.spectral.disc import FourierDisc

SAMPLES_PER_CYCLE = 3.5
"""Points of a table per period of the highest frequency: cubic splines then err by less than 1 % there."""
TAPER = 0.15
"""Outer part of a table that falls smoothly to zero, so that a particle at its rim is not caught on a cliff."""


@dataclass(frozen=True, slots=True)
class TableGrid:
    """Shifts at which correlations are tabulated, and the transform that gets there."""

    step_px: float
    """pixels of the box between points"""
    half: int
    """points on either side of zero"""
    frequencies: I32
    """(count, 2) kx, ky of the Fourier components that enter, a prefix of the disc"""
    cosines: F32
    """(r + 1, half + 1) coefficients of the even part of exp(2 pi i k d / N), tapered"""
    sines: F32
    """(r + 1, half + 1) of the odd part"""

    @classmethod
    def create(cls, disc: FourierDisc, radius: float, reach_px: float) -> TableGrid:
        """For shifts of up to `reach_px` pixels of the box and components with |k| < radius."""
        step = min(disc.box / radius / SAMPLES_PER_CYCLE, max(reach_px / 3.0, 0.25))
        half = int(np.ceil(reach_px / step / (1.0 - TAPER))) + 2
        points = np.arange(-half, half + 1)
        frequencies = disc.frequencies[: disc.count(radius)].astype(np.int32)
        limit = int(np.abs(frequencies).max(initial=0))
        edge = np.clip((1.0 - np.abs(points) / half) / TAPER, 0.0, 1.0)
        edge = 0.5 - 0.5 * np.cos(np.pi * edge)
        angle = 2.0 * np.pi * step / disc.box * np.outer(np.arange(limit + 1), points)
        even, odd = (spline_filter1d(edge * wave(angle), order=3, axis=1, mode="mirror") for wave in (np.cos, np.sin))
        cosines, sines = (np.ascontiguousarray(part[:, half:], np.float32) for part in (even, odd))
        sines[:, 0] = 0.0
        return cls(step, half, frequencies, cosines, sines)

    @property
    def count(self) -> int:
        """Fourier components that enter."""
        return len(self.frequencies)

    @property
    def size(self) -> int:
        """S, points on a side of a table."""
        return 2 * self.half + 1

    @property
    def reach_px(self) -> float:
        """Largest shift that the taper leaves alone, in pixels of the box."""
        return (1.0 - TAPER) * self.half * self.step_px

    def interpolate(
        self, backend: Backend, tables: F32, rows: I32, shifts_px: F64, threads: int = 1
    ) -> tuple[F64, F64]:
        """Values (n,) and gradients (n, 2) of tables[rows] (n, S, S) at shifts (n, 2), x and y in pixels of the box.

        Zero outside the tables.
        """
        found = backend.cc_cost(tables, rows, shifts_px / self.step_px, threads=threads)
        return found[:, 0], found[:, 1:3] / self.step_px


def information(moments: F64, box: int) -> F64:
    """(n, 2, 2) Fisher information in shifts, per square pixel of the box, from the moments (n, 4) of `cc_table`."""
    return np.asarray((2.0 * np.pi / box) ** 2 * moments[:, [[1, 2], [2, 3]]])
