"""Alignments without images: specimens, planted changes, and correlations that are known parabolas."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from tiltwise.motion.climb import climb
from tiltwise.motion.gaussian_process import MotionBasis
from tiltwise.motion.geometry import Alignment, Specimen
from tiltwise.motion.normal import NormalEquations, Solver
from tiltwise.motion.objective import Evidence, Free
from tiltwise.motion.tables import TableGrid
from tiltwise.spectral.disc import FourierDisc

F64 = NDArray[np.float64]
PIXEL, DOSE = 1.35, 3.0


@dataclass(frozen=True, slots=True)
class Parabolas(Evidence):
    """Correlations -(d - d*)^T F (d - d*) / 2 around observed displacements d*."""

    observed: F64
    """(n, 2)"""

    def at(self, displacement: F64) -> tuple[F64, F64]:
        away = displacement[self.particle, self.tilt] - self.observed
        pull = np.einsum("nij,nj->ni", self.information, away)
        return -0.5 * (away * pull).sum(axis=1), -pull


def specimen(particles: int, tilts: int, rng: np.random.Generator) -> Specimen:
    """Particles in 3600 x 3600 x 600 px, tilts of +-60 degrees by turns."""
    size = np.array([3600.0, 3600.0, 600.0])
    angles = np.linspace(-60, 60, tilts)
    angles = angles[np.argsort(np.abs(angles), kind="stable")]
    rotation = Rotation.from_euler("y", angles[:, None], degrees=True).as_matrix()
    position, centre = rng.uniform(0, size, (particles, 3)), size / 2
    offset = centre - rotation @ centre
    cut = np.einsum("fij,pj->pfi", rotation[:, :2], position) + offset[:, :2]
    still = np.zeros((particles, tilts, 3))
    none = np.zeros((particles, 0))
    return Specimen(rotation, offset, centre, position, still, cut, none, np.zeros(tilts - 1), PIXEL)


def moving(one: Specimen, length_angstrom: float, velocity: float, kernel: str = "gaussian") -> Specimen:
    basis = MotionBasis.create(one.position_px * PIXEL, length_angstrom, kernel).functions  # type: ignore[arg-type]
    return replace(one, basis=basis, step_px=np.full(one.n_tilts - 1, velocity * DOSE / PIXEL))


def observed(one: Specimen, truth: Alignment, sigma: float, rng: np.random.Generator, hidden: float = 0.0) -> Parabolas:
    """Displacements with Gaussian errors of `sigma` px; a share of the images is not seen."""
    exact = truth.predict(one)
    particle, tilt = np.nonzero(rng.random(exact.shape[:2]) >= hidden)
    n = len(particle)
    grid = TableGrid.create(FourierDisc.create(16), 4.0, 3.0)
    information = np.tile(np.eye(2) / sigma**2, (n, 1, 1))
    seen = exact[particle, tilt] + rng.normal(size=(n, 2)) * sigma
    return Parabolas(grid, np.zeros((n, 1, 1), np.float32), information, np.ones(n), particle, tilt, 1.0, seen)


def planted(one: Specimen, rng: np.random.Generator, motion: bool = False) -> Alignment:
    """Angles of 1 mrad, shifts of 2 px, positions of 1 px, and motion drawn from its prior."""
    tilt = np.concatenate([rng.normal(size=(one.n_tilts, 3)) * 1e-3, rng.normal(size=(one.n_tilts, 2)) * 2], axis=1)
    none = Alignment.none(one)
    modes = rng.normal(size=none.coefficients.shape) if motion else none.coefficients
    return none.moved(tilt, rng.normal(size=none.displacement_px.shape), modes)


def rms(one: Specimen, found: Alignment, other: Specimen, truth: Alignment) -> float:
    """Of predicted positions in the images, both axes together."""
    return float(np.sqrt(((found.predict(one) - truth.predict(other)) ** 2).sum(axis=2).mean() / 2.0))


def whole_matrix(normal: NormalEquations) -> F64:
    """All parameters at once, particles last."""
    count, common = len(normal.particle), len(normal.common)
    matrix = np.zeros((common + 3 * count,) * 2)
    matrix[:common, :common] = normal.common
    for i in range(count):
        rows = slice(common + 3 * i, common + 3 * i + 3)
        matrix[rows, rows] = normal.particle[i]
        matrix[rows, :common] = normal.mixed[i]
        matrix[:common, rows] = normal.mixed[i].T
    return matrix


def error_ratio(one: Specimen, truths: Iterable[Alignment], rng: np.random.Generator) -> float:
    """Mean square error of predicted positions over that of draws from the posterior, image errors of 1 px."""
    ratios = []
    for truth in truths:
        evidence = observed(one, truth, 1.0, rng)
        found = climb(one, evidence, Alignment.none(one)).alignment
        solver = Solver(NormalEquations.of(one, evidence, found), Free())
        drawn = [found.moved(*solver.draw(rng, one.basis.shape[1])).predict(one) for _ in range(60)]
        sigma2 = np.mean([((d - found.predict(one)) ** 2).sum(axis=2) for d in drawn], axis=0)
        ratios.append((((found.predict(one) - truth.predict(one)) ** 2).sum(axis=2) / sigma2).mean())
    return float(np.mean(ratios))
