"""First guess of classes: the largest differences between particles at given poses, without any reference.

The images of a particle are modelled as the average plus a few maps times numbers of its own (a linear model, of
which classes are the special case that the numbers take few values).  Maps and numbers are found in turn, as in the
power method: numbers from the scores of the maps, maps from residuals weighted by the numbers.  Every particle is
scored with maps made of other folds, so that none finds its own noise again; what is left beyond the unit variance of
the noise is real.  The numbers of the strongest directions are then divided into clusters.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from tiltwise.classes.differences import ClassSums, Differences
from tiltwise.classes.mixture import cluster
from tiltwise.classes.residuals import FixedScores
from tiltwise.kernels.api import C64
from tiltwise.maps.volumes import reference_volume, shell_means
from tiltwise.spectral.fft import rfft3
from tiltwise.spectral.shells import half_weights, spread

F64 = NDArray[np.float64]

ROUNDS = 12
MORE = 1
"""Directions beyond those that are needed: the others then converge faster."""
LIKELY = 0.02
"""Power of a difference over that of the average, in every shell: what is looked for before anything is known."""


def first_guess(
    scores: FixedScores,
    differences: Callable[[ClassSums], Differences],
    empty_sums: Callable[[], ClassSums],
    real: F64,
    signal: F64,
    count: int,
    rng: np.random.Generator,
) -> tuple[F64, F64]:
    """(P, K) probabilities of `count` classes and (J,) variance of the scores along J directions, 1 being noise.

    `real` (P,) is the probability that a position holds a particle at all; `signal` (N // 2 + 1,) the share of signal
    in the average, which tells where differences can be seen.
    """
    particles, directions = len(real), count - 1 + MORE
    numbers = rng.standard_normal((particles, directions))
    used = real > 0.5
    ratio = LIKELY * signal / (1.0 - signal)
    least = ratio / (1.0 + ratio)
    for _ in range(ROUNDS):
        numbers = numbers * real[:, None]
        sums = empty_sums()
        box = len(differences(sums).mask)
        scores.sums(numbers, numbers**2, box, sums.add)
        maps = differences(sums)
        solved = [maps.solve(j, np.maximum(maps.share(j), least)) for j in range(directions)]

        def volumes(
            fold: int, solved: list[tuple[dict[int, NDArray[np.float32]], NDArray[np.float32]]] = solved
        ) -> list[C64]:
            return [reference_volume(folds[fold]) for folds, _ in solved]

        cross, quadratic = scores.score(volumes, directions)
        # noise of the cross terms: half of what two maps have in common, over the noise power of a particle
        common = _correlations([total for _, total in solved], shell_means(sums.total(0)))
        width = np.sqrt(np.maximum(0.5 * quadratic.mean(axis=0), 1e-30))
        root = np.linalg.cholesky(common * np.outer(width, width))
        whitened = np.linalg.solve(root, cross.T).T
        centred = whitened - whitened[used].mean(axis=0)
        left, size, _ = np.linalg.svd(centred * real[:, None], full_matrices=False)
        # signs are those of the largest number, whatever the library makes of them
        left *= np.sign(left[np.abs(left).argmax(axis=0), np.arange(directions)])
        numbers = left * np.sqrt(particles)
        strength = size**2 / max(used.sum(), 1)
    kept = max(count - 1, 1)
    return cluster((left * size)[:, :kept], count, rng), strength


def _correlations(maps: list[NDArray[np.float32]], weight: F64) -> F64:
    """(J, J) correlations `sum W Re D_i* D_j` of maps (N, N, N) with weights per shell; not quite singular."""
    size = len(maps[0])
    metric = np.sqrt(half_weights(size) * spread(weight, size, 3))
    flat = np.stack([(rfft3(np.asarray(one, np.float64)) * metric).ravel().view(np.float64) for one in maps])
    flat /= np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-30)
    return np.asarray(flat @ flat.T * (1.0 - 1e-6) + 1e-6 * np.eye(len(flat)))
