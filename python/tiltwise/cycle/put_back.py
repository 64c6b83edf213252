"""Sets in which one family of corrections has the values it had before, and all others those they have after.

A series may turn and shift as a whole, and its particles with it, and nothing has changed: so the tilts of before are
first brought into the tomogram of after, by the rigid motion that explains most of their difference.  A motion that
all particles share is a shift of the tilts, and counts as one; the mean of what a particle moves over all tilts belongs
to its position.  Where all particles of a series lie against its tilts is a family of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from tiltwise.ctf.astigmatism import defocus_terms, with_defocus
from tiltwise.errors import DataError
from tiltwise.extract.source import Poses
from tiltwise.geometry.pose_errors import pose_errors
from tiltwise.model import OptimisationSet, TiltSeries
from tiltwise.model.poses import pixel_sizes, poses_of, series_index

F64 = NDArray[np.float64]

MOST_POINTS = 300
"""Particles of a series that say how its tomogram has moved."""
STEPS = 3
"""Each leaves the square of the rotation that was left before."""
SAME = 1e-5
"""Changes below are none, in the unit in which they are told."""


@dataclass(frozen=True, slots=True)
class PutBack:
    """One family put back."""

    family: str
    optset: OptimisationSet
    poses: Poses
    size: float
    """of the correction: root mean square, of poses the median angle"""
    unit: str
    parameters: int | None
    """numbers that were fitted; None where a prior holds them together"""

    @property
    def words(self) -> str:
        """Size and unit."""
        return f"{round(self.size, 4):.3g} {self.unit}".replace(" °", "°").strip()


@dataclass(frozen=True, slots=True)
class Pair:
    """One tilt series before and after, F tilts; `before` is in the tomogram of after."""

    before: TiltSeries
    after: TiltSeries
    turn: F64
    """(3, 3) and"""
    move: F64
    """(3,) pixels: x of the old tomogram is `turn @ x + move` in the new one"""
    centre: F64
    """(3,) mean position of the particles, pixels"""
    members: NDArray[np.intp]
    """(n,) particles of the series, rows of after"""
    shared_before: F64
    """(F, 3) mean motion of the particles, pixels"""
    shared_after: F64
    rest_change: F64
    """(n, 3) change of what every particle moves on average over the tilts, but for what all share, pixels"""
    slip: F64
    """(3,) pixels by which all particles have moved against the tilts"""

    @property
    def shift_px(self) -> F64:
        """(F, 2) how far the centre lies from where it was seen before."""
        return self._seen(self.after, self.shared_after) - self._seen(self.before, self.shared_before)

    def _seen(self, series: TiltSeries, shared: F64) -> F64:
        forward = series.projection[:, :2, :3]
        return np.asarray(np.einsum("fij,fj->fi", forward, self.centre + shared) + series.projection[:, :2, 3])

    @property
    def turn_deg(self) -> F64:
        """(F, 3) rotation vectors of the tilts about their axes."""
        change = self.after.projection[:, :3, :3] @ np.swapaxes(self.before.projection[:, :3, :3], 1, 2)
        return np.asarray(np.degrees(Rotation.from_matrix(change).as_rotvec()))

    @property
    def terms(self) -> tuple[F64, F64]:
        """(F, 3) mean defocus and astigmatism before and after, Å."""
        return defocus_terms(self.before), defocus_terms(self.after)


def changes(after: OptimisationSet, before: OptimisationSet) -> list[PutBack]:
    """Every family that differs, put back in `after`; particles and tilt series are matched by name.

    Raises
    ------
    DataError
        if `before` lacks a particle or tilt series of `after`, or a series has another number of tilts.
    """
    rows = matched(after, before)
    pairs = pairs_of(after, before, rows)
    found = [
        _series(after, pairs, "defocus", "Å", _defocus, lambda p: p.terms[1][:, 0] - p.terms[0][:, 0]),
        _series(after, pairs, "astigmatism", "Å", _astigmatism, lambda p: (p.terms[1] - p.terms[0])[:, 1:]),
        _series(
            after, pairs, "phase shifts", "°", _phase, lambda p: p.after.phase_shift_deg - p.before.phase_shift_deg
        ),
        _series(after, pairs, "scales", "", _scale, lambda p: _difference(p, "ctf_scale")),
        _aberrations(after, before),
        _series(after, pairs, "tilt shifts", "Å", _shift, lambda p: p.shift_px * p.after.pixel_size_angstrom),
        _series(after, pairs, "tilt angles", "°", _turn, lambda p: p.turn_deg),
        _motion(after, before, pairs),
        _deformation(after, pairs),
        _slip(after, pairs),
        poses_back(after, before, "poses", rows, pairs),
    ]
    return [one for one in found if one is not None]


def matched(after: OptimisationSet, before: OptimisationSet) -> NDArray[np.intp]:
    """(P,) rows in `before` of the particles of `after`."""
    row = {name: i for i, name in enumerate(before.particles.name)}
    missing = [name for name in after.particles.name if name not in row]
    if missing:
        raise DataError(
            "particles were not there before",
            where=before.paths.get("particles", "--before"),
            expected="every particle of --i, by its name",
            found=f"no {missing[0]}" + (f" and {len(missing) - 1} more" if len(missing) > 1 else ""),
            fix="give the set that these particles come from",
        )
    return np.array([row[name] for name in after.particles.name], np.intp)


def pairs_of(after: OptimisationSet, before: OptimisationSet, rows: NDArray[np.intp]) -> list[Pair]:
    """Tilt series before and after, in the order of `after`."""
    known = {series.name: series for series in before.series}
    number, positions, new = series_index(after), poses_of(before)[1][rows], poses_of(after)[1]
    result = []
    for index, series in enumerate(after.series):
        old = known.get(series.name)
        if old is None or old.n_tilts != series.n_tilts:
            raise DataError(
                "a tilt series is not the same before and after",
                where=series.name,
                expected=f"{series.n_tilts} tilts before",
                found="no such series" if old is None else f"{old.n_tilts} tilts",
                fix="give the set that this series comes from",
            )
        members = np.flatnonzero(number == index)
        points = positions[members] / series.pixel_size_angstrom
        names = [after.particles.name[m] for m in members]
        shared = [_mean_motion(one, names, series) for one in (before, after)]
        turn, move = rigid_motion(
            _carried(old, shared[0]), _carried(series, shared[1]), points[:: max(1, len(points) // MOST_POINTS)]
        )
        moved = np.eye(4)
        moved[:3, :3], moved[:3, 3] = turn.T, -turn.T @ move
        carried = points @ turn.T + move
        rest = [
            _rest(one, names, common, series.pixel_size_angstrom)
            for one, common in zip((before, after), shared, strict=True)
        ]
        now = new[members] / series.pixel_size_angstrom
        none = np.zeros(3)
        result.append(
            Pair(
                replace(old, projection=old.projection @ moved),
                series,
                turn,
                move,
                carried.mean(axis=0) if len(points) else none,
                members,
                shared[0],
                shared[1],
                rest[1] - rest[0],
                (now + rest[1] - carried - rest[0]).mean(axis=0) if len(points) else none,
            )
        )
    return result


def _carried(series: TiltSeries, shared: F64) -> TiltSeries:
    """A series whose tilts are shifted by a motion (F, 3) in pixels that all particles share."""
    return _shifted(series, np.einsum("fij,fj->fi", series.projection[:, :2, :3], shared))


def rigid_motion(before: TiltSeries, after: TiltSeries, points: F64) -> tuple[F64, F64]:
    """Rotation (3, 3) and shift (3,) in pixels of the tomogram that best take the tilts of before to those of after.

    Least squares over the image positions of `points` (P, 3), in steps that are linear in small rotations.
    """
    turn, move = np.eye(3), np.zeros(3)
    if not len(points) or np.array_equal(after.projection, before.projection):
        return turn, move
    forward, was = after.projection[:, :2], before.projection[:, :2]
    seen = np.einsum("fij,pj->pfi", was[..., :3], points) + was[..., 3]
    for _ in range(STEPS):
        moved = points @ turn.T + move
        centre = moved.mean(axis=0)
        lever = np.zeros((len(points), 3, 6))
        lever[:, :, :3] = np.eye(3)
        for axis in range(3):
            lever[:, :, 3 + axis] = np.cross(np.eye(3)[axis], moved - centre)
        design = np.einsum("fij,pjk->pfik", forward[..., :3], lever).reshape(-1, 6)
        left = seen - (np.einsum("fij,pj->pfi", forward[..., :3], moved) + forward[..., 3])
        six = np.linalg.lstsq(design, left.reshape(-1), rcond=1e-9)[0]
        more = Rotation.from_rotvec(six[3:]).as_matrix()
        turn, move = more @ turn, more @ (move - centre) + centre + six[:3]
    return turn, move


def _mean_motion(optset: OptimisationSet, names: list[str], series: TiltSeries) -> F64:
    """(F, 3) pixels."""
    total = np.zeros((series.n_tilts, 3))
    for name in names:
        total += optset.trajectories.get(name, 0.0)
    return total / max(len(names), 1) / series.pixel_size_angstrom


def _rest(optset: OptimisationSet, names: list[str], shared: F64, pixel: float) -> F64:
    """(n, 3) mean motion over the tilts, but for what all particles share, pixels."""
    result = np.zeros((len(names), 3))
    for row, name in enumerate(names):
        if name in optset.trajectories:
            result[row] = optset.trajectories[name].mean(axis=0) / pixel
    return np.asarray(result - shared.mean(axis=0))


# ---- families of the tilt series ----------------------------------------------------------------------------


def _series(
    after: OptimisationSet,
    pairs: list[Pair],
    family: str,
    unit: str,
    back: Callable[[Pair], TiltSeries],
    change: Callable[[Pair], F64],
) -> PutBack | None:
    parts = [np.asarray(change(pair)) for pair in pairs]
    size = _rms(parts)
    if not size > SAME:
        return None
    fitted = sum(part.size for part in parts if np.abs(part).max(initial=0.0) > SAME)
    return PutBack(
        family, replace(after, series=tuple(back(pair) for pair in pairs)), Poses.of(after), size, unit, fitted
    )


def _rms(parts: list[F64]) -> float:
    values = np.concatenate([part.ravel() for part in parts]) if parts else np.zeros(0)
    return float(np.sqrt(np.mean(values**2))) if len(values) else 0.0


def _difference(pair: Pair, name: str) -> F64:
    """Of a field of the tilt series."""
    return np.asarray(getattr(pair.after, name) - getattr(pair.before, name))


def _defocus(pair: Pair) -> TiltSeries:
    old, new = pair.terms
    return with_defocus(pair.after, np.column_stack([old[:, :1], new[:, 1:]]), np.ones(len(new), bool))


def _astigmatism(pair: Pair) -> TiltSeries:
    old, new = pair.terms
    return with_defocus(pair.after, np.column_stack([new[:, :1], old[:, 1:]]), np.ones(len(new), bool))


def _phase(pair: Pair) -> TiltSeries:
    return replace(pair.after, phase_shift_deg=pair.before.phase_shift_deg)


def _scale(pair: Pair) -> TiltSeries:
    return replace(pair.after, ctf_scale=pair.before.ctf_scale)


def _shift(pair: Pair) -> TiltSeries:
    return _shifted(pair.after, -pair.shift_px)


def _shifted(series: TiltSeries, shift_px: F64) -> TiltSeries:
    projection = series.projection.copy()
    projection[:, :2, 3] += shift_px
    return replace(series, projection=projection)


def _turn(pair: Pair) -> TiltSeries:
    projection = pair.after.projection.copy()
    seen = projection[:, :3, :3] @ pair.centre + projection[:, :3, 3]
    projection[:, :3, :3] = pair.before.projection[:, :3, :3]
    projection[:, :3, 3] = seen - projection[:, :3, :3] @ pair.centre
    return replace(pair.after, projection=projection)


def _deformation(after: OptimisationSet, pairs: list[Pair]) -> PutBack | None:
    parts, fitted = [], 0
    for pair in pairs:
        bent, plain = pair.after.deformation, pair.before.deformation
        if bent is None and plain is None:
            parts.append(np.zeros(0))
            continue
        points, unbent = pair.centre + _cross(pair.after), replace(pair.after, deformation=plain)
        parts.append(pair.after.project(points) - unbent.project(points))
        fitted += 0 if bent is None else bent.coefficients.size
    size = _rms([part * pair.after.pixel_size_angstrom for part, pair in zip(parts, pairs, strict=True)])
    if not size > SAME:
        return None
    series = tuple(replace(pair.after, deformation=pair.before.deformation) for pair in pairs)
    return PutBack("deformation", replace(after, series=series), Poses.of(after), size, "Å", fitted)


def _cross(series: TiltSeries) -> F64:
    """(N, 3) points over the middle plane of a tomogram, from its centre, in pixels."""
    x, y = (np.linspace(-0.4, 0.4, 5) * length for length in series.tomogram_size[:2])
    grid = np.stack(np.meshgrid(x, y, indexing="ij"), axis=-1).reshape(-1, 2)
    return np.column_stack([grid, np.zeros(len(grid))])


# ---- optics, motion, poses ----------------------------------------------------------------------------------


def _aberrations(after: OptimisationSet, before: OptimisationSet) -> PutBack | None:
    old = {group.name: group for group in before.optics}
    optics, parts, fitted = [], [], 0
    for group in after.optics:
        was = old.get(group.name, group)
        for own, other in ((group.even_zernike, was.even_zernike), (group.odd_zernike, was.odd_zernike)):
            length = max(len(own), len(other))
            parts.append(np.pad(own, (0, length - len(own))) - np.pad(other, (0, length - len(other))))
            fitted += int(np.count_nonzero(parts[-1]))
        optics.append(replace(group, even_zernike=was.even_zernike, odd_zernike=was.odd_zernike))
    size = _rms(parts)
    if not size > SAME:
        return None
    return PutBack("aberrations", replace(after, optics=tuple(optics)), Poses.of(after), size, "rad", fitted)


def _motion(after: OptimisationSet, before: OptimisationSet, pairs: list[Pair]) -> PutBack | None:
    """The motion of every particle that the others of its series do not share."""
    names, poses = after.particles.name, Poses.of(after)
    series, parts = [], []
    for pair in pairs:
        members = pair.members
        poses.displacement_angstrom[members] += pair.rest_change * pair.after.pixel_size_angstrom
        shared = pair.shared_after - pair.shared_before
        change = np.zeros((len(members), pair.after.n_tilts, 3))
        for row, member in enumerate(members):
            new, old = (one.trajectories.get(names[member], 0.0) for one in (after, before))
            change[row] = np.subtract(new, old) - shared * pair.after.pixel_size_angstrom
        parts.append(change)
        series.append(_carried(pair.after, shared))
    size = _rms(parts)
    if not size > SAME:
        return None
    kept = {name: before.trajectories[name] for name in names if name in before.trajectories}
    return PutBack("motion", replace(after, series=tuple(series), trajectories=kept), poses, size, "Å", None)


def _slip(after: OptimisationSet, pairs: list[Pair]) -> PutBack | None:
    """All particles of a series as one, against its tilts."""
    poses, parts = Poses.of(after), []
    for pair in pairs:
        parts.append(pair.slip * pair.after.pixel_size_angstrom)
        poses.displacement_angstrom[pair.members] -= parts[-1]
    size = _rms(parts)
    return PutBack("places of series", after, poses, size, "Å", 3 * len(parts)) if size > SAME else None


def poses_back(
    after: OptimisationSet,
    before: OptimisationSet,
    family: str,
    rows: NDArray[np.intp] | None = None,
    pairs: list[Pair] | None = None,
) -> PutBack | None:
    """Poses of `before`, in the tomograms of `after`; None if they are the same.  Errors as `changes`."""
    rows = matched(after, before) if rows is None else rows
    pairs = pairs_of(after, before, rows) if pairs is None else pairs
    new, (rotation, position) = Poses.of(after), (values[rows] for values in poses_of(before))
    for pair in pairs:
        own, pixel = pair.members, pair.after.pixel_size_angstrom
        moved = position[own] @ pair.turn.T + (pair.move + pair.slip - pair.rest_change) * pixel
        rotation[own], position[own] = pair.turn @ rotation[own], moved
    errors = pose_errors(*poses_of(after), rotation, position, remove_common=True)
    if not max(errors.angle_deg.max(initial=0.0), errors.distance.max(initial=0.0)) > SAME:
        return None
    stored = new.stored_px * pixel_sizes(after)[:, None]
    poses = Poses(new.stored_px, position - stored, rotation)
    shift = float(np.median(errors.distance))
    size = float(np.median(errors.angle_deg))
    return PutBack(family, after, poses, size, f"°, {shift:.2g} Å", 6 * len(rows))
