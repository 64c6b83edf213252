"""Sharp posteriors without a grid: climb to the mode, then a Gaussian from the Fisher information.

Poses are a rotation R, reference to tomogram, and a shift d in Å along tomogram axes.  Small changes are six
numbers (w, e): `R -> exp([w]x) R`, w in radians about tomogram axes, and `d -> d + e`.  Gradient and information
of the likelihood come from the kernel `curvature`, per tilt and in the frame of the image; P_f takes them to the
tomogram.  All particles of a batch climb together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from tiltwise.em.likelihood import Scorer, shift_phases
from tiltwise.em.maximisation import PosteriorPoses, ShiftSpread
from tiltwise.em.priors import PosePrior
from tiltwise.geometry.rotations import nearest_rotation
from tiltwise.maps.whitening import WhitenedImages
from tiltwise.model import Views
from tiltwise.spectral.components import FourierComponents

F64 = NDArray[np.float64]

STEPS_PER_RADIUS = 3
"""At most, on the way to the full radius; the last radius is climbed until nothing is gained."""
LAST_STEPS = 12
SMALL_GAIN = 5e-4
"""Expected gain of log posterior, in nats, at which a climb ends."""
HOPELESS = 20.0
"""Nats below the best climb of a particle at which one is given up before the full radius."""
REACH = 0.53
"""Longest step: radius times angle in shells x radians.  It moves the rim of a particle of 0.6 boxes by one radian
of phase."""


@dataclass(slots=True)
class Modes:
    """Gaussians at the modes of posteriors, n of them."""

    rotation: F64
    """(n, 3, 3)"""
    shift: F64
    """(n, 3) Å"""
    log_posterior: F64
    """(n,) log likelihood + log prior at the mode"""
    covariance: F64
    """(n, 6, 6) rad and Å"""

    @property
    def angular_width(self) -> F64:
        """(n,) standard deviation of rotations along their widest axis, radians."""
        return np.asarray(np.sqrt(np.linalg.eigvalsh(self.covariance[:, :3, :3])[:, -1]))

    @property
    def log_mass(self) -> F64:
        """(n,) log of the integral of each Gaussian over rad^3 Å^3."""
        return np.asarray(self.log_posterior + 0.5 * np.linalg.slogdet(2.0 * np.pi * self.covariance)[1])

    def take(self, rows: NDArray[np.intp]) -> Modes:
        """Some of them."""
        return Modes(self.rotation[rows], self.shift[rows], self.log_posterior[rows], self.covariance[rows])

    def square_distance(self, i: int, j: int, symmetry: NDArray[np.float64] | None) -> float:
        """Squared distance of mode i, or its nearest mate, from mode j in standard deviations of j."""
        mates = self.rotation[i][None] if symmetry is None else self.rotation[i] @ symmetry
        turns = Rotation.from_matrix(mates @ self.rotation[j].T).as_rotvec()
        moves = np.broadcast_to(self.shift[i] - self.shift[j], turns.shape)
        change = np.concatenate([turns, moves], axis=1)
        return float(np.einsum("na,an->n", change, np.linalg.solve(self.covariance[j], change.T)).min())

    def moved(self, change: F64) -> tuple[F64, F64]:
        """Rotations and shifts after changes (n, 6)."""
        return turned(self.rotation, change[:, :3]), self.shift + change[:, 3:]


def turned(rotation: F64, vectors: F64) -> F64:
    """`exp([w]x) R` of (n, 3, 3) and (n, 3)."""
    return np.asarray(Rotation.from_rotvec(vectors).as_matrix() @ rotation)


class Climber:
    """Log posteriors of a batch of particles of one series, with their derivatives.

    Parameters
    ----------
    images
        whitened images of every particle.
    owner
        (n,) which particle each of the n poses is one of.
    """

    def __init__(
        self,
        scorer: Scorer,
        series: Views,
        disc: FourierComponents,
        pixel_size: float,
        images: Sequence[WhitenedImages],
        owner: NDArray[np.intp],
        prior: PosePrior,
    ) -> None:
        self.scorer, self.disc, self.prior, self.owner = scorer, disc, prior.take(owner), owner
        self.series, self.images, self.pixel_size = series, images, pixel_size
        self.radian_per_px = 2.0 * np.pi / disc.box
        counts = np.array([len(image.tilts) for image in images])
        starts = np.concatenate([[0], np.cumsum(counts)])
        self._data = np.concatenate([image.score_image.reshape(len(image.tilts), -1) for image in images])
        self._power = np.concatenate([image.score_power.reshape(len(image.tilts), -1) for image in images])
        self._forward = np.concatenate([series.projection[image.tilts, :3, :3] for image in images])
        # (w, e) in the tomogram to (w', t) along the axes of the image
        axes = disc.dimensions
        self._to_image = np.zeros((len(self._forward), 3 + axes, 6))
        self._to_image[:, :3, :3] = self._forward
        self._to_image[:, 3:, 3:] = self._forward[:, :axes] * (self.radian_per_px / pixel_size)
        self._rows = [np.arange(starts[o], starts[o + 1]) for o in owner]

    def evaluate(self, rotation: F64, shift: F64, chosen: NDArray[np.intp], count: int) -> tuple[F64, F64, F64]:
        """Log posterior (m,), gradient (m, 6) and information (m, 6, 6) of the poses `chosen`, below a radius."""
        rows = np.concatenate([self._rows[i] for i in chosen])
        lengths = np.array([len(self._rows[i]) for i in chosen])
        item = np.repeat(np.arange(len(chosen)), lengths)
        forward, to_image = self._forward[rows], self._to_image[rows]
        matrices = self.scorer.scale * np.swapaxes(forward @ rotation[item], 1, 2)
        slopes = np.einsum("nij,nj->ni", to_image[:, 3:, 3:], shift[item])
        found = self.scorer.backend.curvature(
            self.scorer.volume,
            np.ascontiguousarray(matrices, np.float32),
            self.disc.frequencies3d(count),
            self.scorer.volume.shape[0] // 2,
            self._data,
            self._power,
            rows.astype(np.int32),
            slopes.astype(np.float32),
            threads=self.scorer.threads,
        )
        parameters = to_image.shape[1]
        upper, first = np.triu_indices(parameters), 2 + parameters
        square = np.zeros((len(rows), parameters, parameters))
        square[:, upper[0], upper[1]] = found[:, first:]
        square[:, upper[1], upper[0]] = found[:, first:]
        starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
        value = np.add.reduceat(2.0 * found[:, 0] - found[:, 1], starts)
        gradient = np.add.reduceat(2.0 * np.einsum("nij,ni->nj", to_image, found[:, 2:first]), starts)
        information = np.add.reduceat(2.0 * np.swapaxes(to_image, 1, 2) @ square @ to_image, starts)
        prior = self.prior.take(chosen)
        value += prior.of_rotations(rotation) + prior.of_shifts(shift)
        slope, curvature = prior.derivatives(rotation, shift)
        return value, gradient + slope, information + curvature

    def climb(self, rotation: F64, shift: F64, radii: Sequence[float]) -> Modes:
        """Modes reached from starting poses (n, 3, 3) and (n, 3), radius by radius, damped Gauss-Newton."""
        rotation, shift, n = rotation.copy(), shift.copy(), len(rotation)
        value, gradient, information = np.zeros(n), np.zeros((n, 6)), np.zeros((n, 6, 6))
        alive = np.arange(n)
        for radius in radii:
            last = radius == radii[-1]
            count = self.disc.count(radius)
            value[alive], gradient[alive], information[alive] = self.evaluate(
                rotation[alive], shift[alive], alive, count
            )
            damping = np.zeros(n)
            active = alive
            for _ in range(LAST_STEPS if last else STEPS_PER_RADIUS):
                step = self._steps(gradient[active], information[active], damping[active], radius)
                gain = np.einsum("ni,ni->n", gradient[active], step)
                going = gain > SMALL_GAIN
                if last:
                    # a step this small need not be tried; false for NaN
                    small = (gain >= 0.0) & ~going
                    done = active[small]
                    rotation[done] = turned(rotation[done], step[small, :3])
                    shift[done] += step[small, 3:]
                    value[done] += 0.5 * gain[small]
                active, step = active[going], step[going]
                if not len(active):
                    break
                trial = turned(rotation[active], step[:, :3]), shift[active] + step[:, 3:]
                found = self.evaluate(*trial, active, count)
                better = found[0] > value[active]
                won, lost = active[better], active[~better]
                rotation[won], shift[won] = trial[0][better], trial[1][better]
                value[won], gradient[won], information[won] = (part[better] for part in found)
                damping[won] = np.where(damping[won] > 1e-2, damping[won] / 10, 0.0)
                damping[lost] = np.maximum(10 * damping[lost], 0.3)
                active = active[damping[active] < 1e3]
            if not last:
                alive = self._worth_climbing(alive, rotation, shift, value, information)
        dropped = np.ones(n, bool)
        dropped[alive] = False
        value[dropped], information[dropped] = -np.inf, np.eye(6)
        return Modes(nearest_rotation(rotation), shift, value, np.asarray(np.linalg.inv(information), dtype=np.float64))

    def _worth_climbing(
        self, alive: NDArray[np.intp], rotation: F64, shift: F64, value: F64, information: F64
    ) -> NDArray[np.intp]:
        """Of the poses of each particle those not far below the best, and only one of those that have met."""
        kept: list[int] = []
        best: dict[int, float] = {}
        of_owner: dict[int, list[int]] = {}
        for i in alive[np.argsort(-value[alive], kind="stable")]:
            owner = int(self.owner[i])
            others = of_owner.setdefault(owner, [])
            top = best.setdefault(owner, float(value[i]))
            if value[i] < top - HOPELESS:
                continue
            if others:
                change = np.concatenate(
                    [
                        Rotation.from_matrix(rotation[i] @ np.swapaxes(rotation[others], 1, 2)).as_rotvec(),
                        shift[i] - shift[others],
                    ],
                    axis=1,
                )
                if (np.einsum("na,nab,nb->n", change, information[others], change) < 1.0).any():
                    continue
            others.append(int(i))
            kept.append(int(i))
        return np.sort(np.array(kept, dtype=np.intp))

    def _steps(self, gradient: F64, information: F64, damping: F64, radius: float) -> F64:
        """(n, 6) damped steps, none longer than `REACH`."""
        diagonal = np.einsum("nii->ni", information)
        damped = information + (damping[:, None] * diagonal)[:, :, None] * np.eye(6)
        step = np.linalg.solve(damped, gradient[..., None])[..., 0]
        angle = np.linalg.norm(step[:, :3], axis=1) * radius / REACH
        phase = np.linalg.norm(step[:, 3:], axis=1) * radius * self._to_image_scale()
        return np.asarray(step / np.maximum(1.0, np.maximum(angle, phase))[:, None])

    def _to_image_scale(self) -> float:
        """Radians of phase per Å of shift and shell."""
        return float(np.linalg.norm(self._to_image[0, 3:, 3:], 2))

    def log_posterior(self, item: int, rotations: F64, shifts: F64, radius: float) -> F64:
        """(R, T) of all pairs of rotations (R, 3, 3) and shifts (T, 3), for the particle of a pose."""
        count, image = self.disc.count(radius), self.images[self.owner[item]]
        phases = shift_phases(self.series, image.tilts, shifts, self.disc, self.pixel_size, count)
        cross, quadratic = self.scorer.terms(
            self.series, image.prefix(count), rotations, phases, self.disc.frequencies3d(count)
        )
        by_turn = self.prior.take(np.full(len(rotations), item)).of_rotations(rotations)
        by_move = self.prior.take(np.full(len(shifts), item)).of_shifts(shifts)
        return np.asarray(2.0 * cross.astype(np.float64) - quadratic[:, None] + by_turn[:, None] + by_move)

    def defect(self, modes: Modes, radius: float) -> F64:
        """(n,) by how many nats the posterior departs from its Gaussian, two sigma off along the softest direction."""
        scale = np.array([radius / REACH] * 3 + [radius * self._to_image_scale()] * 3)
        scaled = modes.covariance * scale[:, None] * scale
        values, vectors = np.linalg.eigh(scaled)
        step = vectors[:, :, -1] * np.sqrt(values[:, -1:]) / scale
        alive, count = np.flatnonzero(np.isfinite(modes.log_posterior)), self.disc.count(radius)
        worst = np.full(len(step), np.inf)
        worst[alive] = 0.0
        for side in (-2.0, 2.0):
            rotation, shift = modes.moved(side * step)
            there = self.evaluate(rotation[alive], shift[alive], alive, count)[0]
            worst[alive] = np.maximum(worst[alive], np.abs(there - modes.log_posterior[alive] + 2.0))
        return worst


def climbing_radii(coarse_step_deg: float, fine_radius: float) -> list[float]:
    """Radii of a climb that starts half a coarse step off: few shells at first, where the hill is wide."""
    first = max(6.0, REACH / np.radians(coarse_step_deg / 2))
    radii = [fine_radius]
    while radii[0] > 1.2 * first:
        radii.insert(0, max(radii[0] / 1.6, first))
    return radii


ROTATION_BLUR = 0.3
"""Voxels of the padded volume by which a spread of rotations may smear the rim: below, one rotation stands for all."""


def gaussian_poses(modes: Modes, share: F64, radius: float, scale: float) -> PosteriorPoses:
    """Posterior of Gaussians with weights `share` as rotations and Gaussian shifts.

    Rotations are the mode alone, or where they smear the rim of the map, at `radius` shells of `scale` voxels, the six
    points at sqrt(3) sigma along the axes of their covariance, which keep mean and covariance.
    """
    rotations, shifts, spreads, weights = [], [], [], []
    for mode, part in enumerate(share):
        covariance = modes.covariance[mode]
        angular, mixed, spread = covariance[:3, :3], covariance[3:, :3], covariance[3:, 3:]
        values, axes = np.linalg.eigh(angular)
        if np.sqrt(values[-1]) * radius * scale <= ROTATION_BLUR:
            rotations.append(modes.rotation[mode][None])
            shifts.append(modes.shift[mode][None])
            spreads.append(spread)
        else:
            points = np.concatenate([axes.T, -axes.T]) * np.sqrt(3.0 * np.tile(values, 2))[:, None]
            gain = mixed @ np.linalg.inv(angular)
            rotations.append(turned(np.broadcast_to(modes.rotation[mode], (6, 3, 3)), points))
            shifts.append(modes.shift[mode] + points @ gain.T)
            spreads.append(spread - gain @ mixed.T)
        weights.append(np.full(len(rotations[-1]), part / len(rotations[-1])))
    of_mode = np.repeat(np.arange(len(share)), [len(part) for part in rotations])
    return PosteriorPoses(
        np.concatenate(rotations),
        np.diag(np.concatenate(weights)).astype(np.float32),
        np.concatenate(shifts),
        ShiftSpread(np.stack(spreads), of_mode),
    )
