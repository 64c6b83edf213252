"""Pseudo-subtomograms: the tilt images of one particle summed in its own Fourier space (Eqs. 8-10).

    D(g) = sum_f l C_f X_f     W(g) = sum_f l C_f^2     M(g) = sum_f l

over the pixels of all visible tilts, l being the trilinear share that a pixel has in voxel g.  Nothing is divided.
C includes radiation damage; pixels whose damage weight is at most the cut-off contribute to none of the sums.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from tiltwise.extract.ctf_plan import column_limits
from tiltwise.extract.images import ImageExtractor, Prediction, refuse_unless_visible
from tiltwise.io.stacks import PseudoSubtomogram
from tiltwise.spectral.fft import centred_ifft3, rfft2


@dataclass(frozen=True, slots=True)
class _Slices:
    """Independent Fourier pixels of F premultiplied images, one of every conjugate pair."""

    tilts: NDArray[np.intp]
    frequencies: NDArray[np.int64]
    """(K, 2) kx, ky in cycles per image"""
    data: NDArray[np.complex64]
    """(F, K) C X"""
    ctf2: NDArray[np.float32]
    """(F, K) C^2"""
    used: NDArray[np.bool_]
    """(F, K) pixels with signal left"""
    size: int
    """pixels of the images the frequencies belong to"""


def pseudo_subtomogram(
    extractor: ImageExtractor,
    position_px: NDArray[np.float64],
    motion_px: NDArray[np.float64] | None,
    frame: NDArray[np.float64],
    *,
    cutoff_fraction: float = 0.01,
    relion_compatible: bool = True,
    remove: Prediction | None = None,
) -> PseudoSubtomogram:
    """Pseudo-subtomogram of one particle, N = crop of the extractor, at its binned pixel size.

    Parameters
    ----------
    position_px, motion_px
        position (3,) in the tomogram and its displacement (F, 3) in every tilt, unbinned pixels; None without
        motion, which moves the images but not the defocus.
    frame
        (3, 3) rotation from the frame of the pseudo-subtomogram into the tomogram, A_sub or A_sub A_part.
    cutoff_fraction
        pixels with a radiation damage weight of at most this are left out.
    relion_compatible
        True reproduces RELION-5: slices are Fourier transforms of the whole masked box, b / c times finer than the
        grid of the sums; l carries the area (c / b)^2 of a pixel, or |u| |v| for matrices that are not rigid; data
        are scaled by b / (c sqrt(binning)); and the pixel at frequency zero, its own mate, counts twice.  The sums
        then take (b / c)^2 times more samples, whose noise is correlated.
        False crops images to c x c *before* their transform: samples are independent and (b / c)^2 times fewer, l
        is the bare share, frequency zero counts once, and M is the number of samples.  The unitary transform of
        `data` is then D itself, D = sqrt(N) W V for the unitary transform V of the map whose line sums are the
        images.
    remove
        what is subtracted from the images.

    Returns
    -------
    Data (N, N, N) float32 in real space with the centre at N // 2; W and M (N, N, N // 2 + 1) float32.

    Raises
    ------
    DataError
        if the particle lies outside every tilt image, or a pixel is NaN or infinite.
    """
    crop = extractor.window.crop
    cut = _box_slices if relion_compatible else _cropped_slices
    slices = cut(extractor, position_px, motion_px, cutoff_fraction, remove)
    refuse_unless_visible(slices.tilts, position_px, crop * extractor.pixel_size, extractor.series.name)
    step = crop / slices.size
    forward = step * extractor.series.projection[slices.tilts, :3, :3] @ frame
    # kappa = a A^T R_f^T (kx, ky, 0): the first two rows of a R_f A, weighted.
    kappa = np.einsum("ki,fij->fkj", slices.frequencies.astype(np.float64), forward[:, :2])
    if relion_compatible:
        area = np.linalg.norm(forward[:, 0], axis=-1) * np.linalg.norm(forward[:, 1], axis=-1)
        mass = np.broadcast_to(area[:, None], slices.used.shape)
        scale = slices.size / (crop * np.sqrt(extractor.binning))
    else:
        # Frequency zero is its own conjugate mate, so `_insert` adds it twice.
        mass = np.broadcast_to(np.where(slices.frequencies.any(axis=1), 1.0, 0.5), slices.used.shape)
        scale = 1.0
    used = slices.used
    data, ctf2, multiplicity = _insert(kappa[used], slices.data[used], slices.ctf2[used], mass[used], crop)
    return PseudoSubtomogram(
        data=(scale * centred_ifft3(data, crop)).astype(np.float32),
        ctf2=ctf2.astype(np.float32),
        multiplicity=multiplicity.astype(np.float32),
        pixel_size_angstrom=extractor.pixel_size,
    )


def _box_slices(
    extractor: ImageExtractor,
    position_px: NDArray[np.float64],
    motion_px: NDArray[np.float64] | None,
    cutoff_fraction: float,
    remove: Prediction | None,
) -> _Slices:
    """Slices of the whole extraction box, zero outside the circle."""
    window = extractor.window
    tilts, spectra, ctf = extractor.transforms(position_px, motion_px, remove=remove)
    padded = np.zeros((len(tilts), window.box, window.box), np.float32)
    padded[:, window.index[:, None], window.index] = extractor.premultiplied(spectra, ctf)
    limits = column_limits(extractor.box_plan, window.box, cutoff_fraction)[tilts]
    column = np.arange(window.box // 2 + 1)
    used = column < limits[:, :, None]
    # One of every conjugate pair: negative ky start at kx = 1.
    used[:, window.box // 2 :, 0] = False
    rows, columns = np.nonzero(used.any(axis=0))
    ky = np.where(rows < window.box // 2, rows, rows - window.box)
    return _Slices(
        tilts=tilts,
        frequencies=np.stack([columns, ky], axis=1),
        data=rfft2(padded)[:, rows, columns],
        ctf2=ctf[:, rows, columns] ** 2,
        used=used[:, rows, columns],
        size=window.box,
    )


def _cropped_slices(
    extractor: ImageExtractor,
    position_px: NDArray[np.float64],
    motion_px: NDArray[np.float64] | None,
    cutoff_fraction: float,
    remove: Prediction | None,
) -> _Slices:
    """Slices of the images cropped to the size of the pseudo-subtomogram."""
    tilts, spectra, ctf = extractor.transforms(position_px, motion_px, remove=remove)
    disc = extractor.disc
    return _Slices(
        tilts=tilts,
        frequencies=disc.frequencies,
        data=disc.take(rfft2(extractor.premultiplied(spectra, ctf))),
        ctf2=extractor.disc_plan.evaluate(extractor.depth_defocus(position_px, tilts), tilts) ** 2,
        used=extractor.disc_plan.damage[tilts] > cutoff_fraction,
        size=disc.box,
    )


def _insert(
    kappa: NDArray[np.float64],
    data: NDArray[np.complex64],
    ctf2: NDArray[np.float32],
    mass: NDArray[np.float64],
    size: int,
) -> tuple[NDArray[np.complex128], NDArray[np.float64], NDArray[np.float64]]:
    """Trilinear sums of n samples at `kappa` (n, 3) into (size, size, size // 2 + 1) arrays, in float64."""
    half = size // 2
    shape = (size, size, half + 1)
    mirrored = kappa[:, 0] < 0
    kappa = np.where(mirrored[:, None], -kappa, kappa)
    data = np.where(mirrored, data.conj(), data)
    base = np.floor(kappa).astype(np.int64)
    fraction = kappa - base
    sums = np.zeros((4, size * size * (half + 1)))
    for corner in product((0, 1), repeat=3):
        voxel = base + corner
        inside = (voxel[:, 0] <= half) & ((voxel[:, 1:] >= -half) & (voxel[:, 1:] < half)).all(axis=1)
        share = mass * np.where(corner, fraction, 1.0 - fraction).prod(axis=1)
        x, y, z = voxel[inside].T
        index = (z % size * size + y % size) * (half + 1) + x
        share = share[inside]
        for total, values in zip(sums, (data.real, data.imag, ctf2, None), strict=True):
            total += np.bincount(index, share if values is None else share * values[inside], len(total))
    real, imaginary, weight, multiplicity = (total.reshape(shape) for total in sums)
    spectrum = real + 1j * imaginary
    # The plane x = 0 holds both mates of every pair.  Rows at -size/2 are their own mirror image.
    for volume in (spectrum, weight, multiplicity):
        plane = volume[:, :, 0]
        opposite = -np.arange(size) % size
        volume[:, :, 0] = plane + plane[np.ix_(opposite, opposite)].conj()
    return spectrum, weight, multiplicity
