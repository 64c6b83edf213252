"""Value, gradient and curvature of the likelihood of single images (Eq. 4) or 3D arrays (Eq. 7'), in float64."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tiltwise.kernels.reference.slices import samples


def curvature(
    volume: NDArray[np.complexfloating],
    matrices: NDArray[np.floating],
    frequencies: NDArray[np.floating],
    radius: float,
    images: NDArray[np.complexfloating],
    powers: NDArray[np.floating],
    rows: NDArray[np.integer],
    slopes: NDArray[np.floating],
    *,
    threads: int = 0,
) -> NDArray[np.float64]:
    """See `tiltwise.kernels.api.Backend.curvature`."""
    flat = volume.astype(np.complex128).ravel()
    found = samples(volume.shape[0], matrices, frequencies, radius)
    value = np.zeros(found.fold.shape, np.complex128)
    gradient = np.zeros((*value.shape, 3), np.complex128)
    for corner, index in found.index.items():
        shares, voxel = found.shares(corner), flat[index]
        value += shares.prod(axis=-1) * voxel
        for axis in range(3):
            sign = 1.0 if corner[axis] else -1.0
            gradient[..., axis] += sign * np.delete(shares, axis, axis=-1).prod(axis=-1) * voxel
    # V(-p) = conj V(p), so the gradient at -p is -conj of that at p
    value = np.where(found.fold, value.conj(), value)
    gradient = np.where(found.fold[..., None], -gradient.conj(), gradient)

    axes = slopes.shape[1]
    upper = np.triu_indices(3 + axes)
    result = np.zeros((len(matrices), 5 + axes + len(upper[0])))
    k = frequencies.astype(np.float64)
    for i, row in enumerate(result):
        used, source = found.inside[i], rows[i]
        y = images[source, : len(k)][used] * np.exp(1j * k[used, :axes] @ slopes[i].astype(np.float64))
        b, v = powers[source, : len(k)][used].astype(np.float64), value[i, used]
        turns = np.cross(gradient[i, used] @ matrices[i].astype(np.float64), k[used])
        derivatives = np.concatenate([turns, -1j * k[used, :axes] * v[:, None]], axis=1)
        row[0] = (v.conj() * y).real.sum()
        row[1] = (b * np.abs(v) ** 2).sum()
        row[2 : 5 + axes] = (derivatives.conj() * (y - b * v)[:, None]).real.sum(axis=0)
        full = np.einsum("ka,k,kb->ab", derivatives.conj(), b, derivatives).real
        row[5 + axes :] = full[upper]
    return result
