"""Zernike polynomials of the antisymmetric and symmetric aberrations (the last term of Eq. 15).

Coordinates are spatial frequencies in 1/Å, not normalised to Nyquist.  Polynomials are unnormalised,
`R_n^n = rho^n`; azimuthal orders m >= 0 go with cos(m phi), m < 0 with sin(|m| phi).
"""

from __future__ import annotations

from math import factorial, isqrt

import numpy as np
from numpy.typing import NDArray


def even_order(index: int) -> tuple[int, int]:
    """(m, n) of the coefficient at `index` of rlnEvenZernike: (0, 0), (-2, 2), (0, 2), (2, 2), (-4, 4), ..."""
    k = isqrt(index)
    return 2 * (index - k * k - k), 2 * k


def odd_order(index: int) -> tuple[int, int]:
    """(m, n) of the coefficient at `index` of rlnOddZernike: (-1, 1), (1, 1), (-3, 3), (-1, 3), (1, 3), ..."""
    k = (isqrt(1 + 4 * index) - 1) // 2
    n = 2 * k + 1
    return 2 * (index - k * k - k) - n, n


def polynomial(m: int, n: int, kx: NDArray[np.float64], ky: NDArray[np.float64]) -> NDArray[np.float64]:
    """`Z_n^m` at frequencies `kx`, `ky` (1/Å, any common shape)."""
    rho, phi = np.hypot(kx, ky), np.arctan2(ky, kx)
    order = abs(m)
    radial = np.zeros_like(rho)
    for s in range((n - order) // 2 + 1):
        denominator = factorial(s) * factorial((n + order) // 2 - s) * factorial((n - order) // 2 - s)
        radial += (-1) ** s * (factorial(n - s) // denominator) * rho ** (n - 2 * s)
    return np.asarray(radial * (np.cos(order * phi) if m >= 0 else np.sin(order * phi)))


def even_phase(
    kx: NDArray[np.float64], ky: NDArray[np.float64], coefficients: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Phase that symmetric aberrations add to gamma, radians; `coefficients` in the order of rlnEvenZernike."""
    return _sum(kx, ky, coefficients, even=True)


def odd_phase(
    kx: NDArray[np.float64], ky: NDArray[np.float64], coefficients: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Phase rho of the antisymmetric aberrations (Eq. 14), radians; `coefficients` as in rlnOddZernike.

    An image carries `exp(+i rho)`; multiply it by `exp(-i rho)` to correct it.
    """
    return _sum(kx, ky, coefficients, even=False)


def _sum(
    kx: NDArray[np.float64], ky: NDArray[np.float64], coefficients: NDArray[np.float64], *, even: bool
) -> NDArray[np.float64]:
    total = np.zeros(np.broadcast_shapes(np.shape(kx), np.shape(ky)))
    for index, value in enumerate(coefficients):
        if value != 0:
            m, n = even_order(index) if even else odd_order(index)
            total += value * polynomial(m, n, kx, ky)
    return total
