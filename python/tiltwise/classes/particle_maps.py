"""Small maps of single particles: residuals back-projected, coarse, and white.

What a difference D between particles explains of a residual is `Re<D, b>` to first order, b being the images of the
residual inserted at their slices.  Divided by the square root of their mean power, shell by shell, these maps have
noise of unit variance that is independent from voxel to voxel on average over particles: places can be compared, and
numbers of voxels are numbers of degrees of freedom.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from tiltwise.classes.residuals import PADDING, FixedScores, Residuals
from tiltwise.exec.threads import ordered_map
from tiltwise.maps.volumes import Accumulator, gridding_correction
from tiltwise.spectral.fft import central_irfft3, centred_fft3, centred_ifft3, fast_length
from tiltwise.spectral.shells import shell_indices

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

FINEST = 20.0
"""Å, resolution along each axis of the finest maps: a domain of 10 kDa is some voxels wide."""
MOST, FEWEST = 4000, 1000
"""Particles that are looked at, at most; where fewer would fit into memory maps are coarser."""
BYTES = 400_000_000
"""Of the maps; not an option, so that results do not depend on it."""
COPIES = 3
"""Of the maps at most, while they are made."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Which particles are looked at, how finely."""

    reach: int
    """h: components up to ±h along each axis are kept, of maps of 2 h + 1 voxels"""
    members: NDArray[np.intp]
    """(n,) particles, ascending"""

    @property
    def size(self) -> int:
        """Voxels along a side of the maps."""
        return 2 * self.reach + 1

    @property
    def box(self) -> int:
        """Voxels of the box in which residuals are inserted: its shells hold the corners of the cube."""
        return fast_length(2 * (int(np.ceil(np.sqrt(3.0) * self.reach)) + 2))


def plan(particles: NDArray[np.intp], length_angstrom: float, shell: int, rng: np.random.Generator) -> Plan:
    """For maps of boxes `length_angstrom` wide, of some of `particles`; `shell` is the last that is compared."""
    reach, most = sizes(len(particles), length_angstrom, shell)
    chosen = particles if most == len(particles) else np.sort(rng.choice(particles, most, replace=False))
    return Plan(reach, chosen)


def sizes(count: int, length_angstrom: float, shell: int) -> tuple[int, int]:
    """Reach of the maps, and of how many of `count` particles there are any."""
    reach = max(1, min(round(length_angstrom / FINEST), int(shell / np.sqrt(3.0))))
    least = min(count, FEWEST)
    while reach > 1 and least * map_bytes(reach) > BYTES:
        reach -= 1
    return reach, min(count, MOST, max(least, BYTES // map_bytes(reach)))


def map_bytes(reach: int) -> int:
    """Memory of one map."""
    return 4 * (2 * reach + 1) ** 3


def memory_bytes(count: int, length_angstrom: float, shell: int) -> int:
    """What the first guess takes of memory."""
    reach, most = sizes(count, length_angstrom, shell)
    return COPIES * most * map_bytes(reach)


def spectra(scores: FixedScores, chosen: Plan, symmetry: F64) -> NDArray[np.complex64]:
    """(n, S, S, S // 2 + 1) transforms of the back-projected residuals, symmetrised; every component once."""
    images = scores.residuals
    backend, disc = images.backend, images.images.disc
    count = min(images.count, disc.count(np.sqrt(3.0) * chosen.reach + 1.0))
    frequencies = disc.frequencies3d(count)
    result = np.zeros((len(chosen.members), chosen.size, chosen.size, chosen.reach + 1), np.complex64)
    row_of = {int(member): i for i, member in enumerate(chosen.members)}
    h, box = chosen.reach, chosen.box
    kept = np.concatenate([np.arange(h + 1), np.arange(box - h, box)])
    correction = gridding_correction(box, PADDING * box)

    def one(found: Residuals, i: int) -> NDArray[np.complex64]:
        rows = slice(found.starts[i], found.starts[i + 1] if i + 1 < len(found.starts) else None)
        sums = Accumulator.empty(box, PADDING)
        data, power = np.ascontiguousarray(found.scored[rows, :count]), np.ascontiguousarray(found.power[rows, :count])
        for operator in symmetry:
            matrices = np.ascontiguousarray(operator.astype(np.float32) @ found.matrices[rows])
            backend.insert(data, power, matrices, frequencies, sums.padded // 2, sums.data, sums.weight, threads=1)
        density = central_irfft3(sums.complete().data, sums.padded, box, norm="backward") / correction
        return np.asarray(centred_fft3(density)[np.ix_(kept, kept, kept[: h + 1])], np.complex64)

    for number, portion in enumerate(scores.portions):
        scores.check_abort()
        wanted = [i for i, member in enumerate(portion.members) if int(member) in row_of]
        if not wanted:
            continue
        found = images(number, portion)
        # each thread holds a volume: results do not depend on how many
        made = ordered_map(partial(one, found), wanted, images.threads)
        for i, spectrum in zip(wanted, made, strict=True):
            result[row_of[int(portion.members[i])]] = spectrum
    return result


def white_maps(transforms: NDArray[np.complex64], reach: int, particle: NDArray[np.float32]) -> F32:
    """(n, R, R, R) maps of R = 2 `reach` + 1 voxels, origin at voxel `reach`, from transforms of maps at least as fine.

    Their components have equal mean power in every shell but the first, which has none.  Voxels of the `particle`,
    (R, R, R) above 0.5, have unit variance over the particles, that is their median: images are masked, and have less
    noise elsewhere.
    """
    size = 2 * reach + 1
    full = transforms.shape[1]
    kept = np.concatenate([np.arange(reach + 1), np.arange(full - reach, full)])
    shells = shell_indices(size, 3)
    corner = np.ix_(kept, kept, kept[: reach + 1])
    power = np.zeros(shells.shape)
    for one in transforms:
        power += np.abs(one[corner]) ** 2
    mean = np.bincount(shells.ravel(), power.ravel()) / np.maximum(np.bincount(shells.ravel()), 1)
    gain = np.where(mean > 0, np.sqrt(len(transforms) / np.where(mean > 0, mean, 1.0)), 0.0)
    gain[0] = 0.0
    weights = gain[shells].astype(np.float32)
    maps = np.stack([np.asarray(centred_ifft3(one[corner] * weights, size), np.float32) for one in transforms])
    inside = particle > 0.5
    noise = float(np.median(maps[:, inside].var(axis=0))) if inside.any() else 1.0
    return maps / np.float32(np.sqrt(noise if noise > 0 else 1.0))


def to_one_average(maps: F32, folds: NDArray[np.int64], share: F64) -> None:
    """Makes maps (n, ...) relative to the average of all, in place, that are relative to those without own `folds`.

    `share` (F,) of all particles are in a fold.  Noise of an average is common to the particles of its fold, and
    opposite to what these have: in thousands of voxels folds would differ as classes do.
    """
    for fold in np.unique(folds):
        own = folds == fold
        maps[own] -= np.float32(share[fold]) * maps[own].mean(axis=0)
