"""`tiltwise reconstruct`: half maps and map from the poses in the file (Eq. 11 without a search)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiltwise.em.options import BFactorPlotOptions, ReconstructOptions
from tiltwise.em.relion_reconstruct import GatherReconstruction
from tiltwise.errors import ConfigError
from tiltwise.exec import Job, Progress
from tiltwise.exec.threads import ordered_map
from tiltwise.extract.images import ImageExtractor, ParticleImages
from tiltwise.extract.source import Poses
from tiltwise.geometry.symmetry import symmetry_matrices
from tiltwise.io.mrc import write_map
from tiltwise.kernels.api import Backend
from tiltwise.kernels.select import load_backend
from tiltwise.kernels.threads import default_threads
from tiltwise.maps.half_sets import half_sets
from tiltwise.maps.initial import initial_noise_power
from tiltwise.maps.inputs import read_set, record, source_of
from tiltwise.maps.insertion import insert_images
from tiltwise.maps.masks import check_diameter, focus_mask
from tiltwise.maps.spectra import half_maps
from tiltwise.maps.volumes import Accumulator, shell_means, solve_map
from tiltwise.model import OptimisationSet, TiltSeries
from tiltwise.spectral.fsc import fsc, resolution_angstrom

PADDING = 2
HALVES = (1, 2)
NOISE_SAMPLE = 10
"""Particles per series whose images give the noise power: a weight, so a rough value does."""
CHUNK = 20
"""Particles whose images are held at once."""


@dataclass(frozen=True, slots=True)
class ReconstructResult:
    """Maps and their agreement."""

    map: NDArray[np.float32]
    halves: tuple[NDArray[np.float32], NDArray[np.float32]]
    fsc: NDArray[np.float64]
    """of the half maps inside mask or sphere"""
    resolution_angstrom: float
    pixel_size: float
    optset: OptimisationSet
    rotations: NDArray[np.float64]
    """(P, 3, 3) reference to tomogram"""
    outputs: Mapping[str, Path]


class GivenPoses:
    """Particles at the poses of their file, and sums over them."""

    def __init__(self, options: ReconstructOptions | BFactorPlotOptions, job: Job, progress: Progress) -> None:
        self.options, self.job, self.progress = options, job, progress
        self.optset = read_set(options, need_images=None)
        record(self.optset, job, progress)
        self.halves = half_sets(self.optset, options, job)
        self.poses = Poses.of(self.optset)
        self.threads = options.threads or default_threads()
        self.source = source_of(options, self.optset)
        check_diameter(options.particle_diameter, self.source.box, self.source.pixel_size)
        self.seen, lost = self.source.leave_out_unseen(self.poses.displacement_angstrom)
        if lost:
            job.warn(lost)
        self.symmetry = symmetry_matrices(options.symmetry)
        self.mask = focus_mask(
            options.mask, options.particle_diameter, self.source.box, self.source.pixel_size, progress.note
        )
        progress.title(
            options.command,
            {
                "particles": len(self.optset.particles),
                "tilt series": len(self.optset.series),
                "box_px": self.source.box,
                "pixel_size_angstrom": self.source.pixel_size,
                "symmetry": options.symmetry,
            },
        )

    def noise(self) -> list[NDArray[np.float64]]:
        """Noise power (F, S) of every series, from a few of its images."""
        return initial_noise_power(self.source, self.load, self.threads, lambda n: None, NOISE_SAMPLE, self.seen)

    def load(self, particle: int) -> ParticleImages:
        """Images of a particle, centred."""
        return self.source.load(particle, self.poses.displacement_angstrom[particle])

    def sums(
        self, chosen: NDArray[np.bool_], noise: Sequence[NDArray[np.float64]], backend: Backend, advance: Any
    ) -> Accumulator:
        """Completed and symmetrised sums over some particles (P,) of those seen, weighted by the noise power."""
        accumulator = Accumulator.empty(self.source.box, PADDING)
        for number, series in enumerate(self.optset.series):
            members = np.flatnonzero((self.source.series_of == number) & chosen & self.seen)
            for start in range(0, len(members), CHUNK):
                self.job.check_abort()
                chunk = [int(m) for m in members[start : start + CHUNK]]
                images = ordered_map(self.load, chunk, self.threads)
                rotations = self.poses.rotation[chunk]
                insert_images(
                    accumulator, series, images, rotations, noise[number], self.source.disc, backend, self.threads
                )
                advance(len(chunk))
        return accumulator.complete().symmetrised(self.symmetry, backend)


class Reconstruction(GivenPoses):
    """Half maps and map of one run."""

    options: ReconstructOptions

    def transpose(self, advance: Any) -> tuple[dict[int, NDArray[np.float32]], NDArray[np.float32]]:
        """Half maps and map by transposed trilinear projection on a padded grid, weighted by the noise power."""
        noise, backend = self.noise(), load_backend(self.options.backend)
        done = {half: self.sums(self.halves == half, noise, backend, advance) for half in HALVES}
        joined, snr = done[1] + done[2], self.options.snr
        if snr is not None:
            solved = [solve_map(a, shell_means(a) / snr) for a in (done[1], done[2], joined)]
            return {1: solved[0], 2: solved[1]}, solved[2]
        first, second, relative = half_maps(done[1], done[2])
        # twice the data: half the prior
        return {1: first, 2: second}, solve_map(joined, 0.5 * relative * shell_means(joined), restore=True)

    def gather(self, advance: Any) -> tuple[dict[int, NDArray[np.float32]], NDArray[np.float32]]:
        """Half maps and map as relion_tomo_reconstruct_particle makes them."""
        if self.source.from_stacks or len(self.symmetry) > 1:
            raise ConfigError(
                "--relion-compatible reconstructs from tilt images and without symmetry",
                where="--relion-compatible",
                fix="leave it out, or give tilt series and --sym C1",
            )
        parts = {half: GatherReconstruction(self.options.box) for half in HALVES}
        for half, part in parts.items():
            for number, series in enumerate(self.optset.series):
                members = self.members(number, half)
                if not len(members):
                    continue
                for optics in np.unique(self.optset.particles.optics_index[members]):
                    same = members[self.optset.particles.optics_index[members] == optics]
                    self._gather_into(part, series, same, advance)
        crop, snr = self.options.map_size, self.options.snr
        maps = ordered_map(lambda part: part.solve(crop, snr), [parts[1], parts[2], parts[1] + parts[2]], self.threads)
        return {1: maps[0], 2: maps[1]}, maps[2]

    def members(self, series: int, half: int) -> NDArray[np.intp]:
        """Particles of a series and half set."""
        return np.flatnonzero((self.source.series_of == series) & (self.halves == half) & self.seen)

    def _gather_into(
        self, part: GatherReconstruction, series: TiltSeries, members: NDArray[np.intp], advance: Any
    ) -> None:
        """Adds particles of one series and optics group."""
        self.job.check_abort()
        extractor = self.source.loader(int(members[0]))
        assert isinstance(extractor, ImageExtractor)
        pixel = series.pixel_size_angstrom
        positions = self.poses.stored_px[members] + self.poses.displacement_angstrom[members] / pixel
        names = [self.optset.particles.name[m] for m in members]
        motions = [self.optset.trajectories[n] / pixel if n in self.optset.trajectories else None for n in names]
        part.add(extractor, positions, motions, self.poses.rotation[members], self.threads, advance)

    def run(self) -> ReconstructResult:
        """Reconstruct, compare the halves, write the maps."""
        work = self.gather if self.options.relion_compatible else self.transpose
        with (
            self.job.timing("reconstruction"),
            self.progress.task("particles", len(self.optset.particles)) as task,
        ):
            halves, density = work(task.advance)
            curve = fsc(halves[1], halves[2], self.mask)
        box, pixel = self.source.box, self.source.pixel_size
        resolution = resolution_angstrom(curve, box, pixel, 0.143)
        self.job.metric("resolution_angstrom", resolution)
        outputs = {name: self.job.path(f"{name}.mrc") for name in ("half1", "half2", "merged")}
        for name, volume in (("half1", halves[1]), ("half2", halves[2]), ("merged", density)):
            write_map(outputs[name], volume, pixel)
            label = "DensityMap.mrc.relion.tomo.reconstruct" if name == "merged" else None
            self.job.add_output(outputs[name], label or "DensityMap.mrc.relion.halfmap.tomo.reconstruct")
        return ReconstructResult(
            density,
            (halves[1], halves[2]),
            curve,
            resolution,
            pixel,
            self.optset,
            self.poses.rotation,
            outputs,
        )


def run(options: ReconstructOptions, job: Job, progress: Progress) -> ReconstructResult:
    """Reconstruct from given poses; the entry point of `tiltwise reconstruct` and of Python scripts."""
    return Reconstruction(options, job, progress).run()
