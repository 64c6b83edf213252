"""Global search from coarse to fine: cells of rotations and shifts that cannot matter are never scored finely.

Levels are HEALPix orders with lattices of shifts, each scored below the radius its steps resolve; the last grid is
scored at fewer shells first.  A level keeps the cells that hold all but `LOST` of its posterior.  If the noise is
what the model says, that is also the mean share of the final posterior that is lost: the chance that the truth is
among the cells given up does not depend on which shells are looked at later.  But only the centres of cells are
scored, and a pose in the corner of a cell fits worse than the centre of another by some `2 (1 - c) Q` nats, Q being
the power of the slices over the noise and c their correlation over a cell, of this level or of the last.  So cells
are kept that lie below by half of that, and for another grid all neighbours of kept cells, one of which has the pose
in its own corner; cells of the same grid need no neighbours.  All looks but the last may score roughly: rounding is
small beside the slack.  Where much is left, and rough scores are faster, one look with them goes before the last, and
only cells near the top of that are scored again.  What is really lost is measured by searching an audit set in full.

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
Bools = NDArray[np.bool_]

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
SLACK, SLACK_OTHER = 0.5, 0.75
"""Times what a pose loses at the centre of its cell, that a cell may lie below the best and is still looked at, on the
same grid and on another: less
misses 1 % of some posteriors, and more costs time."""
BINS_PER_NAT = 16
"""Width of the bins that posteriors are sorted into to find how far below the top they matter."""
ROUGH_CELLS = 500
"""Cells of all particles per slice above which a look with rough scores is worth another set of slices."""
ROUNDING = 2.0**-8 * 0.6
"""Standard deviation of a product of two factors that are rounded to 8 significant bits, relative to it."""
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


def kept_cells(log_posterior: F32, slack: float, lost: float = LOST) -> Bools:
    """(R, T) cells of a level that must be looked at more finely."""
    top = float(log_posterior.max(initial=-np.inf))
    if not np.isfinite(top):
        return np.ones(log_posterior.shape, bool)
    # mass in bins of how far below the top; what lies below the last bin is nothing
    far = np.minimum((top - log_posterior) * np.float32(BINS_PER_NAT), 40 * BINS_PER_NAT)
    bins = np.bincount(np.nan_to_num(far, nan=40 * BINS_PER_NAT).astype(np.int32).ravel(), minlength=1)
    mass = np.cumsum(bins * np.exp(-np.arange(len(bins)) / BINS_PER_NAT))
    last = min(int(np.searchsorted(mass, (1.0 - lost) * mass[-1])), len(mass) - 1)
    return np.asarray(log_posterior >= top - (last + 1) / BINS_PER_NAT - slack)


@dataclass(slots=True)
class Cells:
    """Scores of one particle on the cells of a level that are looked at."""

    rows: NDArray[np.intp]
    """(r,) rotations of the level"""
    columns: NDArray[np.intp]
    """(t,) shifts of the level"""
    cross: F32
    """(r, t), -inf in cells that are not looked at"""
    quadratic: F32
    """(r,)"""


@dataclass(frozen=True, slots=True)
class Alive:
    """Cells of a level that are looked at: of these rotations and shifts, both sorted, those that are wanted."""

    rows: NDArray[np.intp]
    columns: NDArray[np.intp]
    wanted: Bools | None = None
    """(r, t); None for all"""

    @classmethod
    def of(cls, wanted: Bools, rows: NDArray[np.intp], columns: NDArray[np.intp]) -> Alive:
        """Without the rotations (r,) and shifts (t,) of which no cell (r, t) is wanted."""
        some = np.flatnonzero(wanted.any(axis=1)), np.flatnonzero(wanted.any(axis=0))
        part = np.ascontiguousarray(wanted[np.ix_(*some)])
        return cls(rows[some[0]], columns[some[1]], None if part.all() else part)

    @property
    def shape(self) -> tuple[int, int]:
        """Rotations and shifts."""
        return len(self.rows), len(self.columns)

    @property
    def count(self) -> int:
        """Cells."""
        return len(self.rows) * len(self.columns) if self.wanted is None else int(self.wanted.sum())


def share_of(kept: Sequence[Alive], before: Sequence[Alive]) -> float:
    """Share of cells that are left."""
    return sum(one.count for one in kept) / max(1, sum(one.count for one in before))


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
            return self._score(last, images, [Alive(allowed(last, one), np.arange(len(last.shifts))) for one in stored])
        last_loss = self._loss(last, images)
        alive = [Alive(allowed(first, one), np.arange(len(first.shifts))) for one in stored]
        trial = min(TRIAL, len(images))
        for level, finer in pairwise(self.levels):
            loss, same_grid = self._loss(level, images), finer.step_deg == level.step_deg
            slack = MARGIN + (SLACK * loss if same_grid else SLACK_OTHER * np.maximum(loss, last_loss))
            kept = self._kept(level, finer, images[:trial], alive[:trial], shift_prior, stored, slack, 0)
            if same_grid and share_of(kept, alive[:trial]) > WORTHWHILE:
                continue  # the finer look at the same cells follows anyway
            alive = kept + self._kept(level, finer, images[trial:], alive[trial:], shift_prior, stored, slack, trial)
        if self.scorer.backend.rough_score:
            alive = self._looked_at_roughly(images, alive, shift_prior, stored)
        return self._score(last, images, alive)

    def _looked_at_roughly(
        self,
        images: Sequence[WhitenedImages],
        alive: list[Alive],
        shift_prior: Callable[[int, F64], F32],
        stored: Sequence[OrientationPrior | None],
    ) -> list[Alive]:
        """What rough scores leave of the last level, if there is much to score and little is left."""
        last = self.levels[-1]
        used = np.zeros(len(last.rotations), bool)
        for one in alive:
            used[one.rows] = True
        if sum(one.count for one in alive) < ROUGH_CELLS * used.sum():
            return alive
        slack, trial = MARGIN + 4.0 * self._rounding(last, images), min(TRIAL, len(images))
        kept = self._kept(last, last, images[:trial], alive[:trial], shift_prior, stored, slack, 0)
        if share_of(kept, alive[:trial]) > WORTHWHILE:
            return alive
        return kept + self._kept(last, last, images[trial:], alive[trial:], shift_prior, stored, slack, trial)

    def _kept(
        self,
        level: Level,
        finer: Level,
        images: Sequence[WhitenedImages],
        alive: Sequence[Alive],
        shift_prior: Callable[[int, F64], F32],
        stored: Sequence[OrientationPrior | None],
        slack: F64,
        start: int,
    ) -> list[Alive]:
        """Cells of the finer level below what a look at a level keeps; particles count from `start`."""
        result = []
        for i, found in enumerate(self._score(level, images, alive, rough=True), start):
            prior = shift_prior(i, level.shifts[found.columns])
            own = stored[i]
            if own is not None:
                best = own.log(level.rotations[found.rows], np.radians(0.5 * level.step_deg))
                prior = prior + best.astype(np.float32)[:, None]
            kept = kept_cells(2.0 * found.cross - found.quadratic[:, None] + prior, float(slack[i]))
            if finer.step_deg == level.step_deg:
                result.append(Alive.of(kept, found.rows, found.columns))
                continue
            # another grid: everything around any rotation and any shift that is kept
            near = np.zeros(len(level.rotations), bool)
            starts, members = level.neighbours
            for row in found.rows[kept.any(axis=1)]:
                near[members[starts[row] : starts[row + 1]]] = True
            moves = level.shifts[:, None] - level.shifts[found.columns[kept.any(axis=0)]]
            close = (np.linalg.norm(moves, axis=-1) <= NEIGHBOUR_STEPS * level.shift_step_angstrom).any(axis=1)
            children = np.flatnonzero(near[finer.parent_rotation])
            result.append(Alive(allowed(finer, own, children), np.flatnonzero(close[finer.parent_shift])))
        return result

    def _score(
        self,
        level: Level,
        images: Sequence[WhitenedImages],
        alive: Sequence[Alive],
        *,
        rough: bool = False,
    ) -> list[Cells]:
        """Scores of every particle on its own cells; slices of a tile of rotations serve all particles."""
        count, series = self.disc.count(level.radius), self.series
        frequencies, every = self.disc.frequencies3d(count), np.arange(series.n_tilts)
        phases = shift_phases(series, every, level.shifts, self.disc, self.pixel_size, count)
        phases = phases.reshape(len(level.shifts), series.n_tilts, count)
        low = [image.prefix(count) for image in images]
        cells = [
            Cells(one.rows, one.columns, *(np.empty(shape, np.float32) for shape in (one.shape, one.shape[:1])))
            for one in alive
        ]
        needed = np.zeros(len(level.rotations), bool)
        for found in cells:
            needed[found.rows] = True
        used = np.flatnonzero(needed)
        for tile in self.scorer.tiles(len(used), series.n_tilts * count):
            rotations = used[tile]
            slices = self.scorer.slices(series, every, level.rotations[rotations], frequencies)
            slices = slices.reshape(len(rotations), series.n_tilts, count)
            for image, found, one in zip(low, cells, alive, strict=True):
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
                    wanted=None if one.wanted is None else one.wanted[start:stop],
                    rough=rough,
                    threads=self.scorer.threads,
                )
        return cells

    def _loss(self, level: Level, images: Sequence[WhitenedImages]) -> F64:
        steps = level.step_deg, level.shift_step_angstrom
        return cell_loss(
            self.scorer, self.series, self.disc, self.pixel_size, level.rotations, steps, level.radius, images
        )

    def _rounding(self, level: Level, images: Sequence[WhitenedImages]) -> F64:
        """(n,) standard deviation in nats of what rough scores are off by, at the worst of some rotations."""
        count, every = self.disc.count(level.radius), np.arange(self.series.n_tilts)
        chosen = np.random.default_rng(0).integers(0, len(level.rotations), CORRELATION_SAMPLES)
        slices = self.scorer.slices(self.series, every, level.rotations[chosen], self.disc.frequencies3d(count))
        power = (np.abs(slices) ** 2).reshape(len(chosen), self.series.n_tilts, count)
        squares = [
            (power[:, image.tilts].reshape(len(chosen), -1) @ np.abs(image.prefix(count).score_image) ** 2).max()
            for image in images
        ]
        # two products of parts per component, each off by ROUNDING of it; the score has twice the cross term
        return 2.0 * ROUNDING * np.sqrt(np.asarray(squares, dtype=np.float64) / 2.0)


def cell_loss(
    scorer: Scorer,
    series: Views,
    disc: FourierComponents,
    pixel_size: float,
    rotations: F64,
    steps: tuple[float, float],
    radius: float,
    images: Sequence[WhitenedImages],
) -> F64:
    """(n,) nats a pose of each particle loses, 2 (1 - c) Q, by a move within a cell; third quartile of moves.

    `rotations` are the centres of cells, `steps` their widths in degrees and Å.
    """
    rng = np.random.default_rng(rotations.shape[0])
    count, every = disc.count(radius), np.arange(series.n_tilts)
    n = CORRELATION_SAMPLES
    chosen = rotations[rng.integers(0, len(rotations), n)]
    turn = Rotation.from_rotvec(rng.uniform(-0.5, 0.5, (n, 3)) * np.radians(steps[0])).as_matrix()
    frequencies = disc.frequencies3d(count)
    centre = scorer.slices(series, every, chosen, frequencies)
    moved = scorer.slices(series, every, turn @ chosen, frequencies)
    moves = rng.uniform(-0.5, 0.5, (n, 3)) * steps[1]
    moved = moved * shift_phases(series, every, moves, disc, pixel_size, count)
    square = (np.abs(centre - moved) ** 2).reshape(n, series.n_tilts, count)
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
    seen = np.zeros(weight.shape, bool)
    seen[np.ix_(np.isin(all_cells.rows, kept.rows), kept.columns)] = kept.cross > -np.inf
    return float(1.0 - weight[seen].sum() / weight.sum())
