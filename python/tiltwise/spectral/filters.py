"""Low-pass filters and changes of box and pixel size of maps, origin at voxel N // 2."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiltwise.errors import ShapeError
from tiltwise.spectral.fft import irfft3, rfft3
from tiltwise.spectral.masks import soft_edge
from tiltwise.spectral.shells import radii

EDGE_SHELLS = 2.0
"""Width of the edge of a low-pass filter."""


def low_pass(
    volume: NDArray[np.floating[Any]], pixel_size: float, resolution_angstrom: float, edge_shells: float = EDGE_SHELLS
) -> NDArray[Any]:
    """A map `(N, N, N)` without detail finer than a resolution; its dtype is kept.

    Multiplies the transform by a raised cosine in |k| that falls from 1 to 0 over `edge_shells`, centred
    on the shell of the resolution, `N * pixel_size / resolution`.
    """
    size = volume.shape[0]
    gain = low_pass_gain(radii(size, 3), size * pixel_size / resolution_angstrom, edge_shells)
    return np.asarray(irfft3(rfft3(volume) * gain, size), dtype=volume.dtype)


def low_pass_gain(
    radius: NDArray[np.float64], cut_shell: float, edge_shells: float = EDGE_SHELLS
) -> NDArray[np.float64]:
    """Raised cosine in |k| (`radius`, in shells) that falls from 1 to 0 over `edge_shells`, centred on a shell."""
    return soft_edge(radius, cut_shell + edge_shells / 2.0, edge_shells)


def resample(
    volume: NDArray[np.floating[Any]], pixel_size: float, new_pixel_size: float, new_size: int
) -> NDArray[np.float32]:
    """A map on another grid: `new_size` voxels of `new_pixel_size` Å, grey values kept.

    Trigonometric interpolation about the origin, exact for any ratio of pixel sizes: frequencies that the
    new grid cannot hold are removed along each axis, and voxels beyond the old box are zero.

    Raises
    ------
    ShapeError
        if the map is not a cube or the new grid is empty.
    """
    if volume.ndim != 3 or len(set(volume.shape)) != 1:
        raise ShapeError("a map must be cubic", expected="(N, N, N)", found=str(volume.shape))
    if not (pixel_size > 0 and new_pixel_size > 0 and new_size > 0):
        raise ShapeError(
            "cannot resample to an empty grid",
            expected="positive sizes",
            found=f"{new_size} voxels of {new_pixel_size:g} Å from voxels of {pixel_size:g} Å",
        )
    kernel = _interpolation(volume.shape[0], new_size, new_pixel_size / pixel_size)
    # one axis after the other, the last one first: no array is transposed on the way
    result = np.matmul(np.asarray(volume, dtype=np.float64), kernel.T)
    result = np.matmul(kernel, result)
    return np.tensordot(kernel, result, axes=(1, 0)).astype(np.float32)


def _interpolation(size: int, new_size: int, ratio: float) -> NDArray[np.float64]:
    """`(new_size, size)` matrix of a band-limited resampling of one axis at steps of `ratio` old voxels.

    Row i is `1/N sum_k cos(2 pi k (x_i - j) / N)` over the kept frequencies |k| <= N / 2 / max(1, ratio);
    a frequency exactly on the limit has half of its weight at each sign, as a Nyquist component has.
    """
    position = (np.arange(new_size) - new_size // 2) * ratio + size // 2
    limit = 0.5 * size / max(1.0, ratio)
    k = np.arange(int(np.floor(limit * (1 + 1e-12))) + 1)
    weight = np.where(k == 0, 1.0, 2.0)
    weight[np.isclose(k, limit, rtol=1e-9, atol=0.0)] = 1.0
    new, old = (np.exp((2j * np.pi / size) * np.outer(x, k)) for x in (position, np.arange(size)))
    kernel = ((new * weight) @ old.conj().T).real / size
    # Half a voxel of slack: the outermost old voxels cover that much.
    kernel[(position < -0.5) | (position > size - 0.5)] = 0.0
    return np.asarray(kernel)
