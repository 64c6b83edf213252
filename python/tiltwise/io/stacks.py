"""Particle images that were extracted before: 2D stacks and pseudo-subtomograms."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tiltwise.errors import DataError
from tiltwise.io.mrc import read_header, read_map
from tiltwise.model import OptimisationSet


def read_stack(optset: OptimisationSet, particle: int) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Visible tilts `(V,)` of a particle and their images `(V, N, N)`, centre at `N // 2`.

    Tilts that rlnTomoVisibleFrames hides may be absent from the stack (RELION) or present (Warp); the number
    of sections tells which.

    Raises
    ------
    DataError
        if there are no stacks, or their number of sections fits neither way.
    FormatError
        if the file is not a usable MRC file.
    """
    particles = optset.particles
    if not (optset.stacks_are_2d and particles.image_files):
        raise DataError(
            "particles have no 2D stacks",
            expected="rlnTomoSubTomosAre2DStacks 1 and rlnImageName",
            fix="take the particles.star that was written with the stacks",
        )
    series = next(s for s in optset.series if s.name == particles.tomogram[particle])
    visible = particles.visible[particle] if particles.visible else np.ones(series.n_tilts, np.bool_)
    tilts = np.flatnonzero(visible)
    path = particles.image_files[particle]
    header = read_header(path)
    sections, rows, columns = header.shape
    if sections not in (series.n_tilts, len(tilts)) or rows != columns:
        raise DataError(
            "a 2D stack does not fit its tilt series",
            where=f"{path} (particle {particles.name[particle]})",
            expected=f"square images of {len(tilts)} visible tilts, or of all {series.n_tilts}",
            found=f"{sections} images of {columns} x {rows} pixels",
            fix="use the tomogram set the stacks were extracted with",
        )
    data = np.memmap(path, header.dtype, "r", header.offset, header.shape)
    return tilts, np.array(data[tilts] if sections == series.n_tilts else data, dtype=np.float32)


@dataclass(frozen=True, slots=True)
class PseudoSubtomogram:
    """Sums over the tilts of one particle (Eqs. 8-10)."""

    data: NDArray[np.float32]
    """(N, N, N) CTF-weighted average in real space, centre at N // 2"""
    ctf2: NDArray[np.float32]
    """(N, N, N // 2 + 1) sum of squared CTF, FFT order, origin at index 0"""
    multiplicity: NDArray[np.float32] | None
    """(N, N, N // 2 + 1) number of tilts per voxel, same layout; None where the file has none"""
    pixel_size_angstrom: float
    """of `data`"""


def read_pseudo_subtomogram(optset: OptimisationSet, particle: int) -> PseudoSubtomogram:
    """Pseudo-subtomogram of a particle from its `_data.mrc` and `_weights.mrc`.

    The layout of the weights follows from their shape (x, y, z): `N/2+1, N, 2N` squared CTF, then
    multiplicity; `N/2+1, N, N` squared CTF alone; `N, N, N` squared CTF alone as a full cube with the origin
    at N // 2.

    Raises
    ------
    DataError
        if there are no pseudo-subtomograms, shapes do not fit, or a multiplicity is negative.
    FormatError
        if a file is not a usable MRC file.
    """
    particles = optset.particles
    if optset.stacks_are_2d or not (particles.image_files and particles.ctf_files):
        raise DataError(
            "particles have no pseudo-subtomograms",
            expected="rlnImageName and rlnCtfImage of 3D images",
            found="none",
            fix="take the particles.star that was written with them",
        )
    path, weights_path = particles.image_files[particle], particles.ctf_files[particle]
    data, pixel_size = read_map(path)
    size = data.shape[0]
    if data.shape != (size, size, size) or size % 2:
        raise DataError(
            "a pseudo-subtomogram is not an even cube",
            where=path,
            expected="N x N x N",
            found=f"{data.shape[::-1]}",
            fix="extract the particles anew with an even box",
        )
    header = read_header(weights_path)
    weights = np.array(np.memmap(header.path, header.dtype, "r", header.offset, header.shape), dtype=np.float32)
    multiplicity: NDArray[np.float32] | None = None
    half = size // 2 + 1
    if weights.shape == (2 * size, size, half):
        ctf2, multiplicity = weights[:size], weights[size:]
    elif weights.shape == (size, size, half):
        ctf2 = weights
    elif weights.shape == (size, size, size):
        ctf2 = _half_of_centred_cube(weights)
    else:
        raise DataError(
            "weights do not fit their pseudo-subtomogram",
            where=weights_path,
            expected=f"{half} x {size} x {2 * size}, {half} x {size} x {size} or {size} x {size} x {size} (x, y, z)",
            found=" x ".join(str(n) for n in weights.shape[::-1]),
            fix="extract the particles anew: image and weights are of different extractions",
        )
    for name, array, file in (("data", data, path), ("weights", weights, weights_path)):
        if not np.isfinite(array).all():
            raise DataError(
                f"{name} of a pseudo-subtomogram hold NaN or infinite values",
                where=file,
                fix="extract this particle anew, or take it out of the set",
            )
    if multiplicity is not None and float(multiplicity.min()) < 0:
        raise DataError(
            "a multiplicity is negative",
            where=weights_path,
            found=f"{float(multiplicity.min()):g}",
            fix="extract the particles anew: the file is damaged",
        )
    return PseudoSubtomogram(data, np.abs(ctf2), multiplicity, pixel_size)


def _half_of_centred_cube(cube: NDArray[np.float32]) -> NDArray[np.float32]:
    """Half-complex FFT order from a full cube with its origin at N // 2, which RELION reads at -k."""
    size = cube.shape[0]
    mirrored = (size // 2 - np.fft.fftfreq(size, 1.0 / size).astype(np.intp)) % size
    return np.ascontiguousarray(cube[np.ix_(mirrored, mirrored, mirrored[: size // 2 + 1])])
