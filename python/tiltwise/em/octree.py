"""Global search from coarse to fine: cells of rotations and shifts that cannot matter are never scored finely.

Levels are HEALPix orders with lattices of shifts, each scored below the radius its steps resolve; the last grid is
scored at fewer shells first.  A level keeps the cells that hold all but `LOST` of its posterior.  If the noise is
what the model says, that is also the mean share of the final posterior that is lost: the chance that the truth is
among the cells given up does not depend on which shells are looked at later.  But only the centres of cells are
scored, and a pose in the corner of a cell fits worse than the centre of another by some `2 (1 - c) Q` nats, Q being
the power of the slices over the noise and c their correlation over a cell, of this level or of the last.  So cells
are kept that lie below by half of that, and all neighbours of kept cells, one of which has the pose in its own corner.
What is really lost is measured by searching an audit set in full.

Priors of the particle file leave out cells none of whose orientations is likely, and count as if every cell held the
best of its orientations until the last grid is reached.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from tiltwise.em.grid import PoseGrid
from tiltwise.em.likelihood import Scorer, shift_phases
from tiltwise.em.orientation_prior import OrientationPrior
from tiltwise.geometry.grids import (
    angular_step_deg,
    grid_neighbours,
    neighbours,
    orientation_indices,
    parent_orientations,
)
from tiltwise.maps.whitening import WhitenedImages
from tiltwise.model import Views
from tiltwise.spectral.components import FourierComponents

F64 = NDArray[np.float64]
F32 = NDArray[np.float32]

LOST = 1e-4
"""Share of the posterior of a level that may be left out before slack."""
FIRST_ORDER = 1
NEIGHBOUR_STEPS = 1.5
"""How far from a kept cell its neighbours lie: the diagonals of a square of cells."""
CORRELATION_SAMPLES = 24
TRIAL = 4
"""Particles that tell whether a first look at the last grid pays."""
WORTHWHILE = 0.55
"""Share of cells left above which it does not."""
LOW_SHARE = 0.6
"""Shells of the first look at the last grid, over all of them: a third of the work."""
SLACK = 0.5
"""Times what a pose loses at the centre of its cell, that a cell may lie below the best and is still looked at: with
the neighbours, less misses 1 % of some posteriors, and more costs time."""
MARGIN = 1.0
"""Nats of slack always given: noise is never quite what the model says."""


@dataclass(frozen=True, slots=True)
class Level:
    """One grid of the search."""

    angles: F64
    """(R, 3)"""
    rotations: F64
    """(R, 3, 3)"""
    shifts: F64
    """(T, 3) Å"""
    parent_rotation: NDArray[np.intp]
    """(R,) cell of the level above; empty for the first level"""
    parent_shift: NDArray[np.intp]
    """(T,)"""
    neighbours: tuple[NDArray[np.intp], NDArray[np.intp]]
    """of every rotation, see `tiltwise.geometry.grids.neighbours`"""
    radius: float
    step_deg: float
    shift_step_angstrom: float


def levels_of(
    grid: PoseGrid, radius_of: Callable[[int], float], symmetry: NDArray[np.float64] | None = None
) -> list[Level]:
    """Levels that end with `grid`; `radius_of(order)` is the radius a step of that order resolves.

    Of a particle with symmetry (G, 3, 3) one of every set of equivalent cells of the first level is searched, about
    R / G of all.
    """
    group = None if symmetry is None or len(symmetry) == 1 else symmetry
    angular_step_deg(grid.order)  # refuses orders that do not exist before coarser ones take their time
    orders = list(range(min(FIRST_ORDER, grid.order), grid.order + 1))
    levels: list[Level] = []
    for order in orders:
        coarser = 2.0 ** (grid.order - order)
        part = grid.at_order(order, coarser) if order < grid.order else grid
        angles, rotations = part.rotations() if levels else part.asymmetric_rotations(group)
        shifts = part.shifts()
        none = np.zeros(0, np.intp)
        parents, nearest = none, none
        if levels:
            # cells of this grid in those of the level above, which may be a part of its grid
            position = np.full(72 * 8 ** (order - 1), -1, np.intp)
            position[orientation_indices(order - 1, levels[-1].angles)] = np.arange(len(levels[-1].angles))
            parents = position[parent_orientations(order, angles)]
            inside = parents >= 0
            angles, rotations, parents = angles[inside], rotations[inside], parents[inside]
            above = levels[-1].shifts
            nearest = np.argmin(((shifts[:, None] - above) ** 2).sum(axis=-1), axis=1)
        steps = part.coarse_step_deg, part.shift_step_angstrom
        radius = radius_of(order)
        reach = NEIGHBOUR_STEPS * part.coarse_step_deg
        near = grid_neighbours(order, NEIGHBOUR_STEPS) if group is None else neighbours(rotations, reach, group)
        if order == grid.order and LOW_SHARE * radius >= 5.0:
            levels.append(Level(angles, rotations, shifts, parents, nearest, near, LOW_SHARE * radius, *steps))
            parents, nearest = np.arange(len(rotations)), np.arange(len(shifts))
        levels.append(Level(angles, rotations, shifts, parents, nearest, near, radius, *steps))
    return levels


def kept_cells(log_posterior: F32, slack: float, lost: float = LOST) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Rotations (R,) and shifts (T,) of a level with any cell that must be looked at more finely."""
    flat = log_posterior.ravel().astype(np.float64)
    top = flat.max(initial=-np.inf)
    if not np.isfinite(top):
        return np.ones(log_posterior.shape[0], bool), np.ones(log_posterior.shape[1], bool)
    weight = np.sort(np.exp(flat[flat >= top - 40.0] - top))[::-1]
    mass = np.cumsum(weight)
    last = min(int(np.searchsorted(mass, (1.0 - lost) * mass[-1])), len(weight) - 1)
    kept = log_posterior >= top + np.log(weight[last]) - slack
    return kept.any(axis=1), kept.any(axis=0)


@dataclass(slots=True)
class Cells:
    """Scores of one particle on the cells of a level that are looked at."""

    rows: NDArray[np.intp]
    """(r,) rotations of the level"""
    columns: NDArray[np.intp]
    """(t,) shifts of the level"""
    cross: F32
    """(r, t)"""
    quadratic: F32
    """(r,)"""


Alive = tuple[NDArray[np.intp], NDArray[np.intp]]
"""Rotations and shifts of a level that are looked at, both sorted."""


def share_of(kept: Sequence[Alive], before: Sequence[Alive]) -> float:
    """Share of cells that are left."""
    left = sum(len(rows) * len(columns) for rows, columns in kept)
    return left / max(1, sum(len(rows) * len(columns) for rows, columns in before))


class GlobalSearch:
    """Scores the particles of one series on the levels, all together, so that they share slices of the reference."""

    def __init__(
        self, scorer: Scorer, series: Views, disc: FourierComponents, pixel_size: float, levels: list[Level]
    ) -> None:
        self.scorer, self.series, self.disc, self.pixel_size, self.levels = scorer, series, disc, pixel_size, levels

    def run(
        self,
        images: Sequence[WhitenedImages],
        shift_prior: Callable[[int, F64], F32],
        orientation: OrientationPrior | None = None,
        *,
        prune: bool = True,
    ) -> list[Cells]:
        """Cells of the last level for every particle; without `prune` all that `orientation` allows.

        `shift_prior(i, shifts)` is the log prior (T,) of particle i.
        """
        if not len(images):
            return []
        stored = [None if orientation is None else orientation.take(np.array([i])) for i in range(len(images))]
        first, last = self.levels[0], self.levels[-1]
        if not prune:
            return self._score(last, images, [(allowed(last, one), np.arange(len(last.shifts))) for one in stored])
        last_loss = self._loss(last, images)
        alive = [(allowed(first, one), np.arange(len(first.shifts))) for one in stored]
        trial = min(TRIAL, len(images))
        for level, finer in pairwise(self.levels):
            slack = MARGIN + SLACK * np.maximum(self._loss(level, images), last_loss)
            cells = self._score(level, images[:trial], alive[:trial])
            kept = self._kept(level, finer, cells, shift_prior, stored, slack, 0)
            same_grid = finer.step_deg == level.step_deg
            if same_grid and share_of(kept, alive[:trial]) > WORTHWHILE:
                continue  # the finer look at the same cells follows anyway
            cells = self._score(level, images[trial:], alive[trial:])
            alive = kept + self._kept(level, finer, cells, shift_prior, stored, slack, trial)
        return self._score(self.levels[-1], images, alive)

    @staticmethod
    def _kept(
        level: Level,
        finer: Level,
        cells: list[Cells],
        shift_prior: Callable[[int, F64], F32],
        stored: Sequence[OrientationPrior | None],
        slack: F64,
        start: int,
    ) -> list[Alive]:
        """Rotations and shifts of the finer level below what a level keeps; particles count from `start`."""
        result = []
        for i, found in enumerate(cells, start):
            prior = shift_prior(i, level.shifts[found.columns])
            own = stored[i]
            if own is not None:
                best = own.log(level.rotations[found.rows], np.radians(0.5 * level.step_deg))
                prior = prior + best.astype(np.float32)[:, None]
            rows, columns = kept_cells(2.0 * found.cross - found.quadratic[:, None] + prior, float(slack[i]))
            kept = np.zeros(len(level.rotations), bool), np.zeros(len(level.shifts), bool)
            starts, members = level.neighbours
            for row in found.rows[rows]:
                kept[0][members[starts[row] : starts[row + 1]]] = True
            near = np.linalg.norm(level.shifts[:, None] - level.shifts[found.columns[columns]], axis=-1)
            kept[1][(near <= NEIGHBOUR_STEPS * level.shift_step_angstrom).any(axis=1)] = True
            children = np.flatnonzero(kept[0][finer.parent_rotation])
            result.append((allowed(finer, own, children), np.flatnonzero(kept[1][finer.parent_shift])))
        return result

    def _score(
        self,
        level: Level,
        images: Sequence[WhitenedImages],
        alive: Sequence[Alive],
    ) -> list[Cells]:
        """Scores of every particle on its own cells; slices of a tile of rotations serve all particles."""
        count, series = self.disc.count(level.radius), self.series
        frequencies, every = self.disc.frequencies3d(count), np.arange(series.n_tilts)
        phases = shift_phases(series, every, level.shifts, self.disc, self.pixel_size, count)
        phases = phases.reshape(len(level.shifts), series.n_tilts, count)
        low = [image.prefix(count) for image in images]
        cells = [
            Cells(rows, columns, np.empty((len(rows), len(columns)), np.float32), np.empty(len(rows), np.float32))
            for rows, columns in alive
        ]
        needed = np.zeros(len(level.rotations), bool)
        for found in cells:
            needed[found.rows] = True
        used = np.flatnonzero(needed)
        for tile in self.scorer.tiles(len(used), series.n_tilts * count):
            rotations = used[tile]
            slices = self.scorer.slices(series, every, level.rotations[rotations], frequencies)
            slices = slices.reshape(len(rotations), series.n_tilts, count)
            for image, found in zip(low, cells, strict=True):
                # both lists are sorted: the rotations of a particle in this tile are one run of its own
                start, stop = np.searchsorted(found.rows, [rotations[0], rotations[-1] + 1])
                if start == stop or not len(found.columns):
                    continue
                own = np.searchsorted(rotations, found.rows[start:stop])
                found.cross[start:stop], found.quadratic[start:stop] = self.scorer.backend.score(
                    of_tilts(slices, image.tilts),
                    image.score_image,
                    image.score_power,
                    of_tilts(phases, image.tilts),
                    own.astype(np.int32),
                    found.columns.astype(np.int32),
                    threads=self.scorer.threads,
                )
        return cells

    def _loss(self, level: Level, images: Sequence[WhitenedImages]) -> F64:
        """(n,) nats a pose of each particle loses, 2 (1 - c) Q, by a move within a cell; third quartile of moves."""
        rng = np.random.default_rng(level.rotations.shape[0])
        count, every = self.disc.count(level.radius), np.arange(self.series.n_tilts)
        n = CORRELATION_SAMPLES
        chosen = level.rotations[rng.integers(0, len(level.rotations), n)]
        turn = Rotation.from_rotvec(rng.uniform(-0.5, 0.5, (n, 3)) * np.radians(level.step_deg)).as_matrix()
        frequencies = self.disc.frequencies3d(count)
        centre = self.scorer.slices(self.series, every, chosen, frequencies)
        moved = self.scorer.slices(self.series, every, turn @ chosen, frequencies)
        moves = rng.uniform(-0.5, 0.5, (n, 3)) * level.shift_step_angstrom
        moved = moved * shift_phases(self.series, every, moves, self.disc, self.pixel_size, count)
        square = (np.abs(centre - moved) ** 2).reshape(n, self.series.n_tilts, count)
        loss = [square[:, i.tilts].reshape(n, -1) @ i.prefix(count).score_power for i in images]
        return np.asarray([np.quantile(one, 0.75) for one in loss], dtype=np.float64)


def of_tilts(array: NDArray[np.complex64], tilts: NDArray[np.intp]) -> NDArray[np.complex64]:
    """(n, F, K) -> (n, len(tilts) K); no copy if all tilts are visible."""
    if len(tilts) != array.shape[1]:
        array = np.ascontiguousarray(array[:, tilts])
    return array.reshape(len(array), -1)


def allowed(
    level: Level, orientation: OrientationPrior | None, rows: NDArray[np.intp] | None = None
) -> NDArray[np.intp]:
    """Of the rotations `rows` of a level, or all, those in reach of the prior of one particle; the best if none is."""
    chosen = np.arange(len(level.rotations)) if rows is None else rows
    if orientation is None or not len(chosen):
        return chosen
    rotations = level.rotations[chosen]
    near = orientation.within(rotations, np.radians(level.step_deg))
    if not near.any():
        near[np.argmax(orientation.log(rotations))] = True
    return np.asarray(chosen[near])


def mass_missed(
    all_cells: Cells,
    kept: Cells,
    shift_prior: Callable[[F64], F32],
    level: Level,
    orientation: OrientationPrior | None = None,
) -> float:
    """Share of the posterior over all cells of a level that lies outside of those kept."""
    log = 2.0 * all_cells.cross - all_cells.quadratic[:, None] + shift_prior(level.shifts)
    if orientation is not None:
        log += orientation.log(level.rotations[all_cells.rows]).astype(np.float32)[:, None]
    weight = np.exp(log.astype(np.float64) - log.max())
    rows = np.isin(all_cells.rows, kept.rows)
    return float(1.0 - weight[np.ix_(rows, kept.columns)].sum() / weight.sum())
