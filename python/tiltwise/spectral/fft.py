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


def irfft2_part(
    spectra: NDArray[Any], size: int, kept: NDArray[np.intp] | None = None, norm: Norm = "ortho"
) -> NDArray[Any]:
    """Rows and columns `kept` of `irfft2`, all by default; overwrites `spectra`."""
    rows = _fft.ifft(spectra, axis=-2, norm=norm, overwrite_x=True)
    rows = rows if kept is None else rows.take(kept, axis=-2)
    images = np.asarray(_fft.irfft(rows, n=size, axis=-1, norm=norm))
    return images if kept is None else images.take(kept, axis=-1)


def rfft3(volumes: NDArray[Any], workers: int = 1, norm: Norm = "ortho") -> NDArray[Any]:
    """Volumes `(..., N, N, N)`, origin at index 0 -> `(..., N, N, N // 2 + 1)`."""
    return np.asarray(_fft.rfftn(volumes, axes=_AXES3, norm=norm, workers=workers))


def irfft3(spectra: NDArray[Any], size: int, workers: int = 1, norm: Norm = "ortho") -> NDArray[Any]:
    """Inverse of `rfft3`; `size` is N."""
    return np.asarray(_fft.irfftn(spectra, s=(size,) * 3, axes=_AXES3, norm=norm, workers=workers))


def padded_rfft3(volume: NDArray[Any], size: int, norm: Norm = "ortho") -> NDArray[Any]:
    """Map `(N, N, N)` with its origin at voxel N // 2, in a box of `size` = M >= N voxels -> `(M, M, M // 2 + 1)`.

    The same as `rfft3` of the map among zeros, without the transforms of zeros alone.
    """
    rows = np.asarray(_fft.rfft(_embedded(volume, size, 2), axis=2, norm=norm, overwrite_x=True))
    planes = np.asarray(_fft.fft(_embedded(rows, size, 1), axis=1, norm=norm, overwrite_x=True))
    return np.asarray(_fft.fft(_embedded(planes, size, 0), axis=0, norm=norm, overwrite_x=True))


def central_irfft3(spectrum: NDArray[Any], size: int, box: int, norm: Norm = "ortho") -> NDArray[Any]:
    """Central `(N, N, N)` voxels, origin at voxel N // 2, of the inverse of `rfft3`; N is `box`; overwrites `spectrum`.

    Each axis is cut before the next is transformed.
    """
    planes = _centre(_fft.ifft(spectrum, axis=0, norm=norm, overwrite_x=True), box, 0)
    rows = _centre(_fft.ifft(planes, axis=1, norm=norm, overwrite_x=True), box, 1)
    return _centre(_fft.irfft(rows, n=size, axis=2, norm=norm, overwrite_x=True), box, 2)


def _embedded(array: NDArray[Any], size: int, axis: int) -> NDArray[Any]:
    """From `n` along an axis with the origin at n // 2 to `size`, zeros between, with the origin at 0."""
    length = array.shape[axis]
    shape = list(array.shape)
    shape[axis] = size
    result = np.zeros(shape, array.dtype)
    before = length // 2
    lead = (slice(None),) * axis
    result[(*lead, slice(0, length - before))] = array[(*lead, slice(before, None))]
    result[(*lead, slice(size - before, None))] = array[(*lead, slice(0, before))]
    return result


def _centre(array: NDArray[Any], length: int, axis: int) -> NDArray[Any]:
    """The opposite: `length` along an axis about the origin, which moves from 0 to length // 2."""
    before = length // 2
    lead = (slice(None),) * axis
    parts = array[(*lead, slice(array.shape[axis] - before, None))], array[(*lead, slice(0, length - before))]
    return np.concatenate(parts, axis=axis)


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
