"""One tilt series as an alignment sees it: particles, tilts in the order of dose, and what images say of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tiltwise.exec.threads import ordered_map
from tiltwise.extract.images import ParticleImages
from tiltwise.extract.source import ParticleSource, Poses
from tiltwise.kernels.api import I32, Backend
from tiltwise.maps.whitening import refuse_noise, slice_matrices
from tiltwise.model import TiltSeries
from tiltwise.motion.fields import FieldBasis
from tiltwise.motion.gaussian_process import MotionBasis
from tiltwise.motion.geometry import Alignment, Specimen
from tiltwise.motion.objective import Evidence
from tiltwise.motion.tables import TableGrid, information
from tiltwise.spectral.disc import FourierDisc
from tiltwise.spectral.phases import phase_ramps

F64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class SeriesData:
    """What is known of one series before it is aligned."""

    series: TiltSeries
    members: NDArray[np.intp]
    """(P,) particles of the set"""
    seen: NDArray[np.bool_]
    """(P,) whether any tilt shows the particle"""
    rotations: F64
    """(P, 3, 3) reference to tomogram"""
    position_px: F64
    """(P, 3) unbinned"""
    motion_px: F64
    """(P, F, 3) given with the particles, tilts in the order of dose"""
    order: NDArray[np.intp]
    """(F,) rows of the series in the order of dose"""
    position_sigma_angstrom: float
    """width of the prior on displacements"""

    @classmethod
    def of(cls, source: ParticleSource, poses: Poses, number: int, position_sigma_angstrom: float) -> SeriesData:
        """Series `number` of the set of a source."""
        optset = source.optset
        series = optset.series[number]
        members = np.flatnonzero(source.series_of == number)
        order = np.argsort(series.pre_exposure, kind="stable")
        pixel = series.pixel_size_angstrom
        still = np.zeros((series.n_tilts, 3))
        names = [optset.particles.name[m] for m in members]
        motion = np.array([optset.trajectories.get(name, still) for name in names]).reshape(-1, series.n_tilts, 3)
        position = poses.stored_px[members] + poses.displacement_angstrom[members] / pixel
        seen = source.visible(poses.displacement_angstrom)[members]
        return cls(
            series,
            members,
            seen,
            poses.rotation[members],
            position,
            motion[:, order] / pixel,
            order,
            position_sigma_angstrom,
        )

    @property
    def rank(self) -> NDArray[np.intp]:
        """(F,) place of every row of the series in the order of dose."""
        return np.argsort(self.order)

    @property
    def dose(self) -> F64:
        """(F - 1,) e/Å^2 between consecutive tilts."""
        return np.diff(self.series.pre_exposure[self.order])

    def basis(self, length_angstrom: float, kernel: str) -> MotionBasis:
        """Modes of the velocities of all particles, those no tilt shows included."""
        positions = self.position_px * self.series.pixel_size_angstrom
        return MotionBasis.create(positions, length_angstrom, "gaussian" if kernel == "gaussian" else "exponential")

    def specimen(self, basis: F64 | None = None, velocity: float = 0.0, fields: FieldBasis | None = None) -> Specimen:
        """Without motion, or with modes (P, B) and a velocity in Å per e/Å^2; with deformations to choose from."""
        projection = self.series.projection[self.order]
        points = self.position_px[:, None] + self.motion_px
        cut = self.series.project(points[:, self.rank])[:, self.order, :2]
        given = self.series.deformation
        modes = np.zeros((len(self.members), 0)) if basis is None else basis
        return Specimen(
            projection[:, :3, :3],
            projection[:, :3, 3],
            np.asarray(self.series.tomogram_size) / 2.0,
            self.position_px,
            self.motion_px,
            cut,
            modes,
            velocity * self.dose / self.series.pixel_size_angstrom,
            self.series.pixel_size_angstrom,
            self.position_sigma_angstrom / self.series.pixel_size_angstrom,
            None if given is None else given.rows(self.order),
            fields,
        )


def centred(images: ParticleImages, displacement: F64, disc: FourierDisc) -> ParticleImages:
    """Images whose particles lie `displacement` (F, 2), in their pixels, from the centre, moved back to it."""
    ramps = phase_ramps(disc.frequencies, displacement * (2.0 * np.pi / disc.box))
    return replace(images, data=(images.data * ramps).astype(np.complex64))


@dataclass(frozen=True, slots=True)
class Correlator:
    """Makes the correlation tables of a series."""

    disc: FourierDisc
    backend: Backend
    threads: int
    inside: int
    """threads that read the tables of one series while it is fitted"""
    binning: float
    radius: float
    """shells that enter"""
    reach_px: float
    """in pixels of the images"""

    def nothing(self) -> Evidence:
        """Of a series without visible particles."""
        grid = TableGrid.create(self.disc, self.radius, self.reach_px)
        none = np.zeros(0, np.intp)
        tables, information = np.zeros((0, grid.size, grid.size), np.float32), np.zeros((0, 2, 2))
        return Evidence(grid, tables, information, np.zeros(0), none, none, self.binning, backend=self.backend)

    def evidence(
        self,
        data: SeriesData,
        alignment: Alignment,
        specimen: Specimen,
        load: Callable[[int], ParticleImages],
        references: Mapping[int, NDArray[np.complex64]],
        noise_power: F64,
    ) -> Evidence:
        """Tables of every visible image; `references` are the volumes of the members, by their number.

        Predictions are made at the present angles of the tilts; images are where they were cut.

        Raises
        ------
        DataError
            if the noise power is not positive.
        """
        grid = TableGrid.create(self.disc, self.radius, self.reach_px)
        frequencies, shells, rank = self.disc.frequencies3d(grid.count), self.disc.shells[: grid.count], data.rank
        turned = replace(data.series, projection=alignment.projection(specimen)[rank])
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):  # tilts that show particles are checked
            weights = np.ascontiguousarray(2.0 / noise_power[:, shells], np.float32)
        weights[:, 0] = 0.0  # the mean grey value says nothing
        seen = np.flatnonzero(data.seen)
        tables = np.zeros((len(seen) * data.series.n_tilts, grid.size, grid.size), np.float32)

        def of(slot: int) -> tuple[I32, F64, NDArray[np.intp], NDArray[np.intp]]:
            member = int(seen[slot])
            images = load(int(data.members[member]))
            refuse_noise(noise_power[images.tilts][:, : int(shells.max(initial=0)) + 1])
            volume = references[member]
            padded = volume.shape[0]
            matrices = slice_matrices(turned, images.tilts, data.rotations[member][None], padded / self.disc.box)
            model = self.backend.project(volume, matrices, frequencies, padded // 2, threads=1)
            first, n = slot * data.series.n_tilts, len(images.tilts)
            _, moments = self.backend.cc_table(
                model,
                images.data,
                images.ctf2,
                weights,
                images.tilts.astype(np.int32),
                grid.frequencies,
                grid.cosines,
                grid.sines,
                out=tables[first : first + n],
                threads=1,
            )
            row = np.arange(first, first + n, dtype=np.int32)
            return row, moments, np.full(n, member, np.intp), rank[images.tilts]

        parts = ordered_map(of, range(len(seen)), self.threads)
        row, moments, particle, tilt = (np.concatenate(column) for column in zip(*parts, strict=True))
        of_shifts = information(moments, self.disc.box) / self.binning**2
        return Evidence(
            grid,
            tables,
            of_shifts,
            moments[:, 0].copy(),
            particle,
            tilt,
            self.binning,
            row=row,
            backend=self.backend,
            threads=self.inside,
        )
