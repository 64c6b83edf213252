"""Maps and their padded Fourier volumes: the reference of the E-step, the accumulators of the M-step.

Scale: images are projections, `image = sum over z of the map`, transformed unitarily on N x N pixels.
The slice theorem then needs `V = FFT(map) / N`, with `FFT` the unnormalised 3D transform.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from tiltwise.errors import ShapeError
from tiltwise.kernels.api import Backend
from tiltwise.spectral.fft import central_irfft3, padded_rfft3


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
    corrected = np.asarray(density / gridding_correction(box, padded) / np.float32(box), np.float32)
    return padded_rfft3(corrected, padded, norm="backward")


@lru_cache(maxsize=4)
def padded_shells(box: int, padded: int) -> NDArray[np.int32]:
    """Shell of the unpadded box, round(|k|), of every voxel of the padded half-complex volume."""
    y = np.rint(np.fft.fftfreq(padded, 1.0 / padded)).astype(np.int32) ** 2
    x = np.arange(padded // 2 + 1, dtype=np.int32) ** 2
    largest = 2 * int(y.max()) + int(x.max())
    shell_of = np.rint(np.sqrt(np.arange(largest + 1)) * (box / padded)).astype(np.int32)
    return np.asarray(shell_of.take(y[:, None, None] + y[:, None] + x))


@lru_cache(maxsize=4)
def ball_of(box: int, padded: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Flat index (V,) in the padded half-complex volume of all voxels up to shell N // 2, and their shells."""
    shells = padded_shells(box, padded).ravel()
    index = np.flatnonzero(shells <= box // 2)
    return index, shells.take(index).astype(np.intp)


@lru_cache(maxsize=4)
def shell_members(box: int, padded: int) -> NDArray[np.intp]:
    """(N // 2 + 1,) voxels of the padded half-complex volume in every shell."""
    return np.bincount(ball_of(box, padded)[1], minlength=box // 2 + 1)


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

    def clear(self) -> None:
        """Sets the sums to zero."""
        self.data.fill(0.0)
        self.weight.fill(0.0)

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


ORDINARY = (1e-15, 1e15)
"""Mean weights whose sums single precision holds, with room for voxels that have far more or less."""


PIECE = 1 << 16
"""Voxels that are worked on at a time."""


@dataclass(slots=True)
class PackedSums:
    """Completed sums in single precision at the V voxels of `ball_of`, divided by `unit`: a quarter of the memory.

    Sums are added up in double precision; once they are complete, maps need no more than this.
    """

    box: int
    padded: int
    data: NDArray[np.complex64]
    weight: NDArray[np.float32]
    unit: float
    """power of two; 1 where the weights are ordinary numbers"""
    attenuation: NDArray[np.float32] | None = None
    """see `Accumulator`"""

    @classmethod
    def of(cls, sums: Accumulator, unit: float | None = None) -> PackedSums:
        """Of a completed accumulator; `unit` of the sums they are to be added to, else one that fits the weights."""
        index, _ = ball_of(sums.box, sums.padded)
        if unit is None:
            mean = float(sums.weight.mean())
            ordinary = not mean > 0 or ORDINARY[0] < mean < ORDINARY[1]
            unit = 1.0 if ordinary else float(2.0 ** np.floor(np.log2(mean)))
        data, weight = np.empty(len(index), np.complex64), np.empty(len(index), np.float32)
        for part in pieces(len(index)):
            data[part] = sums.data.reshape(-1).take(index[part]) / unit
            weight[part] = sums.weight.reshape(-1).take(index[part]) / unit
        return cls(sums.box, sums.padded, data, weight, unit, sums.attenuation)

    @property
    def shells(self) -> NDArray[np.intp]:
        """(V,) of the unpadded box."""
        return ball_of(self.box, self.padded)[1]

    def shell_totals(self, values: NDArray[np.float32]) -> NDArray[np.float64]:
        """Sums of values (V,) over the shells 0..N // 2."""
        return np.asarray(np.bincount(self.shells, values, self.box // 2 + 1), np.float64)

    def add(self, other: PackedSums) -> None:
        """Adds the sums over other images, in place."""
        self.data += other.data
        self.weight += other.weight

    def copy(self) -> PackedSums:
        """Sums that can be added to on their own."""
        return replace(self, data=self.data.copy(), weight=self.weight.copy())

    def without(self, part: PackedSums) -> PackedSums:
        """Sums that do not hold `part`, which has been added.

        What rounding leaves of voxels that only `part` reaches, 1e-7 of it, is far below the floor of `solve_map`.
        """
        weight = self.weight - part.weight
        return replace(self, data=self.data - part.data, weight=np.maximum(weight, 0, out=weight))


def added(parts: Mapping[int, PackedSums], chosen: Sequence[int]) -> PackedSums:
    """Sums of some parts together."""
    result = parts[chosen[0]].copy()
    for number in chosen[1:]:
        result.add(parts[number])
    return result


def pieces(count: int) -> list[slice]:
    """Of arrays of `count` voxels, so small that what is made of them stays in the cache."""
    return [slice(start, start + PIECE) for start in range(0, count, PIECE)]


def packed(sums: Accumulator | PackedSums) -> PackedSums:
    """Completed sums as maps are solved from them."""
    return sums if isinstance(sums, PackedSums) else PackedSums.of(sums)


def shell_means(sums: Accumulator | PackedSums) -> NDArray[np.float64]:
    """Mean weight in every shell 0..N // 2 of completed sums."""
    members = np.maximum(shell_members(sums.box, sums.padded), 1)
    if isinstance(sums, PackedSums):
        return np.asarray(sums.shell_totals(sums.weight) / members * sums.unit)
    index, shells = ball_of(sums.box, sums.padded)
    return np.asarray(np.bincount(shells, sums.weight.reshape(-1).take(index), sums.box // 2 + 1) / members)


def solve_map(
    sums: Accumulator | PackedSums,
    prior: NDArray[np.float64] | None = None,
    radius: float | None = None,
    *,
    restore: bool = False,
) -> NDArray[np.float32]:
    """Map (N, N, N) from completed sums: numerator / (denominator + prior), Eq. 11.

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
    sums = packed(sums)
    box, padded = sums.box, sums.padded
    means = shell_means(sums)
    shell = np.arange(len(means))
    used = (shell <= (box / 2 if radius is None else radius)) & (means > 0)
    gain = used.astype(np.float64)
    if prior is not None and restore:
        gain[used] += prior[used] / means[used]
    floor = 1e-3 * means / sums.unit
    added = np.zeros_like(means) if prior is None else prior / sums.unit
    # single precision from here on: sums are done
    tables = [table.astype(np.float32) for table in (added, floor, gain)]
    spectrum = np.zeros((padded, padded, padded // 2 + 1), np.complex64)
    index, shells = ball_of(box, padded)
    for part in pieces(len(index)):
        prior_of, floor_of, factor = (table.take(shells[part]) for table in tables)
        denominator = np.maximum(prior_of + sums.weight[part], floor_of)
        factor[denominator <= 0] = 0.0
        np.divide(factor, denominator, out=factor, where=denominator > 0)
        spectrum.reshape(-1)[index[part]] = sums.data[part] * factor
    density = central_irfft3(spectrum, padded, box, norm="backward")
    attenuation = gridding_correction(box, padded) if sums.attenuation is None else sums.attenuation
    return np.asarray(density * np.float32(box) / attenuation, dtype=np.float32)
