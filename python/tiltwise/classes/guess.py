"""First posteriors of classes from the places where particles differ most."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tiltwise.classes.mixture import cluster
from tiltwise.classes.particle_maps import plan, spectra, to_one_average, white_maps
from tiltwise.classes.residuals import FixedScores
from tiltwise.classes.windows import LEVELS, Level, Place, places
from tiltwise.spectral.filters import resample

F64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Particles:
    """Small maps of the particles that are looked at."""

    total: int
    members: NDArray[np.intp]
    """(n,) which of all they are"""
    folds: NDArray[np.int64]
    """(n,)"""
    levels: list[Level]
    threads: int

    @classmethod
    def of(
        cls,
        scores: FixedScores,
        mask: NDArray[np.float32],
        sphere: NDArray[np.float32],
        pixel_size: float,
        shell: int,
        symmetry: F64,
        used: NDArray[np.bool_],
        rng: np.random.Generator,
    ) -> Particles:
        """Of particles `used` (P,), which fill the `sphere`; classes may differ inside the `mask`, up to `shell`."""
        length = len(mask) * pixel_size
        chosen = plan(np.flatnonzero(used), length, shell, rng)
        folds = np.zeros(len(used), np.int64)
        for portion in scores.portions:
            folds[portion.members] = portion.fold
        share, own = np.bincount(folds) / len(folds), folds[chosen.members]
        transforms = spectra(scores, chosen, symmetry)
        levels = []
        for reach in sorted({max(1, round(level * chosen.reach)) for level in LEVELS}, reverse=True):
            size = 2 * reach + 1
            coarse = resample(mask, pixel_size, length / size, size)
            # a small mask may fill no voxel
            inside = coarse >= min(0.5, 0.99 * float(coarse.max()))
            maps = white_maps(transforms, reach, resample(sphere, pixel_size, length / size, size))
            to_one_average(maps, own, share)
            levels.append(Level.of(maps, inside, length / size, symmetry))
        return cls(len(used), chosen.members, own, levels, scores.residuals.threads)

    def first_guess(self, count: int, skip: int, rng: np.random.Generator) -> tuple[F64, list[Place]]:
        """(P, K) probabilities of `count` classes, and the places that tell them apart.

        `skip` is how many of the strongest differences are left out.  Without any place all classes are the same.
        Particles that are not looked at have no probability: they get theirs from the maps of the others.
        """
        found = places(self.levels, self.folds, max(count - 1, 1) + skip, self.threads)[skip:]
        if not found:
            return np.full((self.total, count), 1.0 / count), found
        weights = np.zeros((self.total, count))
        weights[self.members] = cluster(np.stack([place.scores for place in found], axis=1), count, rng)
        return weights, found
