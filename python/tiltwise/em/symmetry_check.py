"""Does the particle have the symmetry that was applied?  Half maps in which particles may choose among mates.

Under symmetry the poses `R g` of a particle are equal, and which one is kept is arbitrary: a map without symmetry from
such poses looks symmetric whatever the particle is.  So the symmetry is relaxed.  Every particle starts at a mate drawn
at random; then in turns those of half of a half set take mates with their posterior under the unsymmetrised map of the
other half, where their own noise is not.  What has the symmetry stays undecided; what has not breaks it.  The half sets
do this without each other, so noise breaks the symmetry in different ways, and the particle in the same way up to a
rotation of the group: the correlation between half sets of what symmetrising takes away tells.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tiltwise.em.likelihood import Scorer
from tiltwise.em.maximisation import Maximiser, PosteriorPoses
from tiltwise.em.settings import Group
from tiltwise.exec.threads import ordered_map
from tiltwise.kernels.api import F32, Backend
from tiltwise.maps.spectra import half_maps, prior_from_fsc
from tiltwise.maps.volumes import Accumulator, reference_volume, solve_map
from tiltwise.maps.whitening import WhitenedImages, whiten
from tiltwise.spectral.components import FourierComponents
from tiltwise.spectral.fsc import fsc, fsc_of_transforms
from tiltwise.spectral.shells import shell_counts

F64 = NDArray[np.float64]

MOST_PARTICLES, LEAST_PARTICLES, MOST_MATES = 400, 100, 3000
"""Of each half set, and particles times mates: what so many cannot tell is no reason for a warning."""
ROUNDS = 6
MOST_SHELLS = 32
LEAST_WEIGHT = 1e-3
"""Posterior of a mate below which its images are not inserted."""
LEAST_CORRELATION = 0.15
"""Mean FSC up to some shell from which on symmetry counts as broken: less may come from interpolation."""
SIGMAS = 5.0
"""Standard deviations of noise that this mean must reach as well.  Symmetric particles: up to 3.8 in 16 data sets."""
FIRST_SHELL = 2
TOGETHER = 16
PADDING = 2


@dataclass(frozen=True, slots=True)
class SymmetryCheck:
    """What symmetrising takes away, compared between the half sets."""

    particles: int
    """in each half set"""
    symmetric: F64
    """(N // 2 + 1,) FSC of what has the symmetry"""
    rest: F64
    """(N // 2 + 1,) FSC of what has not, after the rotation of the group that fits best"""
    shells: int
    """last shell that was compared"""
    sigma: F64
    """(N // 2 + 1,) standard deviation of the FSC of noise"""
    to_shell: int
    """the mean of `rest` from `FIRST_SHELL` to here is farthest from noise; components, not shells, weigh the same"""
    mean: float
    sigmas: float
    """this mean in standard deviations of noise"""

    @property
    def broken(self) -> bool:
        """Whether the particle does not have the symmetry."""
        return self.mean >= LEAST_CORRELATION and self.sigmas >= SIGMAS

    @property
    def found(self) -> str:
        """The numbers in words."""
        return f"mean FSC {self.mean:.2f} to shell {self.to_shell}, {self.sigmas:.1f} standard deviations of noise"

    def words(self, name: str) -> str:
        """Warning about the broken point group `name`."""
        return (
            f"the particle does not look as if it had the symmetry {name}: what symmetrising takes away agrees between "
            f"the half sets ({self.found}); refine with --sym C1 and compare"
        )


@dataclass(slots=True)
class SymmetryRelaxation:
    """Relaxes the symmetry of half sets of particles with known poses, and compares them."""

    backend: Backend
    disc: FourierComponents
    pixel_size: float
    symmetry: F64
    """(G, 3, 3)"""
    mask: NDArray[np.float32]
    """(N, N, N)"""
    shells: int
    """used of maps and images: those in which the half maps agree"""
    threads: int
    seed: int

    def run(self, groups: Mapping[int, Sequence[Group]]) -> SymmetryCheck:
        """Check of half sets 1 and 2, whose members have their final poses."""
        relaxed = [self._relaxed(groups[half], np.random.default_rng([self.seed, half])) for half in (1, 2)]
        first, second, _ = half_maps(relaxed[0][0], relaxed[1][0])
        # inside a mask a shell has fewer independent components than voxels
        square = self.mask.astype(np.float64) ** 2
        share = square.sum() ** 2 / (square**2).sum() / square.size
        sigma = 1.0 / np.sqrt(share * shell_counts(self.disc.box, 3))
        symmetric, rests = self._compared(first, second)
        found = [_strongest(rest, sigma, self.shells) for rest in rests]
        best = max(range(len(rests)), key=lambda g: found[g][2])
        return SymmetryCheck(min(n for _, n in relaxed), symmetric, rests[best], self.shells, sigma, *found[best])

    def _relaxed(self, groups: Sequence[Group], rng: np.random.Generator) -> tuple[Accumulator, int]:
        """Completed sums of one half set after relaxation, and the number of its particles that took part."""
        before = np.concatenate([[0], np.cumsum([len(group.members) for group in groups])])
        most = min(MOST_PARTICLES, max(LEAST_PARTICLES, MOST_MATES // len(self.symmetry)))
        every = max(1, -(-int(before[-1]) // most))
        taken = [
            np.arange(-start % every, len(group.members), every) for start, group in zip(before, groups, strict=False)
        ]
        firsts = np.cumsum([0, *(len(rows) for rows in taken)])
        sums = [Accumulator.empty(self.disc.box, PADDING) for _ in range(2)]
        for step in range(2 * ROUNDS):
            # in turns: both at once would follow each other in circles
            own = step % 2
            scorer = None if step == 0 else self._scorer(sums[1 - own], sums[own] if step > 1 else sums[1 - own])
            sums[own] = Accumulator.empty(self.disc.box, PADDING)
            for group, rows, first in zip(groups, taken, firsts, strict=False):
                # every second particle of all series together: a series may have one
                self._add(group, rows[(own - first) % 2 :: 2], scorer, sums[own], rng)
            sums[own].complete()
        return sums[0] + sums[1], sum(len(rows) for rows in taken)

    def _scorer(self, reference: Accumulator, other: Accumulator) -> Scorer:
        """Of the map of one set, with the prior that its agreement with the other set implies."""
        curve = fsc(*half_maps(reference, other)[:2], self.mask)
        density = solve_map(reference, prior_from_fsc(reference, curve), self.shells) * self.mask
        return Scorer(self.backend, reference_volume(density, PADDING), float(PADDING), self.threads)

    def _add(
        self,
        group: Group,
        rows: NDArray[np.intp],
        scorer: Scorer | None,
        sums: Accumulator,
        rng: np.random.Generator,
    ) -> None:
        """Particles `rows` of a group at their mates; at one drawn by chance where there is no map."""
        count = self.disc.count(float(self.shells))
        of_no_map = Scorer(self.backend, np.zeros((1, 1, 1), np.complex64), float(PADDING), self.threads)
        maximiser = Maximiser(of_no_map, self.disc, self.pixel_size, group.series, group.noise_power, sums, None)
        for start in range(0, len(rows), TOGETHER):
            part = rows[start : start + TOGETHER]
            for row, raw in zip(part, ordered_map(group.load, [int(r) for r in part], self.threads), strict=True):
                image = whiten(raw, self.disc, group.noise_power, count)
                mates = group.rotations[row] @ self.symmetry
                if scorer is None:
                    weights = np.eye(len(mates), dtype=np.float32)[rng.integers(len(mates))]
                else:
                    weights = self._weights(scorer, group, image, mates)
                kept = weights > LEAST_WEIGHT
                maximiser.add(image, raw, PosteriorPoses(mates[kept], weights[kept][:, None], np.zeros((1, 3))))

    def _weights(self, scorer: Scorer, group: Group, image: WhitenedImages, mates: F64) -> F32:
        """(G,) posterior of the mates."""
        phases = np.ones((1, len(image.score_image)), np.complex64)
        frequencies = self.disc.frequencies3d(self.disc.count(float(self.shells)))
        cross, quadratic = scorer.terms(group.series, image, mates, phases, frequencies)
        log = 2.0 * cross[:, 0] - quadratic
        weights = np.exp(log - log.max())
        return np.asarray(weights / weights.sum(), dtype=np.float32)

    def _compared(self, first: NDArray[np.float32], second: NDArray[np.float32]) -> tuple[F64, list[F64]]:
        """FSC of the symmetric parts of two maps, and of the rest at every rotation of the group."""
        size, n = 2 * (self.shells + 1), self.disc.box // 2 + 1
        one, other = (self._turned(density, size) for density in (first, second))
        means = one.mean(axis=0), other.mean(axis=0)

        def curve(a: NDArray[np.complex64], b: NDArray[np.complex64]) -> F64:
            return np.concatenate([fsc_of_transforms(a, b, size)[:-1], np.zeros(n - size // 2)])

        return curve(*means), [curve(one[0] - means[0], turned - means[1]) for turned in other]

    def _turned(self, density: NDArray[np.float32], size: int) -> NDArray[np.complex64]:
        """(G, M, M, M // 2 + 1) transforms of a map in all orientations of the group, M the `size` of a smaller box."""
        volume = reference_volume(density * self.mask, PADDING)
        axis = np.fft.fftfreq(size, 1.0 / size)
        grid = np.stack(np.meshgrid(axis, axis, np.arange(size // 2 + 1), indexing="ij"), axis=-1)[..., ::-1]
        points = np.ascontiguousarray(grid.reshape(-1, 3), dtype=np.float32)
        matrices = np.ascontiguousarray(PADDING * self.symmetry, dtype=np.float32)
        limit = volume.shape[0] // 2
        turned = self.backend.project(volume, matrices, points, limit, threads=self.threads)
        return turned.reshape(-1, *grid.shape[:3])


def _strongest(curve: F64, sigma: F64, shells: int) -> tuple[int, float, float]:
    """Shell to which the mean of an FSC is farthest above noise, that mean, and how many standard deviations it is."""
    weight = 1.0 / sigma[FIRST_SHELL : shells + 1] ** 2
    total = np.cumsum(weight)
    mean = np.cumsum(curve[FIRST_SHELL : shells + 1] * weight) / total
    z = mean * np.sqrt(total)
    last = int(np.argmax(np.where(mean >= LEAST_CORRELATION, z, z - 1e3)))
    return FIRST_SHELL + last, float(mean[last]), float(z[last])
