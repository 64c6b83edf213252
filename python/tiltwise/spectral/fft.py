"""Fourier transforms of real images and volumes: unitary, half-complex, frequency zero at index 0.

Unitary means that the sum of squares over all pixels equals the sum of |X|^2 over the *full* plane, so
white noise of variance s^2 has E|X|^2 = s^2 in every component.  Half-complex arrays keep x = 0 .. N // 2.
`rfft2` and `rfft3` take the origin at index 0, the `centred_` forms at N // 2, for even and odd N.
Single precision stays single.  This is the only module that uses scipy.fft.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft as _fft

Real = NDArray[np.floating[Any]]
Complex = NDArray[np.complexfloating[Any, Any]]


def rfft2(images: Real, workers: int = 1) -> Complex:
    """Images `(..., N, N)`, origin at index 0 -> `(..., N, N // 2 + 1)`."""
    return np.asarray(_fft.rfft2(images, norm="ortho", workers=workers))


def irfft2(spectra: Complex, size: int, workers: int = 1) -> Real:
    """Inverse of `rfft2`; `size` is N, which the half-complex array does not tell."""
    return np.asarray(_fft.irfft2(spectra, s=(size, size), norm="ortho", workers=workers))


def rfft3(volumes: Real, workers: int = 1) -> Complex:
    """Volumes `(..., N, N, N)`, origin at index 0 -> `(..., N, N, N // 2 + 1)`."""
    return np.asarray(_fft.rfftn(volumes, axes=(-3, -2, -1), norm="ortho", workers=workers))


def irfft3(spectra: Complex, size: int, workers: int = 1) -> Real:
    """Inverse of `rfft3`; `size` is N."""
    return np.asarray(_fft.irfftn(spectra, s=(size, size, size), axes=(-3, -2, -1), norm="ortho", workers=workers))


def centred_fft2(images: Real, workers: int = 1) -> Complex:
    """Images `(..., N, N)` with their origin at pixel N // 2 -> `(..., N, N // 2 + 1)`."""
    return rfft2(np.fft.ifftshift(images, axes=(-2, -1)), workers)


def centred_ifft2(spectra: Complex, size: int, workers: int = 1) -> Real:
    """Inverse of `centred_fft2`."""
    return np.fft.fftshift(irfft2(spectra, size, workers), axes=(-2, -1))


def centred_fft3(volumes: Real, workers: int = 1) -> Complex:
    """Volumes `(..., N, N, N)` with their origin at voxel N // 2 -> `(..., N, N, N // 2 + 1)`."""
    return rfft3(np.fft.ifftshift(volumes, axes=(-3, -2, -1)), workers)


def centred_ifft3(spectra: Complex, size: int, workers: int = 1) -> Real:
    """Inverse of `centred_fft3`."""
    return np.fft.fftshift(irfft3(spectra, size, workers), axes=(-3, -2, -1))
