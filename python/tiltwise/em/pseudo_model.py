"""Pseudo-subtomograms as particle images: one 3D view per particle instead of its tilt images (Eqs. 7-13).

    exact    log L = sum_k ( 2 Re( conj V(Rk) D_k ) - W_k |V(Rk)|^2 ) / s^2      (Eq. 7')
    relion   log L = -sum_k |D_k - W_k V(Rk)|^2 / (M_k s_k^2)                   (Eq. 7)

over independent components k, with D = sum l C X, W = sum l C^2, M = sum l (Eqs. 8-10), l being the trilinear share of
a pixel in voxel k, and V scaled as in `tiltwise.maps.volumes`: D = W V without noise.  To the E-step and the M-step a
pseudo-subtomogram is an image whose frequencies have three axes, seen in one view that rotates nothing.

Trilinear shares take a product of sinc^2(x / N) along each axis from the density, less of it far from the centre.
The exact form divides D by that in real space; its cross term is then that of Eq. 4.  Its quadratic term is larger
than that of the same slices, sum l |V|^2 >= |sum l V|^2.  RELION's form takes the sums as they are.

In the exact form the noise power of every tilt, as measured from the images, is inside the sums, and s^2 is what is
left to learn, near 1.  Of sums that were stored s^2 is the whole noise power.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tiltwise.errors import DataError
from tiltwise.extract.cache import ParticleCache
from tiltwise.extract.images import EDGE_PX, ParticleImages
from tiltwise.geometry.rotations import euler_to_matrix
from tiltwise.io.stacks import read_pseudo_subtomogram
from tiltwise.kernels.api import Backend
from tiltwise.maps.volumes import Accumulator, gridding_correction
from tiltwise.maps.whitening import slice_matrices
from tiltwise.model import OptimisationSet, Views, WholeView
from tiltwise.model.poses import series_index
from tiltwise.spectral.ball import FourierBall
from tiltwise.spectral.components import FourierComponents
from tiltwise.spectral.fft import centred_fft3, irfft3, rfft3
from tiltwise.spectral.masks import soft_sphere


@dataclass(frozen=True, slots=True)
class Sums:
    """Eqs. 8-10 of one particle, half-complex (N, N, N // 2 + 1), centred on its present position."""

    data: NDArray[np.complexfloating]
    """D"""
    ctf2: NDArray[np.floating]
    """W"""
    multiplicity: NDArray[np.floating] | None
    """M; None where it is not needed"""


class SumsSource(Protocol):
    """Where the sums of a particle come from."""

    box: int
    pixel_size: float
    frames: NDArray[np.float64] | None
    """(P, 3, 3) rotations from the frames of the sums into the tomogram; None if they are the same"""

    def visible(self, displacement_angstrom: NDArray[np.float64]) -> NDArray[np.bool_]:
        """(P,) particles that can be summed at displacements (P, 3)."""
        ...

    def load(self, particle: int, displacement_angstrom: NDArray[np.float64]) -> Sums:
        """Sums of a particle that is displaced (3,) Å along tomogram axes from its stored coordinate."""
        ...

    def reached(self) -> NDArray[np.bool_] | None:
        """Half-complex array that marks the voxels any sums reach; None if they are not known."""
        ...


class TiltSums:
    """Sums made in memory from the tilt images, in the frame of the tomogram.

    `noise_power` holds sigma^2 (F, S) of every series, inside the sums as D = sum l C X / sigma^2, W = sum l C^2 /
    sigma^2; None leaves it out and gives the multiplicity.
    """

    def __init__(self, cache: ParticleCache, backend: Backend, noise_power: list[NDArray[np.float64]] | None) -> None:
        self.cache, self.source, self.backend, self.noise_power = cache, cache.source, backend, noise_power
        self.box, self.pixel_size = self.source.box, self.source.pixel_size
        self.frames: NDArray[np.float64] | None = None
        self.visible = self.source.visible
        self._multiplicity: dict[tuple[int, bytes], NDArray[np.float64]] = {}

    def load(self, particle: int, displacement_angstrom: NDArray[np.float64]) -> Sums:
        """See `SumsSource.load`."""
        images = self.cache.load(particle, displacement_angstrom)
        number = int(self.source.series_of[particle])
        data, ctf2 = images.data, images.ctf2
        if self.noise_power is None:
            total = self._insert(number, images.tilts, data, ctf2)
            key = number, images.tilts.tobytes()
            if key not in self._multiplicity:
                ones = np.ones_like(ctf2)
                self._multiplicity[key] = self._insert(number, images.tilts, ones.astype(np.complex64), ones).weight
            return Sums(total.data, total.weight, self._multiplicity[key])
        inverse = (1.0 / self.noise_power[number][images.tilts][:, self.source.disc.shells]).astype(np.float32)
        total = self._insert(number, images.tilts, data * inverse, ctf2 * inverse)
        return Sums(total.data, total.weight, None)

    def reached(self) -> NDArray[np.bool_] | None:
        """See `SumsSource.reached`."""
        marked = Accumulator.empty(self.box, padding=1).weight
        for number, series in enumerate(self.source.optset.series):
            every = np.arange(series.n_tilts)
            ones = np.ones((series.n_tilts, len(self.source.disc)), np.float32)
            marked += self._insert(number, every, ones.astype(np.complex64), ones).weight
        return np.asarray(marked > 0.0)

    def _insert(
        self, series: int, tilts: NDArray[np.intp], data: NDArray[np.complex64], ctf2: NDArray[np.float32]
    ) -> Accumulator:
        total = Accumulator.empty(self.box, padding=1)
        self.backend.insert(
            data,
            ctf2,
            slice_matrices(self.source.optset.series[series], tilts, np.eye(3)[None], 1.0),
            self.source.disc.frequencies3d(),
            self.box // 2,
            total.data,
            total.weight,
            threads=1,  # particles side by side
        )
        return total.complete()


class StoredSums:
    """Sums from the pseudo-subtomograms that the particle file names, in the frames A_sub.

    They are centred on the stored coordinate: a particle that has moved since is followed with a phase ramp.

    Raises
    ------
    DataError
        if the size of the pseudo-subtomograms is unknown.
    """

    def __init__(self, optset: OptimisationSet, *, need_multiplicity: bool) -> None:
        self.optset, self.need_multiplicity = optset, need_multiplicity
        optics = optset.optics[int(optset.particles.optics_index[0])]
        if optics.image_size is None or optics.image_pixel_size_angstrom is None:
            raise DataError(
                "the size of the pseudo-subtomograms is unknown",
                where="data_optics",
                expected="rlnImageSize, rlnImagePixelSize",
                fix="take the particles.star that was written with the pseudo-subtomograms",
            )
        self.box, self.pixel_size = optics.image_size, optics.image_pixel_size_angstrom
        self.frames: NDArray[np.float64] | None = euler_to_matrix(optset.particles.subtomogram_angles_deg)

    def visible(self, displacement_angstrom: NDArray[np.float64]) -> NDArray[np.bool_]:
        """All."""
        return np.ones(len(displacement_angstrom), bool)

    def load(self, particle: int, displacement_angstrom: NDArray[np.float64]) -> Sums:
        """See `SumsSource.load`.

        Raises
        ------
        DataError
            if the file has another size, or no multiplicity though RELION's likelihood needs it.
        """
        stored = read_pseudo_subtomogram(self.optset, particle)
        where = self.optset.particles.image_files[particle]
        if stored.data.shape[0] != self.box:
            raise DataError(
                "a pseudo-subtomogram has the wrong size",
                where=where,
                expected=f"{self.box} voxels (rlnImageSize)",
                found=f"{stored.data.shape[0]} voxels",
                fix="extract all particles of an optics group with the same box",
            )
        if self.need_multiplicity and stored.multiplicity is None:
            raise DataError(
                "a pseudo-subtomogram has no multiplicity",
                where=self.optset.particles.ctf_files[particle],
                expected="squared CTF and multiplicity, two volumes along z",
                found="squared CTF alone",
                fix="extract again with RELION 4 or later, or use --likelihood exact",
            )
        frame = euler_to_matrix(self.optset.particles.subtomogram_angles_deg[particle])
        slopes = frame.T @ displacement_angstrom * (2.0 * np.pi / (self.box * self.pixel_size))
        axis = np.fft.fftfreq(self.box, 1.0 / self.box)
        ramps = [np.exp(1j * slope * axis).astype(np.complex64) for slope in slopes]
        data = centred_fft3(stored.data)
        data *= ramps[2][:, None, None] * ramps[1][:, None]
        data *= ramps[0][: self.box // 2 + 1]
        return Sums(data, stored.ctf2, stored.multiplicity)

    def reached(self) -> NDArray[np.bool_] | None:
        """None: every particle has its own frame."""
        return None


class PseudoModel:
    """Pseudo-subtomograms in the form of particle images, by the exact likelihood or RELION's.

    Parameters
    ----------
    sums
        where D, W and M come from.
    diameter_angstrom
        particle diameter for the masked copy used in scores; None does not mask.
    """

    def __init__(
        self,
        optset: OptimisationSet,
        sums: SumsSource,
        *,
        exact: bool,
        diameter_angstrom: float | None,
    ) -> None:
        self.sums, self.frames, self.visible = sums, sums.frames, sums.visible
        self.exact, self.pooled = exact, False
        self.series_of = series_index(optset)
        self.views: Sequence[Views] = [WholeView(series.name) for series in optset.series]
        self.box, self.pixel_size = sums.box, sums.pixel_size
        self.ball = FourierBall.create(self.box, kept=sums.reached())
        self.disc: FourierComponents = self.ball
        edge = min(EDGE_PX, self.box / 4)
        outer = self.box / 2 if diameter_angstrom is None else diameter_angstrom / self.pixel_size / 2 + edge
        sphere = soft_sphere(self.box, self.box / 2, edge)
        mask = soft_sphere(self.box, min(outer, self.box / 2), edge)
        attenuation = gridding_correction(self.box, self.box) if self.exact else np.float32(1.0)
        self._sphere, self._mask = (np.fft.ifftshift(part / attenuation).astype(np.float32) for part in (sphere, mask))
        self._volume_share = float((sphere**2).mean())
        """share of the box in which noise power is measured"""
        self.area_ratio = 1.0 / self._volume_share if self.exact else 1.0

    def load(
        self, particle: int, displacement_angstrom: NDArray[np.float64], count: int | None = None
    ) -> ParticleImages:
        """See `DataModel.load`; gives all components."""
        sums, ball = self.sums.load(particle, displacement_angstrom), self.ball
        spectrum = sums.data.astype(np.complex64)
        # what slices have at DC is all in this voxel: it must not leak into others
        spectrum[0, 0, 0] = 0.0
        real = irfft3(spectrum, self.box)
        masked = ball.take(rfft3(real * self._mask))
        if self.exact:
            data = ball.take(rfft3(real * self._sphere))
            data[0] = sums.data[0, 0, 0]
            samples = None
        else:
            assert sums.multiplicity is not None
            data = ball.take(sums.data).astype(np.complex64)
            samples = ball.take(sums.multiplicity).astype(np.float32)[None]
        power = ball.shell_means((data.real**2 + data.imag**2).astype(np.float64)[None])
        return ParticleImages(
            tilts=np.zeros(1, np.intp),
            data=data[None],
            masked=masked[None],
            ctf2=ball.take(sums.ctf2).astype(np.float32)[None],
            power=power * self.area_ratio,
            premultiplied=True,
            samples=samples,
        )
