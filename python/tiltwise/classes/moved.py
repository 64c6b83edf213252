"""Whether classes differ as the whole particle turned and shifted does: then they sort errors of poses.

Of poses that are off by a little the residual is, to first order, a sum of the six maps `dA/dx`, `dA/dy`, `dA/dz` and
`(r x grad A)_x,y,z` of the average A.  Classes of such particles differ by one sum of them.  What two half sets of a
class have in common beyond the average, D1 and D2, is compared with what it has along these six, P projecting on them:

    m = <P D1, P D2> / <D1, D2>

Noise is in neither product.  A domain that is there or not has next to nothing along them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiltwise.maps.spectra import joined_fsc
from tiltwise.spectral.fft import irfft3, rfft3
from tiltwise.spectral.fsc import fsc
from tiltwise.spectral.shells import spread

F64 = NDArray[np.float64]
Map = NDArray[np.float32]

MOST = 0.4
"""Share of a difference that moves explain from which on it is one of poses: of such classes 0.6 to 0.9 was measured,
of classes that lack a domain 0.05 at most."""
LAST_SHELL = 32
"""What is compared at most: moves show in the first shells already, and maps stay small."""
SEEN = 2.0
"""Standard deviations of noise by which half sets must agree on a difference."""


def moved_shares(halves: Sequence[tuple[Map, Map]], weights: F64, sphere: Map, shell: int) -> F64:
    """(K,) share m of the difference of every class from the average; 0 of one whose halves agree on none.

    Parameters
    ----------
    halves
        unfiltered half maps (N, N, N) of K classes
    weights
        (K,) shares of the classes
    sphere
        (N, N, N) where the particle is
    shell
        last that is looked at
    """
    size = len(sphere)
    inside = sphere > 0.5
    result = np.zeros(len(halves))
    if not (inside.any() and weights.sum() > 0):
        return result
    parts = weights / weights.sum()
    means = [np.sum([part * pair[i] for part, pair in zip(parts, halves, strict=True)], axis=0) for i in (0, 1)]
    # turns multiply noise at the rim by its radius: all maps are filtered as the average deserves
    gain = np.clip(joined_fsc(fsc(means[0], means[1], sphere)), 0.0, 1.0)
    gain[shell + 1 :] = 0.0
    filters = spread(gain, size, 3)

    def seen(density: NDArray[np.floating[Any]]) -> F64:
        return np.asarray(irfft3(rfft3(np.asarray(density, np.float64)) * filters, size), np.float64)

    filtered = [[seen(half) for half in pair] for pair in halves]
    means = [seen(mean) for mean in means]
    moves = np.stack([one[inside] for one in _moves(0.5 * (means[0] + means[1]))], axis=1)
    length = np.linalg.norm(moves, axis=0)
    moves = moves[:, length > 1e-6 * length.max(initial=0.0)]
    # turns of what has an axis are none, and all may be shifts in part
    basis, values, _ = np.linalg.svd(moves / np.linalg.norm(moves, axis=0), full_matrices=False)
    basis = basis[:, values > 1e-6]
    # real components up to the shell, those that the filter leaves
    freedom = float(inside.mean()) * 2.0 * float((filters > 0.5).sum())
    for k, pair in enumerate(filtered):
        first, second = ((half - mean)[inside] for half, mean in zip(pair, means, strict=True))
        common = float(first @ second)
        chance = float(np.linalg.norm(first) * np.linalg.norm(second)) / np.sqrt(max(freedom, 1.0))
        if weights[k] > 0 and common > SEEN * chance:
            result[k] = float((first @ basis) @ (second @ basis)) / common
    return result


def _moves(density: F64) -> list[F64]:
    """Change of a map (N, N, N) with a shift along x, y, z, and a turn about them."""
    size = len(density)
    transform = rfft3(density)
    full, half = 2j * np.pi * np.fft.fftfreq(size), 2j * np.pi * np.fft.rfftfreq(size)
    along = (half, full[:, None], full[:, None, None])
    dx, dy, dz = (np.asarray(irfft3(transform * one, size), np.float64) for one in along)
    axis = np.arange(size) - float(size // 2)
    z, y, x = axis[:, None, None], axis[:, None], axis
    return [dx, dy, dz, y * dz - z * dy, z * dx - x * dz, x * dy - y * dx]
