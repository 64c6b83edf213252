"""Fourier transforms of real images and volumes: unitary, half-complex, frequency zero at index 0.

Unitary means that the sum of squares over all pixels equals the sum of |X|^2 over the *full* plane, so
white noise of variance s^2 has E|X|^2 = s^2 in every component.  (`norm="backward"` puts the whole factor
1 / N^d into the inverse, for reference volumes; `norm="forward"` into the forward transform.)  Half-complex
arrays keep x = 0 .. N // 2.  `rfft2` and `rfft3` take the origin at index 0, the `centred_` forms at N // 2,
for even and odd N.  Single precision stays single.  This is the only module that uses scipy.fft.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import fft as _fft

Norm = Literal["ortho", "backward", "forward"]

_AXES2, _AXES3 = (-2, -1), (-3, -2, -1)


def rfft2(images: NDArray[Any], workers: int = 1, norm: Norm = "ortho") -> NDArray[Any]:
    """Images `(..., N, N)`, origin at index 0 -> `(..., N, N // 2 + 1)`; sides may differ."""
    return np.asarray(_fft.rfftn(images, axes=_AXES2, norm=norm, workers=workers))


def irfft2(spectra: NDArray[Any], size: int | tuple[int, int], workers: int = 1, norm: Norm = "ortho") -> NDArray[Any]:
    """Inverse of `rfft2`; `size` is N, which the half-complex array does not tell, or (rows, columns)."""
    shape = size if isinstance(size, tuple) else (size, size)
    return np.asarray(_fft.irfftn(spectra, s=shape, axes=_AXES2, norm=norm, workers=workers))


def fast_length(n: int) -> int:
    """Smallest even number from n on whose transforms are fast."""
    return 2 * int(_fft.next_fast_len((n + 1) // 2, real=True))


def rfft3(volumes: NDArray[Any], workers: int = 1, norm: Norm = "ortho") -> NDArray[Any]:
    """Volumes `(..., N, N, N)`, origin at index 0 -> `(..., N, N, N // 2 + 1)`."""
    return np.asarray(_fft.rfftn(volumes, axes=_AXES3, norm=norm, workers=workers))


def irfft3(spectra: NDArray[Any], size: int, workers: int = 1, norm: Norm = "ortho") -> NDArray[Any]:
    """Inverse of `rfft3`; `size` is N."""
    return np.asarray(_fft.irfftn(spectra, s=(size,) * 3, axes=_AXES3, norm=norm, workers=workers))


def centred_fft2(images: NDArray[Any], workers: int = 1, norm: Norm = "ortho") -> NDArray[Any]:
    """Images `(..., N, N)` with their origin at pixel N // 2 -> `(..., N, N // 2 + 1)`."""
    return rfft2(np.fft.ifftshift(images, axes=_AXES2), workers, norm)


def centred_ifft2(spectra: NDArray[Any], size: int, workers: int = 1, norm: Norm = "ortho") -> NDArray[Any]:
    """Inverse of `centred_fft2`."""
    return np.fft.fftshift(irfft2(spectra, size, workers, norm), axes=_AXES2)


def centred_fft3(volumes: NDArray[Any], workers: int = 1, norm: Norm = "ortho") -> NDArray[Any]:
    """Volumes `(..., N, N, N)` with their origin at voxel N // 2 -> `(..., N, N, N // 2 + 1)`."""
    return rfft3(np.fft.ifftshift(volumes, axes=_AXES3), workers, norm)


def centred_ifft3(spectra: NDArray[Any], size: int, workers: int = 1, norm: Norm = "ortho") -> NDArray[Any]:
    """Inverse of `centred_fft3`."""
    return np.fft.fftshift(irfft3(spectra, size, workers, norm), axes=_AXES3)
