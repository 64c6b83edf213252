"""Refinement of a part of the particle: its own box and mask, and the rest of the particle taken off the images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiltwise.em.folds import FOLDS
from tiltwise.errors import DataError
from tiltwise.exec import Job, Progress
from tiltwise.exec.memory import free_memory_bytes
from tiltwise.exec.threads import ordered_map
from tiltwise.extract.images import ParticleImages
from tiltwise.extract.source import ParticleSource, Poses, Rest
from tiltwise.files import atomic_path
from tiltwise.geometry.symmetry import symmetry_matrices
from tiltwise.io.mrc import write_map
from tiltwise.io.optimisation_set import with_columns
from tiltwise.kernels.api import Backend
from tiltwise.maps.cross_fit import PADDING, affordable_folds, assign_folds, bytes_of_folds
from tiltwise.maps.focus import Frame
from tiltwise.maps.half_sets import half_sets
from tiltwise.maps.initial import initial_noise_power
from tiltwise.maps.inputs import source_of
from tiltwise.maps.insertion import insert_images
from tiltwise.maps.masks import focus_mask, read_mask, regridded
from tiltwise.maps.options import FocusOptions
from tiltwise.maps.spectra import last_used_shell, prior_from_fsc
from tiltwise.maps.subtraction import Consensus, Removal
from tiltwise.maps.volumes import Accumulator, solve_map
from tiltwise.maps.whole import Whole
from tiltwise.model import OptimisationSet
from tiltwise.model.poses import series_index

SHARED = "focus.npz"
"""File in the folder of a job from which workers take what --focus asks for; it goes when the job is done."""
SAMPLE = 60
"""Particles, of all series together, whose images tell what is taken off."""
SHARE_OF_MAPS = 0.5
"""Of the memory allowed, for the maps of the rest while they are made."""
UNKNOWN = 4 << 30
"""Bytes, where nobody knows how much is free."""
LEAST_DENSITY = 0.5
"""Root mean square of a map inside the focus mask, over that in the whole box, below which there is no part in it."""


@dataclass(frozen=True, slots=True)
class Focus:
    """A part of the particle, and what is taken off the images for it."""

    frame: Frame
    optset: OptimisationSet
    """particles whose coordinates are the centres of their parts, and whose file also says where they are whole"""
    offset_angstrom: NDArray[np.float64]
    """(3,) x, y, z of the centre of the part in the box of the whole particle"""
    consensus: Consensus | None = None
    """maps of the particle; None if nothing is taken off"""
    removal: Removal | None = None
    """what is taken off"""
    averages: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None
    """maps (N, N, N) in the box of the part, of the same few particles, before and after"""
    rest_folds: int | None = None
    """that the rest is predicted with: a run that is continued must have them again"""

    @property
    def bytes_kept(self) -> int:
        """Of the volumes that the rest is predicted from."""
        if self.consensus is None:
            return 0
        padded = PADDING * len(self.frame.mask)
        return 8 * (len(self.consensus.rest) + len(self.consensus.whole)) * padded * padded * (padded // 2 + 1)

    def taken(self, rows: NDArray[np.intp]) -> Focus:
        """For some of the particles, by number; masks and maps are the same."""
        optset = replace(self.optset, particles=self.optset.particles.take(rows))
        consensus = None if self.consensus is None else self.consensus.take(rows)
        return replace(self, optset=optset, consensus=consensus)

    def rest(self, source: ParticleSource, backend: Backend) -> Rest | None:
        """What is taken off the images of `source`."""
        return None if self.consensus is None else self.consensus.subtraction(source, backend)

    def share(self, path: Path) -> None:
        """Writes what `shared` needs in another process."""
        arrays: dict[str, NDArray[Any]] = {}
        if self.consensus is not None:
            arrays = {"keys": np.array(self.consensus.keys), "curve": self.consensus.curve}
            for name, maps in (("rest", self.consensus.rest), ("whole", self.consensus.whole)):
                arrays |= {f"{name}_{half}_{fold}": density for (half, fold), density in maps.items()}
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]

    def write(self, job: Job) -> dict[str, Path]:
        """The mask in the box of the part, for what follows; what workers needed goes."""
        job.path(SHARED).unlink(missing_ok=True)
        path = job.path("run_focus_mask.mrc")
        write_map(path, self.frame.mask, self.frame.pixel_size)
        job.add_output(path, "Mask3D.mrc.relion")
        return {"focus_mask": path}

    def around(self, density: NDArray[np.float32]) -> NDArray[np.float32]:
        """A map of the whole particle in the box of the part."""
        x, y, z = (float(one) for one in self.offset_angstrom / self.frame.pixel_size)
        return regridded(density, 1.0, len(density), (x, y, z))

    def start(self, density: NDArray[np.float32]) -> NDArray[np.float32]:
        """The part of a map in the box that the mask was made in, in the box of the part.

        Raises
        ------
        DataError
            if there is nothing in it.
        """
        part = self.frame.moved(density)
        weight = self.frame.mask
        inside = float(np.sqrt((weight * part**2).sum(dtype=np.float64) / weight.sum(dtype=np.float64)))
        whole = float(np.sqrt((density**2).mean(dtype=np.float64)))
        if not inside > LEAST_DENSITY * whole:
            raise DataError(
                "the focus mask misses the particle",
                where="--focus",
                expected="density of --ref inside the mask",
                found=f"a root mean square of {inside:.2g} there, and of {whole:.2g} in the whole box",
                fix="make the mask in the box of the map that belongs to the poses, and give that map as --ref",
            )
        return part * weight


def focused(
    options: FocusOptions,
    optset: OptimisationSet,
    backend: Backend,
    threads: int,
    job: Job,
    progress: Progress,
    *,
    folds: int | None = None,
    kept_folds: int | None = None,
    subtract: bool = True,
) -> tuple[OptimisationSet, NDArray[np.int64], Focus | None]:
    """The set that a job works on, half sets (P,), and what --focus asks for.

    A particle is predicted without one of `folds` of its half set, 2 at least, or fewer where memory is short; a run
    that is continued gives those it began with as `kept_folds`.  Without `subtract` nothing is taken off.

    Raises
    ------
    FormatError, ShapeError, DataError
        if masks cannot be used, half maps do not agree, or images were extracted before.
    ResourceError
        if there is no memory for maps of the rest.
    """
    if options.focus is None:
        return optset, half_sets(optset, options, job), None
    frame, optset = _framed(options, optset, job.warn, progress.note)
    whole = Whole.of(optset)
    whole.refuse_elsewhere(optset, options.size_of_particle(frame.pixel_size))
    offset = whole.part_angstrom + frame.offset_angstrom
    if whole.known:
        progress.note(
            "particles are those of a part already: what else they show is predicted from the poses of the whole "
            "particles, which their file has"
        )
    halves = half_sets(optset, options, job)
    moved = with_columns(frame.particles(optset), whole.columns(frame.offset_angstrom))
    if not subtract:
        return moved, halves, Focus(frame, moved, offset)
    count = _rest_folds(options, folds, kept_folds, job.warn)
    consensus = _consensus(options, whole, optset, halves, count, backend, threads, job, progress)
    source, sample, shell = source_of(options, moved), _sample(moved), last_used_shell(consensus.curve)
    subtraction = consensus.subtraction(source, backend)
    with job.timing("rest"):
        removal = subtraction.removal(sample, shell)
        before = _average(source, sample, consensus.curve, backend, threads)
        source.rest = subtraction
        after = _average(source, sample, consensus.curve, backend, threads)
    job.event("subtraction", scale=removal.scale, scale_error=removal.scale_error, folds=count)
    if removal.wrong:
        job.warn(
            f"tilt images hold {removal.scale:.2f} +- {removal.scale_error:.2f} times what is taken off them: poses in "
            "the file do not fit the images, or their contrast does not fit the metadata"
        )
    return moved, halves, Focus(frame, moved, offset, consensus, removal, (before, after), count)


def shared(options: FocusOptions, optset: OptimisationSet, path: Path) -> Focus:
    """What another process wrote to a file with `Focus.share`, for the same set and options; without figures."""
    frame, optset = _framed(options, optset)
    moved, whole = frame.particles(optset), Whole.of(optset)
    offset = whole.part_angstrom + frame.offset_angstrom
    with np.load(path) as saved:
        arrays = dict(saved)
    if not arrays:
        return Focus(frame, moved, offset)
    keys = [(int(half), int(fold)) for half, fold in arrays["keys"]]
    rest, maps = (
        {key: arrays[f"{name}_{key[0]}_{key[1]}"] for key in sorted(set(keys)) if f"{name}_{key[0]}_{key[1]}" in arrays}
        for name in ("rest", "whole")
    )
    return Focus(frame, moved, offset, Consensus(whole.placed(optset), keys, rest, maps, arrays["curve"]))


def _framed(
    options: FocusOptions,
    optset: OptimisationSet,
    warn: Callable[[str], None] = lambda text: None,
    note: Callable[[str], None] = lambda text: None,
) -> tuple[Frame, OptimisationSet]:
    """Box about the part, and the particles whose part is seen."""
    assert options.focus is not None
    pixel_size = optset.series[0].pixel_size_angstrom * options.binning
    mask = read_mask(options.focus, options.map_size, pixel_size, "--focus", note)
    frame = Frame.of(mask, pixel_size, options.focus_center)
    return frame, _with_part_seen(options, optset, frame, warn)


def _rest_folds(options: FocusOptions, wanted: int | None, kept: int | None, warn: Callable[[str], None]) -> int:
    """Folds of the maps of the rest; those an earlier run had, whatever memory there is now."""
    memory = options.memory * 1e9 if options.memory is not None else (free_memory_bytes() or UNKNOWN) / 2
    allowed = affordable_folds(options.map_size, kept or max(wanted or FOLDS, 2), int(SHARE_OF_MAPS * memory))
    if kept is not None and allowed < kept:
        warn(
            f"memory for maps of the rest in {allowed} folds, and the run began with {kept}: it goes on with these "
            f"and takes {bytes_of_folds(options.map_size, kept) / 1e9:.1f} GB for them"
        )
    return kept or allowed


def _sample(optset: OptimisationSet) -> list[int]:
    """Particles, as many of every series, that tell what subtraction does."""
    series = series_index(optset)
    most = max(1, SAMPLE // max(len(np.unique(series)), 1))
    return [int(i) for number in np.unique(series) for i in np.flatnonzero(series == number)[:most]]


def _average(
    source: ParticleSource, members: list[int], curve: NDArray[np.float64], backend: Backend, threads: int
) -> NDArray[np.float32]:
    """Map of some particles at the poses of their set, filtered by an FSC."""
    poses, still = Poses.of(source.optset), np.zeros(3)
    chosen = np.zeros(len(source.series_of), bool)
    chosen[members] = True

    def load(particle: int) -> ParticleImages:
        return source.load(particle, still)

    noise = initial_noise_power(source, load, threads, lambda n: None, SAMPLE, chosen)
    sums = Accumulator.empty(source.box, PADDING)
    for number, series in enumerate(source.optset.series):
        own = [i for i in members if source.series_of[i] == number]
        images = ordered_map(load, own, threads)
        insert_images(sums, series, images, poses.rotation[own], noise[number], source.disc, backend, threads)
    sums = sums.complete()
    return solve_map(sums, prior_from_fsc(sums, curve), float(last_used_shell(curve)))


def extracted_before() -> DataError:
    """Error for images that are multiplied by their CTF and masked: nothing can be taken off, no box can be moved."""
    return DataError(
        "a part of the particle can only be cut from tilt images",
        where="--focus",
        expected="tilt series whose images exist",
        found="images that were extracted before",
        fix="give the tilt series that the images were extracted from; --data-model stack2d",
    )


def _with_part_seen(
    options: FocusOptions, optset: OptimisationSet, frame: Frame, warn: Callable[[str], None]
) -> OptimisationSet:
    """The particles whose part any tilt image shows; `warn` is told of the others.

    Raises
    ------
    DataError
        if images were extracted before: boxes cannot be moved, nor anything be taken off what is multiplied and
        masked; or if so many particles are lost that coordinates must be wrong.
    """
    moved = frame.particles(optset)
    source = source_of(options, moved)
    if source.from_stacks:
        raise extracted_before()
    seen, lost = source.leave_out_unseen(np.zeros((len(moved.particles), 3)))
    if lost is None:
        return optset
    warn(lost)
    return replace(optset, particles=optset.particles.take(np.flatnonzero(seen)))


def _consensus(
    options: FocusOptions,
    whole: Whole,
    optset: OptimisationSet,
    halves: NDArray[np.int64],
    count: int,
    backend: Backend,
    threads: int,
    job: Job,
    progress: Progress,
) -> Consensus:
    """Maps of the particle and of its rest, in `count` folds, from the poses of the whole particles."""
    box, pixel_size = options.map_size, optset.series[0].pixel_size_angstrom * options.binning
    assert options.focus is not None
    mask = read_mask(options.focus, box, pixel_size, "--focus")
    x, y, z = (float(one) for one in -whole.part_angstrom / pixel_size)
    part = regridded(mask, 1.0, box, (x, y, z)) if whole.known else mask
    if options.rest is None:
        particle = focus_mask(None, options.particle_diameter, box, pixel_size)
        rest = particle * (1.0 - part)
    else:
        rest = read_mask(options.rest, box, pixel_size, "--rest", progress.note) * (1.0 - part)
        particle = np.maximum(rest, part)
    optset = whole.placed(optset)
    folds = assign_folds(optset, halves, count, options.size_of_particle(pixel_size), options.seed)
    with job.timing("rest"), progress.task("rest of the particle", len(optset.particles)) as task:

        def advance(number: int) -> None:
            job.check_abort()
            task.advance(number)

        return Consensus.of(
            source_of(options, optset),
            halves,
            folds,
            np.asarray(particle, np.float32),
            np.asarray(rest, np.float32),
            symmetry_matrices(options.symmetry),
            backend,
            threads,
            advance,
            neighbours=options.subtract_neighbours,
        )
