"""Likelihood on pseudo-subtomograms: one 3D array per particle instead of its tilt images (Eqs. 7, 7').

    exact    log L = sum_k  2 Re( conj V(Rk) D_k ) - W_k |V(Rk)|^2        D = sum l C X / s^2, W = sum l C^2 / s^2
    relion   log L = -sum_k |D_k - W_k V(Rk)|^2 / (M_k s_k^2)              D = sum l C X,       W = sum l C^2, M = sum l

over independent components k, l being the trilinear share of a pixel in voxel k and s^2 the noise power.  Both have the
form `2 cross - quadratic` of `tiltwise.kernels.api`, with V scaled as in `tiltwise.maps.volumes`: D = W V without
noise.  D, W and M live in the frame of the pseudo-subtomogram; rotations take the reference into that frame and
shifts are along its axes.

The cross term of the exact form is that of Eq. 4 with slices interpolated from V(Rk) on the unpadded grid: it sees the
density times a product of sinc^2(x / N) along each axis, less of it far from the centre of the box.  Its quadratic
term is larger than that of the same slices, sum l |V|^2 >= |sum l V|^2.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from tiltwise.em.likelihood import Scorer
from tiltwise.errors import DataError, ShapeError
from tiltwise.io.stacks import PseudoSubtomogram
from tiltwise.kernels.api import C64, F32, F64, Backend
from tiltwise.maps.volumes import Accumulator
from tiltwise.maps.whitening import WhitenedImages, slice_matrices
from tiltwise.model import TiltSeries
from tiltwise.spectral.disc import FourierDisc
from tiltwise.spectral.fft import centred_fft3
from tiltwise.spectral.phases import phase_ramps

Scalar = TypeVar("Scalar", bound=np.generic)

MULTIPLICITY_FLOOR = 0.01
"""Voxels with fewer samples than this are left out, as in RELION."""


@dataclass(frozen=True, slots=True)
class WhitenedPseudo:
    """A pseudo-subtomogram divided by its noise power, at the K components of a half ball sorted by |k|."""

    box: int
    """N"""
    frequencies: F32
    """(K, 3) kx, ky, kz in cycles per box: kx > 0, or kx = 0 and ky > 0, or kx = ky = 0 and kz >= 0; DC first"""
    image: C64
    """(K,) what V is correlated with; zero at DC, whose terms no rotation or shift changes"""
    power: F32
    """(K,) weight of |V|^2; zero at DC"""


@dataclass(frozen=True, slots=True)
class _HalfBall:
    frequencies: F32
    """(K, 3)"""
    index: tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]
    """z, y, x of each component in a half-complex array; negative ones count from the end"""
    shells: NDArray[np.int32]
    """(K,) round(|k|)"""

    def take(self, half_complex: NDArray[Scalar]) -> NDArray[Scalar]:
        """(N, N, N // 2 + 1) -> (K,)"""
        return np.asarray(half_complex[self.index])


@lru_cache(maxsize=2)
def _half_ball(box: int, radius: float) -> _HalfBall:
    """Independent components of a real N x N x N array with |k| < radius."""
    if box < 2 or not 0 < radius <= box / 2:
        raise ShapeError("no Fourier ball of this size", expected="0 < radius <= box / 2", found=f"{radius}, {box}")
    last = int(np.ceil(radius)) - 1
    axis = np.arange(-last, last + 1, dtype=np.int32)
    kz, ky, kx = (a.ravel() for a in np.meshgrid(axis, axis, axis[last:], indexing="ij"))
    square = kx * kx + ky * ky + kz * kz
    kept = np.flatnonzero((square < radius * radius) & ((kx > 0) | (ky > 0) | ((ky == 0) & (kz >= 0))))
    # Integers, so the order is the same on every machine.
    kept = kept[np.lexsort((kx[kept], ky[kept], kz[kept], square[kept]))]
    frequencies = np.stack([kx[kept], ky[kept], kz[kept]], axis=-1).astype(np.float32)
    shells = np.rint(np.sqrt(square[kept])).astype(np.int32)
    ball = _HalfBall(frequencies, (kz[kept], ky[kept], kx[kept]), shells)
    for shared in (ball.frequencies, *ball.index, ball.shells):
        shared.setflags(write=False)
    return ball


def _at(ball: _HalfBall, box: int, image: NDArray[np.complexfloating], power: NDArray[np.floating]) -> WhitenedPseudo:
    """Components (K,) in single precision, without DC."""
    image, power = image.astype(np.complex64), power.astype(np.float32)
    image[0] = power[0] = 0.0
    return WhitenedPseudo(box, ball.frequencies, image, power)


def whiten_pseudo_exact(
    backend: Backend,
    image: WhitenedImages,
    series: TiltSeries,
    frame: F64,
    disc: FourierDisc,
    radius: float | None = None,
    *,
    threads: int = 0,
) -> WhitenedPseudo:
    """Exact form (Eq. 7') of the whitened images of one particle, noise power of every tilt inside the sums.

    Parameters
    ----------
    image
        masked images and powers at the first pixels of `disc`, whose box is that of the result.
    frame
        (3, 3) rotation from the frame of the pseudo-subtomogram into the tomogram.
    radius
        components of the result have |k| < radius; default and upper limit N / 2.  Pixels share with voxels up to
        sqrt(3) away, so the cross term is that of Eq. 4 to rounding where V vanishes beyond this radius, or where
        the images end sqrt(3) before it.

    Raises
    ------
    DataError
        if there are no images.
    ShapeError
        if images do not fit the disc, the frame is no matrix, or the radius is too large.
    """
    if len(image.tilts) == 0:
        raise DataError("a particle has no images to sum into a pseudo-subtomogram")
    count, rest = divmod(len(image.score_image), len(image.tilts))
    if rest or count > len(disc) or image.score_image.shape != image.score_power.shape:
        raise ShapeError(
            "whitened images do not fit their tilts or disc",
            expected=f"{len(image.tilts)} tilts of at most {len(disc)} components",
            found=f"images {image.score_image.shape}, powers {image.score_power.shape}",
        )
    _refuse_unless_matrices("frame", frame[None])
    ball = _half_ball(disc.box, disc.box / 2 if radius is None else radius)
    total = Accumulator.empty(disc.box, padding=1)
    backend.insert(
        image.score_image.reshape(-1, count),
        image.score_power.reshape(-1, count),
        slice_matrices(series, image.tilts, frame[None], 1.0),
        disc.frequencies3d(count),
        disc.box // 2,
        total.data,
        total.weight,
        threads=threads,
    )
    total.complete()
    return _at(ball, disc.box, ball.take(total.data), ball.take(total.weight))


def whiten_pseudo_relion(
    pseudo: PseudoSubtomogram, noise_power: NDArray[np.float64], radius: float | None = None
) -> WhitenedPseudo:
    """RELION's form (Eq. 7): image = W D / (M sigma^2), power = W^2 / (M sigma^2), zero where M < 0.01.

    Weighting by W / M discards how the CTF varies between the images of a voxel, and noise counts as independent
    between voxels, which trilinear shares correlate.

    `noise_power` (N // 2 + 1,) is sigma^2 = E|D - W V|^2 / M per complex component and shell, Eq. 12, twice
    RELION's rlnSigma2Noise; `data` are used as they are, so a mask must have been applied.  RELION divides by 1
    instead of M where M <= 0.1, voxels that hold hardly any weight; this is not followed.

    Raises
    ------
    DataError
        if there is no multiplicity, or noise power is not positive in a shell that is used.
    ShapeError
        if shapes do not fit each other, or the radius is too large.
    """
    if pseudo.multiplicity is None:
        raise DataError("a pseudo-subtomogram has no multiplicity", expected="weights and multiplicity in one file")
    box = pseudo.data.shape[0]
    shapes = (pseudo.data.shape, pseudo.ctf2.shape, pseudo.multiplicity.shape, noise_power.shape)
    half = (box, box, box // 2 + 1)
    if shapes != ((box,) * 3, half, half, half[2:]):
        raise ShapeError(
            "arrays of a pseudo-subtomogram do not fit each other",
            expected="data (N, N, N), weights and multiplicity (N, N, N // 2 + 1), noise power (N // 2 + 1,)",
            found=", ".join(map(str, shapes)),
        )
    ball = _half_ball(box, box / 2 if radius is None else radius)
    sigma2 = noise_power[ball.shells]
    sigma2[0] = 1.0
    if (sigma2 <= 0).any():
        raise DataError("noise power is not positive", found=f"{float(np.nanmin(sigma2)):g}")
    data, ctf2, multiplicity = (ball.take(a) for a in (centred_fft3(pseudo.data), pseudo.ctf2, pseudo.multiplicity))
    few = multiplicity < MULTIPLICITY_FLOOR
    weight = np.where(few, 0.0, ctf2 / (np.where(few, 1.0, multiplicity) * sigma2))
    return _at(ball, box, weight * data, weight * ctf2)


def _refuse_unless_matrices(name: str, matrices: F64) -> None:
    if matrices.ndim != 3 or matrices.shape[1:] != (3, 3):
        raise ShapeError(f"{name}: not a rotation matrix", expected="(..., 3, 3)", found=str(matrices.shape))
    # Kernels take points at NaN for points outside the volume, which are zero.
    if not np.isfinite(matrices).all():
        raise DataError(f"{name}: NaN or infinite entries")


def shift_phases(whitened: WhitenedPseudo, shifts_angstrom: F64, pixel_size: float) -> C64:
    """(T, K) phases exp(+2 pi i k.d / N) that undo displacements of (T, 3) Å along the axes of the frame."""
    if shifts_angstrom.ndim != 2 or shifts_angstrom.shape[1] != 3:
        raise ShapeError("shifts are not vectors", expected="(T, 3)", found=str(shifts_angstrom.shape))
    slopes = shifts_angstrom * (2.0 * np.pi / (whitened.box * pixel_size))
    return phase_ramps(whitened.frequencies.astype(np.intp), slopes)


def terms(
    backend: Backend,
    volume: C64,
    scale: float,
    whitened: WhitenedPseudo,
    rotations: F64,
    shifts_angstrom: F64,
    pixel_size: float,
    threads: int = 0,
) -> tuple[F32, F32]:
    """Cross (R, T) and quadratic (R,) terms; `log L = 2 cross - quadratic` up to a constant.

    Parameters
    ----------
    volume, scale
        reference `(M, M, M // 2 + 1)` and M / N.
    rotations
        (R, 3, 3), reference into the frame of the pseudo-subtomogram: A_part if the frame is A_sub.
    shifts_angstrom
        (T, 3) displacements of the particle along the axes of the frame.
    pixel_size
        Å per voxel of the pseudo-subtomogram.

    Raises
    ------
    ShapeError
        if rotations or shifts have the wrong shape.
    DataError
        if rotations are not finite.  NaN anywhere else ends up in the results.
    """
    _refuse_unless_matrices("rotations", rotations)
    matrices = np.ascontiguousarray(scale * np.swapaxes(rotations, 1, 2), dtype=np.float32)
    phases = shift_phases(whitened, shifts_angstrom, pixel_size)
    cross = np.empty((len(rotations), len(phases)), np.float32)
    quadratic = np.empty(len(rotations), np.float32)
    for tile in Scorer(backend, volume, scale, threads).tiles(len(rotations), len(whitened.image)):
        slices = backend.project(volume, matrices[tile], whitened.frequencies, volume.shape[0] // 2, threads=threads)
        cross[tile], quadratic[tile] = backend.score(slices, whitened.image, whitened.power, phases, threads=threads)
    return cross, quadratic
