"""Where images show their particles, against where an alignment predicts them: tilt by tilt, place by place.

Correlations of neighbouring particles are added, each from where its particle is predicted, until together they stand
out of noise; the maximum of the sum is where the images show this group.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tiltwise.motion.geometry import Alignment, Specimen
from tiltwise.motion.objective import Evidence
from tiltwise.motion.shifts import sum_of_tables

F64 = NDArray[np.float64]

POWER = 36.0
"""Expected correlation of a group, its noise having the square root of it: six standard deviations."""
GROUPS = 400
"""Most groups of a series: as many arrows can be told apart."""
STEPS = 4
"""From the highest point of a table to its maximum between the points."""


@dataclass(frozen=True, slots=True)
class Residuals:
    """Of G groups of particles in F tilts in the order of dose; NaN where a tilt shows none of a group."""

    point_px: F64
    """(G, F, 2) where the alignment predicts the groups in the images, unbinned pixels"""
    before_angstrom: F64
    """(G, F, 2) from where they were predicted at the start to where the images show them"""
    after_angstrom: F64
    """(G, F, 2) the same from where the alignment predicts them"""
    noise_angstrom: F64
    """(F,) median length that the noise of the images alone would leave; NaN without images"""
    particles: int
    """of a group, at least"""

    def lengths(self) -> tuple[F64, F64]:
        """Medians (F,) over the groups, before and after; NaN for tilts that show none."""
        before, after = (_median(np.linalg.norm(r, axis=2)) for r in (self.before_angstrom, self.after_angstrom))
        return before, after

    def from_before(self, shift_angstrom: F64) -> Residuals:
        """Told from where tilts were before they were shifted by (F, 2)."""
        return replace(self, before_angstrom=self.before_angstrom + shift_angstrom)


def residuals(specimen: Specimen, evidence: Evidence, alignment: Alignment) -> Residuals | None:
    """Of all particles that images show; None if there are none.

    The start is where the correlations of `evidence` are centred.
    """
    if not len(evidence.particle):
        return None
    moved = alignment.predict(specimen)
    seen = np.unique(evidence.particle)
    size = _particles_needed(evidence, len(seen))
    group = np.full(len(moved), -1, np.intp)
    for number, members in enumerate(_neighbours(specimen.position_px[:, :2], seen, size)):
        group[members] = number
    groups, tilts = int(group.max()) + 1, specimen.n_tilts
    slot = group[evidence.particle] * tilts + evidence.tilt
    count = np.bincount(slot, minlength=groups * tilts)

    def mean(values: F64) -> F64:
        """(G, F, 2) over the images of a group, of (n, 2)."""
        sums = [np.bincount(slot, column, groups * tilts) for column in values.T]
        with np.errstate(invalid="ignore"):
            return (np.stack(sums, axis=1) / count[:, None]).reshape(groups, tilts, 2)

    found, information = _maxima(evidence, moved, slot, groups * tilts)
    own = moved[evidence.particle, evidence.tilt]
    pixel = specimen.pixel_size_angstrom
    after = np.where(count[:, None] > 0, found, np.nan).reshape(groups, tilts, 2) * pixel
    point = mean(specimen.cut_px[evidence.particle, evidence.tilt] + own)
    variance = np.full(groups * tilts, np.nan)
    known = np.linalg.det(information) > 0.0
    variance[known] = np.trace(np.linalg.inv(information[known]), axis1=1, axis2=2) / 2.0
    # the length of a vector of two normal numbers has the median sqrt(2 ln 2) of their standard deviations
    noise = np.sqrt(2.0 * np.log(2.0)) * _median(np.sqrt(variance).reshape(groups, tilts)) * pixel
    return Residuals(point, after + mean(own) * pixel, after, noise, size)


def _particles_needed(evidence: Evidence, seen: int) -> int:
    """That three of four tilts have the power, and that there are not too many groups."""
    count = np.bincount(evidence.tilt)
    power = np.bincount(evidence.tilt, evidence.power)[count > 0] / count[count > 0]
    usual = max(float(np.quantile(power, 0.25)), 1e-300)
    return int(np.clip(np.ceil(POWER / usual), max(1, int(np.ceil(seen / GROUPS))), seen))


def _neighbours(points: F64, chosen: NDArray[np.intp], size: int) -> list[NDArray[np.intp]]:
    """Groups of at least `size` of the chosen points (P, 2): halves along the longer side as long as they suffice."""
    if len(chosen) < 2 * size:
        return [chosen]
    axis = int(np.argmax(np.ptp(points[chosen], axis=0)))
    order = chosen[np.argsort(points[chosen, axis], kind="stable")]
    middle = len(order) // 2
    return _neighbours(points, order[:middle], size) + _neighbours(points, order[middle:], size)


def _maxima(evidence: Evidence, moved: F64, slot: NDArray[np.intp], slots: int) -> tuple[F64, F64]:
    """Maxima (slots, 2) of summed correlations, from displacements (P, F, 2), and their information (slots, 2, 2).

    All in unbinned pixels; zero for slots without images.
    """
    grid, scale = evidence.grid, evidence.scale
    order = np.argsort(slot, kind="stable")
    first = np.searchsorted(slot[order], np.arange(slots + 1))
    own = moved[evidence.particle, evidence.tilt]
    start, information = np.zeros((slots, 2)), np.zeros((slots, 2, 2))
    for number in np.unique(slot):
        images = order[first[number] : first[number + 1]]
        total = sum_of_tables(evidence, images, own[images])
        best = np.array(np.unravel_index(int(np.argmax(total)), total.shape))
        start[number] = (best[::-1] - grid.half) * grid.step_px * scale
        information[number] = evidence.information[images].sum(axis=0)
    inverse = np.zeros_like(information)
    known = np.linalg.det(information) > 0.0
    inverse[known] = np.linalg.inv(information[known])
    found, limit = start.copy(), grid.step_px * scale
    for _ in range(STEPS):
        shifts = (own + found[slot]) / scale
        _, slope = grid.interpolate(evidence.backend, evidence.tables, evidence.rows, shifts, evidence.threads)
        slopes = np.stack([np.bincount(slot, column / scale, slots) for column in slope.T], axis=1)
        # the information is that of a perfect prediction: no step leaves the hill of its start
        found = np.clip(found + np.einsum("sij,sj->si", inverse, slopes), start - limit, start + limit)
    return found, information


def _median(values: F64) -> F64:
    """(F,) over the first axis of (G, F), of what is known."""
    known = np.isfinite(values).any(axis=0)
    result = np.full(values.shape[1], np.nan)
    result[known] = np.nanmedian(values[:, known], axis=0)
    return result
