"""Maps and their padded Fourier volumes: the reference of the E-step, the accumulators of the M-step.

Scale: images are projections, `image = sum over z of the map`, transformed unitarily on N x N pixels.
The slice theorem then needs `V = FFT(map) / N`, with `FFT` the unnormalised 3D transform.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from tiltwise.errors import ShapeError
from tiltwise.kernels.api import Backend
from tiltwise.spectral.fft import irfft3, rfft3


@lru_cache(maxsize=8)
def gridding_correction(box: int, padded: int) -> NDArray[np.float32]:
    """(N, N, N) attenuation of trilinear interpolation on the padded grid: a product of sinc^2 along each axis."""
    axis = np.sinc((np.arange(box) - box // 2) / padded) ** 2
    return np.asarray(axis[:, None, None] * axis[:, None] * axis, dtype=np.float32)


def symmetry_attenuation(box: int, padded: int, operators: NDArray[np.float64]) -> NDArray[np.float32]:
    """(N, N, N) attenuation of insertion followed by interpolation at the rotated points of a group, on average.

    A rotation turns the attenuation of the insertion with the map, and adds its own unless it maps the grid onto
    itself.
    """
    axis = np.arange(box) - box // 2
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    points = np.stack([x, y, z], axis=-1)
    total = np.zeros((box,) * 3)
    for operator in operators:
        on_grid = np.abs(operator - np.rint(operator)).max() < 1e-9
        turned = np.sinc(points @ operator / padded)  # operator^T x
        total += turned.prod(axis=-1) ** (2 if on_grid else 4)
    return np.asarray(total / len(operators), dtype=np.float32)


def reference_volume(density: NDArray[np.float32], padding: int = 2) -> NDArray[np.complex64]:
    """Padded Fourier volume `(M, M, M // 2 + 1)`, M = padding x N, of a map with origin at voxel N // 2.

    The map is divided by the attenuation that trilinear interpolation will cause.
    """
    box = density.shape[0]
    if density.shape != (box, box, box):
        raise ShapeError("a map must be cubic", expected="(N, N, N)", found=str(density.shape))
    padded = padding * box
    embedded = np.zeros((padded,) * 3, np.float32)
    wrapped = np.arange(-(box // 2), box - box // 2)
    embedded[np.ix_(wrapped, wrapped, wrapped)] = density / gridding_correction(box, padded) / np.float32(box)
    return rfft3(embedded, norm="backward")


@lru_cache(maxsize=4)
def padded_shells(box: int, padded: int) -> NDArray[np.int32]:
    """Shell of the unpadded box, round(|k|), of every voxel of the padded half-complex volume."""
    y = np.fft.fftfreq(padded, 1.0 / padded)
    x = np.arange(padded // 2 + 1)
    radius = np.sqrt(y[:, None, None] ** 2 + y[:, None] ** 2 + x**2)
    return np.rint(radius * (box / padded)).astype(np.int32)


@dataclass(slots=True)
class Accumulator:
    """Numerator and denominator of Eq. 11 on the padded grid, as `insert` fills them."""

    box: int
    data: NDArray[np.complex128]
    weight: NDArray[np.float64]
    attenuation: NDArray[np.float32] | None = None
    """(N, N, N) what interpolation takes from the map, if it differs from `gridding_correction`"""

    @classmethod
    def empty(cls, box: int, padding: int = 2) -> Accumulator:
        """Zeros for maps of `box` voxels."""
        padded = padding * box
        shape = (padded, padded, padded // 2 + 1)
        return cls(box, np.zeros(shape, np.complex128), np.zeros(shape))

    @property
    def padded(self) -> int:
        """Voxels along each side of the padded volume."""
        return int(self.data.shape[0])

    def __add__(self, other: Accumulator) -> Accumulator:
        return Accumulator(self.box, self.data + other.data, self.weight + other.weight, self.attenuation)

    def copy(self) -> Accumulator:
        """Sums that can be added to on their own."""
        return Accumulator(self.box, self.data.copy(), self.weight.copy(), self.attenuation)

    def add(self, other: Accumulator) -> None:
        """Adds the sums over other images, in place."""
        self.data += other.data
        self.weight += other.weight

    def without(self, part: Accumulator, share: NDArray[np.float64] | float = 1.0) -> Accumulator:
        """Sums that do not hold `part`, of which `share` has been added, a number or one for every voxel.

        Differences are of double precision: what is left of voxels that only `part` reaches is far below the floor of
        `solve_map`.
        """
        weight = np.maximum(self.weight - share * part.weight, 0.0)
        return Accumulator(self.box, self.data - share * part.data, weight, self.attenuation)

    def complete(self) -> Accumulator:
        """Adds the Friedel mates on the plane x = 0, which `insert` leaves out, in place; returns itself."""
        for array in (self.data, self.weight):
            mates = np.roll(array[::-1, ::-1, 0].conj(), 1, axis=(0, 1))
            array[:, :, 0] += mates
        return self

    def symmetrised(self, operators: NDArray[np.float64], backend: Backend) -> Accumulator:
        """Sum over the rotations of a point group (G, 3, 3) of a completed accumulator.

        Rotations that do not map the grid onto itself interpolate a second time; the map is corrected for
        what that takes from it.
        """
        if len(operators) == 1:
            return self
        size = self.padded
        y = np.fft.fftfreq(size, 1.0 / size)
        grid = np.stack(np.meshgrid(y, y, np.arange(size // 2 + 1), indexing="ij"), axis=-1)[..., ::-1]
        limit = size // 2
        inside = (grid**2).sum(axis=-1) < (limit - 1) ** 2
        points = np.ascontiguousarray(grid[inside], dtype=np.float32)
        result = Accumulator(
            self.box,
            np.zeros_like(self.data),
            np.zeros_like(self.weight),
            symmetry_attenuation(self.box, size, operators),
        )
        data, weight = self.data.astype(np.complex64), self.weight.astype(np.complex64)
        for operator in operators:
            matrix = np.ascontiguousarray(operator.T[None], dtype=np.float32)
            result.data[inside] += backend.project(data, matrix, points, limit)[0]
            result.weight[inside] += backend.project(weight, matrix, points, limit)[0].real
        return result


def shell_means(accumulator: Accumulator) -> NDArray[np.float64]:
    """Mean weight in every shell 0..N // 2 of a completed accumulator."""
    shells = padded_shells(accumulator.box, accumulator.padded).ravel()
    n = accumulator.box // 2 + 1
    total = np.bincount(shells, accumulator.weight.ravel(), minlength=n)[:n]
    count = np.bincount(shells, minlength=n)[:n]
    return np.asarray(total / np.maximum(count, 1))


ORDINARY = (1e-15, 1e15)
"""Mean weights whose sums single precision holds, with room for voxels that have far more or less."""


def solve_map(
    accumulator: Accumulator,
    prior: NDArray[np.float64] | None = None,
    radius: float | None = None,
    *,
    restore: bool = False,
) -> NDArray[np.float32]:
    """Map (N, N, N) from a completed accumulator: numerator / (denominator + prior), Eq. 11.

    Parameters
    ----------
    prior
        1/tau^2 per shell in the units of the weights, (N // 2 + 1,); None reconstructs without prior.
    radius
        cycles per box beyond which the transform is zero; default N / 2.
    restore
        multiply every shell by what the prior takes from it on average: the map is not low-passed, only
        voxels with less weight than others of their shell are held back.

    The denominator is kept above 0.001 of the mean weight of its shell, so that voxels no image has
    reached stay finite.
    """
    box, padded = accumulator.box, accumulator.padded
    n = box // 2 + 1
    shells = padded_shells(box, padded)
    means = shell_means(accumulator)
    limit = box / 2 if radius is None else radius
    table = np.zeros((3, int(shells.max()) + 1))  # prior, floor, gain; shells beyond the limit have no gain
    table[1, :n] = 1e-3 * means
    used = (np.arange(n) <= limit) & (means > 0)
    table[2, :n][used] = 1.0
    if prior is not None:
        table[0, :n] = prior
        if restore:
            table[2, :n][used] += prior[used] / means[used]
    data, weight = accumulator.data, accumulator.weight
    unit = float(means.max(initial=0.0))
    if unit > 0 and not ORDINARY[0] < unit < ORDINARY[1]:
        data, weight = data / unit, weight / unit
        table[:2] /= unit
    # single precision from here on: sums are done
    single = table.astype(np.float32)
    denominator = single[0].take(shells)
    denominator += weight
    np.maximum(denominator, single[1].take(shells), out=denominator)
    factor = single[2].take(shells)
    factor[denominator <= 0] = 0.0
    np.divide(factor, denominator, out=factor, where=denominator > 0)
    spectrum = data.astype(np.complex64)
    spectrum *= factor
    wrapped = np.arange(-(box // 2), box - box // 2)  # the centre of the padded box, origin to voxel N // 2
    density = irfft3(spectrum, padded, norm="backward")[np.ix_(wrapped, wrapped, wrapped)]
    attenuation = gridding_correction(box, padded) if accumulator.attenuation is None else accumulator.attenuation
    return np.asarray(density * np.float32(box) / attenuation, dtype=np.float32)
