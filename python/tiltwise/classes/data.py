"""What a classification works on: particles, images, half sets and folds, masks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tiltwise.classes.groups import PointGroups
from tiltwise.classes.options import ClassifyOptions
from tiltwise.classes.particle_maps import memory_bytes
from tiltwise.classes.residuals import PADDING, portions_of
from tiltwise.em.data import diameter_of, images_of, load_set, warn_of_mates
from tiltwise.errors import ConfigError, DataError, ResourceError
from tiltwise.exec import Job, Progress
from tiltwise.exec.memory import free_memory_bytes
from tiltwise.kernels.select import default_threads, load_backend
from tiltwise.maps.cross_fit import assign_folds
from tiltwise.maps.half_sets import half_sets
from tiltwise.maps.inputs import record
from tiltwise.maps.masks import check_diameter, focus_mask
from tiltwise.spectral.fft import fast_length
from tiltwise.spectral.filters import resample

FEWEST = 4
"""Particles per class, at least."""
LEAST_OVERLAP = 0.01
"""Share of a mask that must lie inside the particle."""
UNKNOWN = 1 << 30
"""Memory that is used where nobody knows how much is free."""
BYTES_OF_RUNNING, BYTES_OF_PACKED, BYTES_OF_SOLVING = 24, 7, 72
"""Per voxel of a padded volume: sums that are added to, complete sums of a fold, and what a map is solved with."""


@dataclass(frozen=True, slots=True)
class Grid:
    """Box in which maps are held while classes are sought: as coarse as the resolution limit allows."""

    shell: int
    """last that is compared"""
    box: int
    count: int
    """components of an image up to there"""


class ClassData:
    """Particles that tilt images show, and everything about them that does not change in a run."""

    def __init__(self, options: ClassifyOptions, job: Job, progress: Progress) -> None:
        self.options = options
        optset = load_set(options, job.warn)
        record(optset, job, progress)
        self.diameter = diameter_of(options, optset)
        self.optset = optset
        if options.align == "global" and optset.particles.has_mates:
            raise ConfigError(
                "a set that is expanded by its symmetry is searched everywhere",
                where="--align global",
                expected="none or local: all mates of a particle would find the same best pose, and count as one",
                found=f"{len(optset.particles)} particles that are mates of {len(set(optset.particles.source))}",
                fix="use --align none or local; or classify the set from before it was expanded",
            )
        if optset.particles.has_mates:
            warn_of_mates(options.symmetry, job.warn)
        self.refuse_few(options.classes + options.junk)
        self.groups = PointGroups.of(options.groups)
        self.threads = options.threads or default_threads()
        self.backend = load_backend(options.backend)

        def keep(box: int, wanted: int) -> int:
            self.spare_bytes = self._spare(box, progress)
            return min(wanted, self.spare_bytes // 2)

        self.images = images_of(
            options, optset, self.backend, self.threads, keep, job.check_abort, exact=True, masked=self.diameter
        )
        self.box, self.pixel_size = self.images.box, self.images.pixel_size
        check_diameter(options.particle_diameter, self.box, self.pixel_size)
        self.halves = half_sets(optset, options, job)
        of_half = assign_folds(optset, self.halves, options.folds, self.diameter, options.seed)
        keys = sorted(set(zip(self.halves.tolist(), of_half.tolist(), strict=True)))
        number = {key: i for i, key in enumerate(keys)}
        pairs = zip(self.halves.tolist(), of_half.tolist(), strict=True)
        self.folds = np.array([number[key] for key in pairs], np.int64)
        self.half_of = np.array([half for half, _ in keys], np.int64)
        self.portions = portions_of(self.folds, self.images.series_of)
        self.sphere = focus_mask(None, self.diameter, self.box, self.pixel_size)
        self.mask = focus_mask(options.mask, self.diameter, self.box, self.pixel_size, progress.note)
        inside = float((self.mask * self.sphere).sum()) / float(self.mask.sum())
        if not inside >= LEAST_OVERLAP:
            raise DataError(
                "the mask lies outside the particle",
                where=f"--mask {options.mask}",
                expected=f"a mask inside the sphere of {self.diameter:.0f} Å that holds the particle",
                found=f"{inside:.1%} of it there",
                fix="check the origin of the mask, or raise --particle-diameter",
            )

    def _spare(self, box: int, progress: Progress) -> int:
        """Bytes left for images and residuals besides the maps."""
        options = self.options
        padded = PADDING * box
        folds = 2 * options.folds
        each = BYTES_OF_RUNNING + folds * BYTES_OF_PACKED
        voxels = padded * padded * (padded // 2 + 1)
        maps = voxels * (BYTES_OF_SOLVING + (options.classes + len(self.groups.kinds)) * each)
        if options.references is None:
            # images that were extracted have pixels of their own; which are read is not known yet
            own = [optics.image_pixel_size_angstrom or 0.0 for optics in self.optset.optics]
            pixel = max(self.optset.series[0].pixel_size_angstrom * options.binning, *own)
            maps += memory_bytes(len(self.optset.particles), box * pixel, box // 2)
        free = free_memory_bytes()
        if options.memory is not None:
            limit = int(options.memory * 1e9)
        else:
            limit = maps + UNKNOWN if free is None else free // 2
        if maps > limit:
            raise ResourceError(
                "not enough memory",
                where="--memory" if options.memory is not None else "this machine",
                expected=f"at least {maps / 1e9:.1f} GB for {options.classes} maps of {box} voxels"
                + (", and small ones of particles" if options.references is None else ""),
                found=f"{limit / 1e9:.1f} GB" + ("" if options.memory is not None else ", half of what is free"),
                fix="give more with --memory, or use a smaller --crop, a larger --bin, or fewer --folds",
            )
        progress.note(f"memory: maps {maps / 1e9:.2f} GB at most, images and residuals {(limit - maps) / 1e9:.2f} GB")
        return limit - maps

    def refuse_few(self, classes: int) -> None:
        """Raises ConfigError if there are too few particles for so many classes."""
        count = len(self.optset.particles)
        if count < FEWEST * classes:
            raise ConfigError(
                "too few particles for so many classes",
                where="--k",
                expected=f"{FEWEST} particles for every class: of {count} particles at most {count // FEWEST} classes",
                found=f"{classes} classes",
                fix="lower --k",
            )

    def shell_of(self, angstrom: float) -> int:
        """Shell of a resolution."""
        return round(self.box * self.pixel_size / angstrom)

    def grid(self, shell: int) -> Grid:
        """For maps up to a shell."""
        shell = min(max(shell, 3), int(self.images.disc.radius))
        box = min(fast_length(2 * (shell + 2)), self.box)
        return Grid(shell, box, self.images.disc.count(shell + 0.5))

    def pixel_of(self, grid: Grid) -> float:
        """Å per voxel of its maps."""
        return self.pixel_size * self.box / grid.box

    def small(self, mask: NDArray[np.float32], grid: Grid) -> NDArray[np.float32]:
        """A mask (N, N, N) of the whole box in that of a grid."""
        if grid.box == self.box:
            return mask
        return np.clip(resample(mask, self.pixel_size, self.pixel_of(grid), grid.box), 0.0, 1.0)
