"""Densities with a known Fourier transform: sums of Gaussians, and maps of voxels.

Lengths are in Å, positions are (x, y, z) from the origin of the particle, frequencies (kx, ky, kz) in 1/Å,
and

    V(k) = integral of density(r) exp(-2 pi i k.r) dr.

A map sampled with voxel size h and origin at voxel N // 2 has the discrete transform V(k) / h^3, and its
projection `sum over z` has that same value on the plane kz = 0: images and maps share one grey scale.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tiltwise.errors import ConfigError, ShapeError
from tiltwise.spectral.fft import centred_ifft3
from tiltwise.spectral.masks import soft_sphere
from tiltwise.spectral.shells import radii

F64 = NDArray[np.float64]

_SPREAD_HALF_WIDTH = 8
"""Voxels on either side of a point that its spreading Gaussian covers: errors of 1e-6, see `_spread_transform`."""


class Density(Protocol):
    """What projectors and maps need to know of a particle."""

    @property
    def radius_angstrom(self) -> float:
        """Radius of the sphere about the origin that holds the density."""
        ...

    @property
    def band_limit(self) -> float:
        """|k| in 1/Å from which the transform is zero by definition; infinite for Gaussians."""
        ...

    def transform(self, k: F64) -> NDArray[np.complex128]:
        """V at frequencies `(..., 3)` by direct summation: exact, slow, the oracle of everything else."""
        ...

    def grid_transform(self, kz: F64, ky: F64, kx: F64) -> NDArray[np.complex64]:
        """V at all combinations of three axes of frequencies, `(len(kz), len(ky), len(kx))`.

        The band limit is not applied, so that the result can be interpolated smoothly.
        """
        ...


@dataclass(frozen=True, slots=True)
class GaussianDensity:
    """Sum of isotropic Gaussians: n scatterers, each of one of K kinds.

    The transform of kind c is `sum_g amplitude[c, g] exp(-bfactor[c, g] |k|^2 / 4)`, that is, a
    Gaussian of standard deviation `sqrt(bfactor / (8 pi^2))` Å.
    """

    position_angstrom: F64
    """(n, 3)"""
    weight: F64
    """(n,) factor of each scatterer (occupancy)"""
    kind: NDArray[np.int64]
    """(n,) row of the tables below"""
    amplitude: F64
    """(K, G) integral of each Gaussian"""
    bfactor_angstrom2: F64
    """(K, G)"""

    @property
    def radius_angstrom(self) -> float:
        """Largest distance of a scatterer from the origin, plus three standard deviations of the widest Gaussian."""
        sigma = float(np.sqrt(self.bfactor_angstrom2.max() / (8 * np.pi**2)))
        return float(np.linalg.norm(self.position_angstrom, axis=1).max()) + 3 * sigma

    @property
    def band_limit(self) -> float:
        """Infinite: Gaussians have no band limit."""
        return float("inf")

    def scaled(self, factor: float) -> GaussianDensity:
        """Density times `factor`."""
        return replace(self, weight=self.weight * factor)

    def form_factor(self, square: F64, kind: int) -> F64:
        """Transform of a scatterer of one kind at |k|^2 in 1/Å^2."""
        total = np.zeros_like(square)
        for a, b in zip(self.amplitude[kind], self.bfactor_angstrom2[kind], strict=True):
            total += a * np.exp((-0.25 * b) * square)
        return total

    def transform(self, k: F64) -> NDArray[np.complex128]:
        """See `Density.transform`."""
        points = np.asarray(k, dtype=np.float64).reshape(-1, 3)
        square = (points**2).sum(axis=1)
        total = np.zeros(len(points), np.complex128)
        for kind in range(len(self.amplitude)):
            chosen = self.kind == kind
            where, weight = self.position_angstrom[chosen], self.weight[chosen]
            step = max(1, 4_000_000 // max(1, len(where)))
            for i in range(0, len(points), step):
                part = slice(i, i + step)
                phases = np.exp(-2j * np.pi * (points[part] @ where.T))
                total[part] += (phases @ weight) * self.form_factor(square[part], kind)
        return total.reshape(np.shape(k)[:-1])

    def grid_transform(self, kz: F64, ky: F64, kx: F64) -> NDArray[np.complex64]:
        """See `Density.grid_transform`; by spreading on a fine grid, relative error about 1e-6."""
        square = kz[:, None, None] ** 2 + ky[:, None] ** 2 + kx**2
        limit = max(float(np.abs(axis).max()) for axis in (kz, ky, kx))
        total = np.zeros(square.shape, np.complex64)
        for kind in range(len(self.amplitude)):
            chosen = self.kind == kind
            if chosen.any():
                structure = _spread_transform(self.position_angstrom[chosen], self.weight[chosen], limit, kz, ky, kx)
                total += structure * self.form_factor(square, kind).astype(np.float32)
        return total


@dataclass(frozen=True, slots=True)
class VoxelDensity:
    """A cubic map `(N, N, N)`, axes z, y, x, origin at voxel N // 2, band-limited at its Nyquist frequency.

    Only the sphere that fits the box counts: corners would leave the box when the particle turns.
    """

    values: NDArray[np.float32]
    voxel_size_angstrom: float

    @classmethod
    def create(cls, values: NDArray[np.floating], voxel_size_angstrom: float) -> VoxelDensity:
        """Density of a map, its corners outside the inscribed sphere removed with an edge of 2 voxels.

        Raises
        ------
        ShapeError
            if the map is not cubic.
        """
        size = values.shape[0]
        if values.ndim != 3 or values.shape != (size, size, size):
            raise ShapeError("a model map must be cubic", expected="(N, N, N)", found=str(values.shape))
        sphere = soft_sphere(size, (size - 1) // 2 - 2, 2)
        return cls(np.asarray(values * sphere, dtype=np.float32), float(voxel_size_angstrom))

    @property
    def radius_angstrom(self) -> float:
        """Distance of the farthest voxel that is not zero."""
        return float(self._coordinates().max()) * self.voxel_size_angstrom if self.values.any() else 0.0

    @property
    def band_limit(self) -> float:
        """Nyquist frequency of the map, a hair less so that rounding cannot put it inside."""
        return 0.5 / self.voxel_size_angstrom * (1 - 1e-9)

    def _coordinates(self) -> F64:
        """Distances from the origin of voxels that are not zero, in voxels."""
        offsets = np.argwhere(self.values != 0) - self.values.shape[0] // 2
        return np.asarray(np.sqrt((offsets**2).sum(axis=1)))

    def scaled(self, factor: float) -> VoxelDensity:
        """Density times `factor`."""
        return VoxelDensity(np.asarray(self.values * factor, dtype=np.float32), self.voxel_size_angstrom)

    def transform(self, k: F64) -> NDArray[np.complex128]:
        """See `Density.transform`; zero from the band limit on."""
        points = np.asarray(k, dtype=np.float64).reshape(-1, 3)
        index = np.argwhere(self.values != 0)
        where = (index[:, ::-1] - self.values.shape[0] // 2) * self.voxel_size_angstrom
        weight = self.values[tuple(index.T)].astype(np.float64) * self.voxel_size_angstrom**3
        total = np.zeros(len(points), np.complex128)
        step = max(1, 4_000_000 // max(1, len(where)))
        for i in range(0, len(points), step):
            total[i : i + step] = np.exp(-2j * np.pi * (points[i : i + step] @ where.T)) @ weight
        total[(points**2).sum(axis=1) >= self.band_limit**2] = 0
        return total.reshape(np.shape(k)[:-1])

    def grid_transform(self, kz: F64, ky: F64, kx: F64) -> NDArray[np.complex64]:
        """See `Density.grid_transform`; exact."""
        h, size = self.voxel_size_angstrom, self.values.shape[0]
        axis = (np.arange(size) - size // 2) * h
        return _separable_transform(self.values.astype(np.float64) * h**3, (axis, axis, axis), kz, ky, kx)


def sample_map(density: Density, box: int, pixel_size_angstrom: float) -> NDArray[np.float32]:
    """Map `(box, box, box)` of a density, band-limited to |k| below Nyquist, origin at voxel box // 2.

    Raises
    ------
    ConfigError
        if the density does not fit the box: it would wrap around.
    """
    if 2 * density.radius_angstrom > box * pixel_size_angstrom:
        raise ConfigError(
            "the particle does not fit the box",
            where="--b",
            expected=f"a box of at least {int(np.ceil(2 * density.radius_angstrom / pixel_size_angstrom))} px",
            found=f"{box} px of {pixel_size_angstrom:g} Å",
            fix="give a larger --b, or a smaller particle",
        )
    step = 1.0 / (box * pixel_size_angstrom)
    full = np.asarray(np.fft.fftfreq(box, pixel_size_angstrom), dtype=np.float64)
    half = np.arange(box // 2 + 1, dtype=np.float64) * step
    spectrum = density.grid_transform(full, full, half)
    radius = radii(box, 3)
    spectrum[(radius >= box / 2) | (radius * step >= density.band_limit)] = 0
    # centred_ifft3 is unitary: the discrete transform V / h^3 is box^1.5 times its input.
    factor = pixel_size_angstrom**-3 * box**-1.5
    return np.asarray(centred_ifft3(spectrum, box) * factor, dtype=np.float32)


def _separable_transform(values: F64, axes: tuple[F64, F64, F64], kz: F64, ky: F64, kx: F64) -> NDArray[np.complex64]:
    """`sum values[z, y, x] exp(-2 pi i (kz z + ky y + kx x))` on a grid of frequencies, one axis at a time."""
    ez, ey, ex = (np.exp(-2j * np.pi * np.outer(k, x)) for k, x in zip((kz, ky, kx), axes, strict=True))
    rows = (values @ ex.real.T + 1j * (values @ ex.imag.T)).astype(np.complex64)
    planes = ey.astype(np.complex64) @ rows
    flat = ez.astype(np.complex64) @ planes.reshape(len(values), -1)
    return np.asarray(flat.reshape(len(kz), len(ky), len(kx)))


def _spread_transform(position: F64, weight: F64, limit: float, kz: F64, ky: F64, kx: F64) -> NDArray[np.complex64]:
    """`sum_i weight_i exp(-2 pi i k.r_i)` on a grid with |k| <= limit along each axis.

    Points are spread with a Gaussian on a real grid twice finer than Nyquist asks, the grid is transformed
    exactly, and the Gaussian is divided out (Greengard and Lee 2004).  With half-width m voxels and
    variance m / (sqrt(2) pi) voxels, truncation and aliasing are both about exp(-pi m / sqrt(2)).
    """
    m = _SPREAD_HALF_WIDTH
    spacing = 0.25 / limit
    variance = m / (np.sqrt(2.0) * np.pi) * spacing**2
    reach = m * spacing
    low, high = position.min(axis=0) - reach, position.max(axis=0) + reach
    axes = [
        np.arange(np.floor(a / spacing), np.ceil(b / spacing) + 1) * spacing for a, b in zip(low, high, strict=True)
    ]

    def profile(points: F64, axis: F64) -> F64:
        distance = axis - points[:, None]
        return np.where(np.abs(distance) <= reach, np.exp(distance**2 / (-2 * variance)), 0.0)

    grid = np.zeros((len(axes[2]), len(axes[1]), len(axes[0])))
    order = np.argsort(position[:, 2], kind="stable")
    for i in range(0, len(order), 16384):
        part = position[order[i : i + 16384]]
        x, y = profile(part[:, 0], axes[0]), profile(part[:, 1], axes[1])
        z = profile(part[:, 2], axes[2]) * weight[order[i : i + 16384], None]
        # Sorted by z: the points near a plane are neighbours, and add up to one product of matrices.
        first = np.searchsorted(part[:, 2], axes[2] - reach, side="left")
        last = np.searchsorted(part[:, 2], axes[2] + reach, side="right")
        for plane, (a, b) in enumerate(zip(first, last, strict=True)):
            grid[plane] += (y[a:b] * z[a:b, plane, None]).T @ x[a:b]
    # Divide by the transform of the Gaussian, times the volume of a voxel: separable as well.
    gauss = [np.exp(2 * np.pi**2 * variance * k**2) * spacing / np.sqrt(2 * np.pi * variance) for k in (kz, ky, kx)]
    spectrum = _separable_transform(grid, (axes[2], axes[1], axes[0]), kz, ky, kx)
    spectrum *= (gauss[0][:, None, None] * gauss[1][:, None] * gauss[2]).astype(np.float32)
    return spectrum
