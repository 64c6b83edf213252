"""Expected curvature of the log posterior of an alignment, in the blocks of bundle adjustment.

Particles meet only through tilts and motion: their 3 x 3 blocks are eliminated first (Schur complement), and what is
left has 5 parameters per tilt, 3 per mode and transition, and the amplitudes of deformations.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import block_diag, cho_factor, cho_solve, solve_triangular

from tiltwise.motion.fields import FieldBasis
from tiltwise.motion.geometry import Alignment, Specimen, gauge, tilt_jacobian
from tiltwise.motion.objective import Evidence, Free, Gradient

F64 = NDArray[np.float64]

UNDETERMINED = 1e-8
"""Information added to that of every parameter, over its own."""


@dataclass(frozen=True, slots=True)
class ImageBlocks:
    """Fisher information of single images, in what moves them."""

    space: F64
    """(P, F, 3, 3) in displacements of the particle"""
    crossed: F64
    """(P, F, 5, 3) in (w, t) and displacements"""
    own: F64
    """(F, 5, 5) in (w, t), of all particles"""
    by_tilt: F64
    """(P, F, 2, 5) see `tiltwise.motion.geometry.tilt_jacobian`"""
    rotation: F64
    """(F, 2, 3)"""
    fields: _Fields | None
    """of deformations that are fitted"""

    @classmethod
    def of(cls, specimen: Specimen, evidence: Evidence, alignment: Alignment) -> ImageBlocks:
        """At an alignment."""
        arms = alignment.arms(specimen)
        information = np.zeros((*arms.shape[:2], 2, 2))
        information[evidence.particle, evidence.tilt] = evidence.information
        deformation, of_fields = alignment.deformation(specimen), None
        if deformation is not None:
            seen = alignment.projected(specimen, arms)
            through = deformation.at(seen).jacobian
            if specimen.fields is not None:
                of_fields = _Fields.of(specimen.fields, specimen.fields.derivative(seen), information, through)
            information = np.einsum("pfki,pfkl,pflj->pfij", through, information, through, optimize=True)
        by_tilt = tilt_jacobian(arms)
        rotation = alignment.rotations(specimen)[:, :2]
        weighted = np.einsum("pfij,fjk->pfik", information, rotation, optimize=True)  # F R
        space = np.einsum("fij,pfik->pfjk", rotation, weighted, optimize=True)  # R^T F R
        crossed = np.einsum("pfia,pfik->pfak", by_tilt, weighted, optimize=True)  # J^T F R
        own = np.einsum("pfia,pfij,pfjb->fab", by_tilt, information, by_tilt, optimize=True)
        return cls(space, crossed, own, by_tilt, rotation, of_fields)


@dataclass(frozen=True, slots=True)
class NormalEquations:
    """Fisher information of all parameters, without priors."""

    particle: F64
    """(P, 3, 3)"""
    mixed: F64
    """(P, 3, C) particles with tilts, then modes (m, b, i), then amplitudes of deformations (n, a)"""
    common: F64
    """(C, C)"""
    conditions: F64
    """(5 F, 6 or 3) see `tiltwise.motion.geometry.gauge`"""
    position_weight: float
    """inverse variance of the prior on displacements, 1/px^2"""
    fields: tuple[int, int]
    """(N, M) shape of the amplitudes of deformations, (0, 0) without"""

    @classmethod
    def of(cls, specimen: Specimen, evidence: Evidence, alignment: Alignment) -> NormalEquations:
        """At an alignment."""
        return cls.from_blocks(specimen, alignment, ImageBlocks.of(specimen, evidence, alignment))

    @classmethod
    def from_blocks(cls, specimen: Specimen, alignment: Alignment, blocks: ImageBlocks) -> NormalEquations:
        """From what single images say."""
        space, crossed, own, by_tilt = blocks.space, blocks.crossed, blocks.own, blocks.by_tilt
        rotation, of_fields = blocks.rotation, blocks.fields
        (count, tilts), modes = space.shape[:2], specimen.basis.shape[1]
        n_tilt, n_modes = 5 * tilts, 3 * modes * (tilts - 1)
        ahead, n_fields = n_tilt + n_modes, alignment.amplitudes.size
        common = np.zeros((ahead + n_fields,) * 2)
        for f in range(tilts):
            common[5 * f : 5 * f + 5, 5 * f : 5 * f + 5] = own[f]
        mixed = np.zeros((count, 3, ahead + n_fields))
        mixed[:, :, :n_tilt] = np.moveaxis(crossed, (1, 2, 3), (2, 3, 1)).reshape(count, 3, n_tilt)
        if n_modes:
            later = np.cumsum(space[:, :0:-1], axis=1)[
                :, ::-1
            ]  # (P, F - 1, 3, 3) sums over tilts after each transition
            steps = specimen.step_px
            mixed[:, :, n_tilt:ahead] = np.einsum(
                "pb,pmij,m->pimbj", specimen.basis, later, steps, optimize=True
            ).reshape(count, 3, n_modes)
            of_tilts = np.einsum("pb,pfak->fabk", specimen.basis, crossed, optimize=True)
            acts = np.arange(tilts)[:, None] > np.arange(tilts - 1)
            block = np.einsum("fabk,m,fm->fambk", of_tilts, steps, acts.astype(np.float64), optimize=True)
            common[:n_tilt, n_tilt:ahead] = block.reshape(n_tilt, n_modes)
            common[n_tilt:ahead, n_tilt:ahead] = _modes_block(specimen, later)
        if of_fields is not None:
            by_particle = of_fields.by_particle(rotation)
            mixed[:, :, ahead:] = of_fields.laid_out(np.moveaxis(by_particle, 1, 2))
            common[:n_tilt, ahead:] = of_fields.with_tilts(by_tilt)
            if n_modes:
                common[n_tilt:ahead, ahead:] = of_fields.with_modes(specimen, by_particle)
            common[ahead:, ahead:] = of_fields.own
        common = np.triu(common) + np.triu(common, 1).T
        conditions = gauge(specimen, alignment)
        weight = specimen.position_sigma_px**-2.0
        return cls(np.asarray(space.sum(axis=1)), mixed, common, conditions, weight, alignment.amplitudes.shape)


def _modes_block(specimen: Specimen, later: F64) -> F64:
    """(3 B (F-1),) squared: modes with modes; those of transitions m and n act together after the later one."""
    transitions, modes = later.shape[1], specimen.basis.shape[1]
    pairs = (specimen.basis[:, :, None] * specimen.basis[:, None, :]).reshape(len(later), -1)
    sums = (pairs.T @ later.reshape(len(later), -1)).reshape(modes, modes, transitions, 3, 3)
    last = np.maximum.outer(np.arange(transitions), np.arange(transitions))
    scale = np.outer(specimen.step_px, specimen.step_px)
    block = np.moveaxis(sums, 2, 0)[last] * scale[:, :, None, None, None, None]  # (m, n, b, c, i, j)
    return np.asarray(block.transpose(0, 2, 4, 1, 3, 5).reshape(3 * modes * transitions, -1))


@dataclass(frozen=True, slots=True)
class _Fields:
    """Blocks of deformations: one for all tilts sums over them, one for each keeps them apart."""

    per_tilt: bool
    pull: F64
    """(P, F, 2, M) information between displacements before deformation and amplitudes"""
    own: F64
    """(N M, N M) amplitudes with amplitudes"""

    @classmethod
    def of(cls, fields: FieldBasis, derivative: F64, information: F64, through: F64) -> _Fields:
        """From (P, F, 2, M) derivatives, (P, F, 2, 2) information and the Jacobians (P, F, 2, 2) of the images."""
        weighted = np.einsum("pfij,pfja->pfia", information, derivative, optimize=True)
        each = np.einsum("pfia,pfib->fab", derivative, weighted, optimize=True)
        own = block_diag(*each) if fields.per_tilt else each.sum(axis=0)
        pull = np.einsum("pfki,pfka->pfia", through, weighted, optimize=True)
        return cls(fields.per_tilt, np.asarray(pull), np.asarray(own))

    def laid_out(self, by_tilt: F64) -> F64:
        """(..., F, M) -> (..., N M)."""
        if self.per_tilt:
            return by_tilt.reshape(*by_tilt.shape[:-2], -1)
        return np.asarray(by_tilt.sum(axis=-2))

    def by_particle(self, rotation: F64) -> F64:
        """(P, F, 3, M) particles with the field of every tilt."""
        return np.asarray(np.einsum("fij,pfia->pfja", rotation, self.pull, optimize=True))

    def with_tilts(self, jacobian: F64) -> F64:
        """(5 F, N M)."""
        block = np.einsum("pfia,pfib->fab", jacobian, self.pull, optimize=True)
        if self.per_tilt:
            return np.asarray(block_diag(*block))
        return np.asarray(block.reshape(-1, block.shape[-1]))

    def with_modes(self, specimen: Specimen, by_particle: F64) -> F64:
        """(3 B (F - 1), N M): a transition acts on all later tilts."""
        of_tilts = np.einsum("pb,pfia->bifa", specimen.basis, by_particle, optimize=True)
        tilts = of_tilts.shape[2]
        acts = (np.arange(tilts) > np.arange(tilts - 1)[:, None]) * specimen.step_px[:, None]
        block = np.einsum("bifa,mf->mbifa", of_tilts, acts, optimize=True)
        return self.laid_out(block).reshape(-1, self.own.shape[0])


def fixed_tilts(known: F64, free: Free) -> NDArray[np.bool_]:
    """(5 F,) parameters that are not fitted, and those of tilts that see nothing; `known` is their information."""
    return np.asarray(~np.tile(free.tilt, len(known) // 5) | (known <= 1e-12 * known.max(initial=0.0)))


def damped_particles(particle: F64, position_weight: float, damping: float) -> F64:
    """(P, 3, 3) with the prior, and something for particles that no image shows."""
    typical = max(float(np.trace(particle.sum(axis=0))) / max(1, 3 * len(particle)), 1e-12)
    diagonal = np.einsum("pii->pi", particle)
    return np.asarray(particle + (damping * diagonal + position_weight + 1e-9 * typical)[:, :, None] * np.eye(3))


class Solver:
    """Factorised normal equations with priors and damping."""

    def __init__(self, normal: NormalEquations, free: Free, damping: float = 0.0) -> None:
        self.normal, self.free = normal, free
        n_tilt, n = len(normal.conditions), len(normal.common)
        self.fixed = np.zeros(n, bool)
        self.fixed[:n_tilt] = fixed_tilts(np.diagonal(normal.common)[:n_tilt], free)
        self.blocks = damped_particles(normal.particle, normal.position_weight, damping)
        common = normal.common.copy()
        # few particles leave angles undetermined: enough to factorise, and far less than any evidence
        common[np.arange(n), np.arange(n)] += max(damping, UNDETERMINED) * np.diagonal(normal.common)
        common[np.arange(n_tilt, n), np.arange(n_tilt, n)] += 1.0  # the prior of modes and deformations
        if free.positions:
            self.inverse = np.linalg.inv(self.blocks)
            self.carried = np.matmul(self.inverse, normal.mixed)
            common -= np.tensordot(normal.mixed, self.carried, axes=((0, 1), (0, 1)))
            # the six rigid freedoms, in the scale of what they compete with
            strength = float(np.abs(np.diagonal(normal.common)[:n_tilt]).max(initial=1.0))
            common[:n_tilt, :n_tilt] += strength * normal.conditions @ normal.conditions.T
        common[self.fixed] = 0.0
        common[:, self.fixed] = 0.0
        common[self.fixed, self.fixed] = 1.0
        self.factor = cho_factor(common, lower=True, check_finite=False)

    def step(self, gradient: Gradient) -> tuple[F64, F64, F64, F64]:
        """Newton step: tilts (F, 5), particles (P, 3), coefficients (F - 1, B, 3), amplitudes (N, M)."""
        parts = (gradient.tilt, gradient.coefficients, gradient.amplitudes)
        right = np.concatenate([part.ravel() for part in parts])
        if self.free.positions:
            right = right - np.einsum("pic,pi->c", self.carried, gradient.particle)
        right[self.fixed] = 0.0
        common = cho_solve(self.factor, right, check_finite=False)
        particle = np.zeros_like(gradient.particle)
        if self.free.positions:
            left = gradient.particle - self.normal.mixed @ common
            particle = np.einsum("pij,pj->pi", self.inverse, left)
        tilt, modes, fields = self._parts(common, gradient.coefficients.shape[1])
        return tilt, particle, modes, fields

    def _parts(self, common: F64, modes: int) -> tuple[F64, F64, F64]:
        """Tilts (F, 5), coefficients (F - 1, B, 3) and amplitudes (N, M) of a vector of all of them."""
        n_tilt, n_fields = len(self.normal.conditions), int(np.prod(self.normal.fields))
        tilt, middle, fields = np.split(common, [n_tilt, len(common) - n_fields])
        return tilt.reshape(-1, 5), middle.reshape(n_tilt // 5 - 1, modes, 3), fields.reshape(self.normal.fields)

    def log_determinant(self) -> float:
        """Of everything that is free."""
        total = 2.0 * float(np.log(np.diagonal(self.factor[0])).sum())
        if self.free.positions:
            total += float(np.linalg.slogdet(self.blocks)[1].sum())
        return total

    def covariance(self) -> tuple[F64, F64, F64]:
        """Variances of the tilts (5 F,), covariance of the particles (P, 3, 3) and of amplitudes (N M, N M)."""
        n = len(self.fixed)
        common = cho_solve(self.factor, np.eye(n), check_finite=False)
        common[self.fixed] = 0.0
        common[:, self.fixed] = 0.0
        ahead = n - int(np.prod(self.normal.fields))
        tilts, fields = np.diagonal(common)[: len(self.normal.conditions)], common[ahead:, ahead:]
        if not self.free.positions:
            return tilts, np.zeros_like(self.blocks), fields
        return tilts, self.inverse + np.matmul(self.carried @ common, np.swapaxes(self.carried, 1, 2)), fields

    def draw(self, rng: np.random.Generator, modes: int) -> tuple[F64, F64, F64, F64]:
        """A step drawn from the Gaussian with this curvature, in the parts of `step`."""
        n = len(self.fixed)
        common = solve_triangular(self.factor[0], rng.normal(size=n), lower=True, trans="T", check_finite=False)
        common[self.fixed] = 0.0
        particle = np.zeros((len(self.blocks), 3))
        if self.free.positions:
            roots = np.linalg.cholesky(self.inverse)
            particle = np.einsum("pij,pj->pi", roots, rng.normal(size=particle.shape)) - self.carried @ common
        tilt, coefficients, fields = self._parts(common, modes)
        return tilt, particle, coefficients, fields
