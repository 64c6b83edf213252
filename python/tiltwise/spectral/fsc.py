"""Fourier shell correlation and the resolution it means."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiltwise.errors import ShapeError
from tiltwise.spectral.fft import irfft3, rfft3
from tiltwise.spectral.shells import half_weights, radii, shell_counts, shell_indices, shell_totals


def fsc(
    a: NDArray[np.floating[Any]],
    b: NDArray[np.floating[Any]],
    mask: NDArray[np.floating[Any]] | None = None,
    *,
    stored_once: bool = False,
) -> NDArray[np.float64]:
    """Correlation of two real volumes in shells round(|k|), `(N // 2 + 1,)`.

    `a`, `b` and `mask` are `(N, N, N)`; the mask is multiplied in first.  A shell without power in either
    map has correlation 0.  `stored_once` sums as RELION does, see `shell_totals`.

    Raises
    ------
    ShapeError
        if the volumes are not cubes of one size.
    """
    for name, volume in (("second map", b), ("mask", mask)):
        if volume is not None and volume.shape != a.shape:
            raise ShapeError(f"{name} and first map differ in size", expected=str(a.shape), found=str(volume.shape))
    if a.ndim != 3 or len(set(a.shape)) != 1:
        raise ShapeError("not a cubic volume", expected="(N, N, N)", found=str(a.shape))
    first, second = (rfft3(np.asarray(v if mask is None else v * mask, dtype=np.float64)) for v in (a, b))
    return fsc_of_transforms(first, second, a.shape[0], stored_once=stored_once)


def fsc_of_transforms(
    a: NDArray[np.complexfloating[Any, Any]],
    b: NDArray[np.complexfloating[Any, Any]],
    size: int,
    *,
    stored_once: bool = False,
) -> NDArray[np.float64]:
    """As `fsc`, of two half-complex transforms `(size, size, size // 2 + 1)`."""
    cross, first, second = (
        shell_totals(v, size, 3, stored_once=stored_once) for v in ((a.conj() * b).real, np.abs(a) ** 2, np.abs(b) ** 2)
    )
    power = first * second
    return np.divide(cross, np.sqrt(power), out=np.zeros_like(cross), where=power > 0)


def fsc_without_radial(
    a: NDArray[np.floating[Any]], b: NDArray[np.floating[Any]], mask: NDArray[np.floating[Any]] | None = None
) -> NDArray[np.float64]:
    """As `fsc`, of two maps of which the part with spherical symmetry about voxel N // 2 is taken away.

    That part is a function of |k| alone: two maps without anything else correlate to 1 or -1 by chance.  The mean over
    all components of the same |k| is subtracted.
    """
    size = a.shape[0]
    square = np.rint(radii(size, 3) ** 2).astype(np.int64).ravel()
    weight = np.broadcast_to(half_weights(size), (size, size, size // 2 + 1)).ravel()
    counts = np.maximum(np.bincount(square, weight), 1.0)
    parts: list[NDArray[np.complex128]] = []
    for volume in (a, b):
        masked = np.asarray(volume if mask is None else volume * mask, dtype=np.float64)
        transform = rfft3(np.fft.ifftshift(masked))
        means = np.bincount(square, weight * transform.real.ravel()) / counts
        parts.append(np.asarray(transform - means[square].reshape(transform.shape), dtype=np.complex128))
    return fsc_of_transforms(parts[0], parts[1], size)


def resolution_angstrom(
    curve: NDArray[np.floating[Any]], size: int, pixel_size: float, threshold: float = 0.143
) -> float:
    """Resolution in Å where an FSC curve first falls below a threshold.

    `curve` holds shells 0, 1, 2, ... of a box of `size` pixels.  The crossing is interpolated linearly in
    frequency between the last shell at or above the threshold and the first one below (NaN counts as
    below); later rises are ignored and shell 0 is not looked at.  A curve that never falls has the
    resolution of its last shell; one that starts below, that of shell 1, `size * pixel_size`.
    """
    values = np.asarray(curve, dtype=np.float64)
    below = np.flatnonzero(~(values[1:] >= threshold)) + 1
    if below.size == 0:
        crossing = float(len(values) - 1)
    elif below[0] == 1:
        crossing = 1.0
    else:
        last = int(below[0]) - 1
        drop = values[last] - values[last + 1]
        crossing = last + (float((values[last] - threshold) / drop) if np.isfinite(drop) else 0.0)
    return size * pixel_size / crossing


def noise_sigma(size: int, mask: NDArray[np.floating[Any]] | None = None) -> NDArray[np.float64]:
    """Standard deviation of the FSC of two maps of independent white noise, per shell, `(N // 2 + 1,)`.

    `1 / sqrt(n)` with n the number of voxels in the full shell; a mask correlates neighbouring voxels and
    leaves fewer effective ones: `sigma^2 = sum_{k, k' in shell} |C(k - k')|^2 / n^2`, where C is the
    transform of mask^2 divided by its value at 0.  Exact for large n.
    """
    counts = shell_counts(size, 3)
    if mask is None:
        return np.asarray(1.0 / np.sqrt(counts))
    spectrum = np.abs(rfft3(np.asarray(mask, dtype=np.float64) ** 2)) ** 2
    # Sums over pairs are products after a second transform: |shell^|^2 times that of |C|^2.
    correlation = irfft3(spectrum / spectrum[0, 0, 0], size, norm="forward")
    shells = shell_indices(size, 3)
    pairs = np.empty(size // 2 + 1)
    for shell in range(len(pairs)):
        indicator = irfft3((shells == shell).astype(np.complex128), size, norm="forward")
        pairs[shell] = np.mean(indicator**2 * correlation)
    return np.asarray(np.sqrt(pairs) / counts)
