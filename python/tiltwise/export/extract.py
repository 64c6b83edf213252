"""`tiltwise extract`: 2D stacks and pseudo-subtomograms as relion_tomo_subtomo writes them (Eqs. 8-10)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tiltwise.errors import ConfigError, DataError
from tiltwise.exec import Job, Progress
from tiltwise.exec.threads import ordered_map
from tiltwise.export.options import ExtractOptions
from tiltwise.export.particles import images_of, place_of, refuse_without_room, seen_tilts
from tiltwise.extract.pseudo import pseudo_subtomogram
from tiltwise.extract.source import ParticleSource, Poses, Rest
from tiltwise.geometry.rotations import euler_to_matrix, matrix_to_euler
from tiltwise.io.mrc import read_header, write_map
from tiltwise.io.optimisation_set import write_optimisation_set, write_particles
from tiltwise.kernels.threads import default_threads
from tiltwise.maps.inputs import read_set, record
from tiltwise.model import OptimisationSet, Particles

CHUNK = 32
"""Particles between two looks at whether the run is to stop."""
HEADER_BYTES = 1024


@dataclass(frozen=True, slots=True)
class ExtractResult:
    """Where the images are."""

    optset: OptimisationSet
    """the set with images"""
    left_out: int
    visible: NDArray[np.int64]
    """(P,) tilts that see a particle"""
    bytes_written: int
    """of all image files"""
    single_precision: int
    """files that did not fit into half precision"""
    outputs: dict[str, Path]


@dataclass(frozen=True, slots=True)
class _File:
    """One image file: name, shape `[z, y, x]`, header pixel size."""

    path: Path
    shape: tuple[int, int, int]
    pixel_size: float

    @property
    def values(self) -> int:
        return self.shape[0] * self.shape[1] * self.shape[2]

    def is_there(self) -> bool:
        """Whether an earlier run wrote it: files appear complete or not at all."""
        return self.path.is_file() and read_header(self.path).shape == self.shape


class Extraction:
    """Data and options of one run."""

    def __init__(self, options: ExtractOptions, job: Job, progress: Progress) -> None:
        self.options, self.job, self.progress = options, job, progress
        self.threads = options.threads or default_threads()
        optset = read_set(options, need_images=True)
        record(optset, job, progress)
        _refuse_same_names(optset)
        optset = self.prepared(optset)
        poses = Poses.of(optset)
        displacement = poses.displacement_angstrom * options.apply_offsets
        source = _source(options, optset)
        tilts = [seen_tilts(source, particle, moved) for particle, moved in enumerate(displacement)]
        rows = np.flatnonzero([len(t) >= options.min_frames for t in tilts])
        self.left_out = len(tilts) - len(rows)
        if not len(rows):
            raise DataError(
                "no particle is seen in enough tilts",
                where=f"--min-frames {options.min_frames}",
                expected="particles inside the tilt images",
                found=f"at most {max(map(len, tilts))} tilts for a particle",
                fix="check coordinates (tiltwise check), --b, --crop and --max-dose",
            )
        if self.left_out:
            job.warn(f"{self.left_out} particles are seen in fewer than {options.min_frames} tilts and left out")
        self.visible = [tilts[row] for row in rows]
        self.optset = replace(optset, particles=optset.particles.take(rows))
        self.displacement, self.rotation = displacement[rows], poses.rotation[rows]
        self.source = _source(options, self.optset)
        self.source.rest = self.rest(rows)

    def prepared(self, optset: OptimisationSet) -> OptimisationSet:
        """The set whose particles boxes are centred on."""
        return optset

    def rest(self, rows: NDArray[np.intp]) -> Rest | None:
        """What is taken off the images of particles `rows` of that set, which are those of `source`."""
        return None

    def kept(self) -> dict[str, int]:
        """What a run that is continued must have again."""
        return {}

    # ---- files ------------------------------------------------------------------------------------------------

    def files(self, particle: int) -> list[_File]:
        """Files of one particle."""
        name, size, pixel = self.optset.particles.name[particle], self.source.box, self.source.pixel_size
        if "/" not in name:
            name = f"{self.optset.particles.tomogram[particle]}/{name}"
        stem = self.job.path("Subtomograms") / name

        def path(ending: str) -> Path:
            return stem.with_name(stem.name + ending)

        if self.options.stack2d:
            return [_File(path("_stack2d.mrcs"), (len(self.visible[particle]), size, size), pixel)]
        return [
            _File(path("_data.mrc"), (size, size, size), pixel),
            _File(path("_weights.mrc"), (2 * size, size, size // 2 + 1), 1.0 / pixel),
        ]

    def bytes_of(self, file: _File) -> int:
        """Size on disk."""
        return HEADER_BYTES + file.values * (2 if self.options.float16 else 4)

    def write(self, particle: int) -> int:
        """Cut and write the images of one particle; the number of files that did not fit into half precision."""
        extractor = images_of(self.source, particle)
        position, motion_px = place_of(self.source, particle, self.displacement[particle])
        remove = None if self.source.rest is None else self.source.rest.of(particle)
        if self.options.stack2d:
            arrays = [extractor.stack(position, motion_px, premultiplied=not self.options.raw, remove=remove)[1]]
        else:
            sums = pseudo_subtomogram(
                extractor,
                position,
                motion_px,
                self._frame(particle),
                cutoff_fraction=self.options.cutoff_fraction,
                remove=remove,
            )
            assert sums.multiplicity is not None
            arrays = [sums.data, np.concatenate([sums.ctf2, sums.multiplicity])]
        single = 0
        for file, array in zip(self.files(particle), arrays, strict=True):
            file.path.parent.mkdir(parents=True, exist_ok=True)
            single += _write(file, array, half=self.options.float16)
        return single

    def _frame(self, particle: int) -> NDArray[np.float64]:
        """Rotation from the frame of the box into the tomogram, A_sub or A_sub A_part."""
        if self.options.apply_orientations:
            return np.asarray(self.rotation[particle])
        return np.asarray(euler_to_matrix(self.optset.particles.subtomogram_angles_deg[particle]))

    # ---- the run ----------------------------------------------------------------------------------------------

    def run(self) -> ExtractResult:
        """Write what is missing, then the tables."""
        job, particles = self.job, self.optset.particles
        files = [self.files(particle) for particle in range(len(particles))]
        total = sum(self.bytes_of(file) for group in files for file in group)
        resumed = job.load_checkpoint("extract") is not None
        missing = [
            particle for particle, group in enumerate(files) if not (resumed and all(file.is_there() for file in group))
        ]
        needed = sum(self.bytes_of(file) for particle in missing for file in files[particle])
        fix = "write 2D stacks, a smaller --crop or --float16, or choose another disk"
        refuse_without_room(job.folder, needed, self.options.output, fix)
        # From here on files in the folder belong to these options: only such a run may go on with them.
        job.save_checkpoint("extract", {}, self.kept())
        self.progress.title(
            "extract",
            {
                "particles": len(particles),
                "tilt series": len(self.optset.series),
                "box_px": self.source.box,
                "pixel_size_angstrom": self.source.pixel_size,
                "form": "2D stacks" if self.options.stack2d else "pseudo-subtomograms",
                "disk_gb": round(total / 1e9, 3),
            },
        )
        if resumed:
            self.progress.note(f"{len(particles) - len(missing)} of {len(particles)} particles were extracted before")
        single = 0
        with job.timing("extract"), self.progress.task("extract", len(particles)) as task:
            task.advance(len(particles) - len(missing))
            for start in range(0, len(missing), CHUNK):
                job.check_abort()
                chunk = missing[start : start + CHUNK]
                single += sum(ordered_map(self.write, chunk, self.threads))
                task.advance(len(chunk))
        if single:
            job.warn(f"{single} files hold values that half precision would lose, and are in single precision")
        job.metric("particles", len(particles))
        total = sum(file.path.stat().st_size for group in files for file in group)
        job.metric("disk_gb", round(total / 1e9, 4))
        visible = np.array([len(tilts) for tilts in self.visible])
        with job.timing("write"):
            result, outputs = self._write_tables(files)
        return ExtractResult(result, self.left_out, visible, total, single, outputs)

    def _write_tables(self, files: list[list[_File]]) -> tuple[OptimisationSet, dict[str, Path]]:
        job, old = self.job, self.optset
        optset = replace(
            old,
            particles=self._described(files),
            stacks_are_2d=self.options.stack2d,
            optics=tuple(
                replace(
                    group,
                    image_pixel_size_angstrom=self.source.pixel_size,
                    image_size=self.source.box,
                    image_dimensionality=2 if self.options.stack2d else 3,
                    binning=self.options.binning,
                    ctf_premultiplied=not self.options.raw,
                )
                for group in old.optics
            ),
        )
        outputs = {name: job.path(f"{name}.star") for name in ("particles", "optimisation_set")}
        write_particles(outputs["particles"], optset)
        others = {key: path for key, path in old.paths.items() if key not in outputs}
        write_optimisation_set(outputs["optimisation_set"], **others, particles=outputs["particles"])
        job.add_output(outputs["particles"], "ParticleGroupMetadata.star.relion.tomo.extract")
        job.add_output(outputs["optimisation_set"], "TomoOptimisationSet.star.relion.tomo.extract")
        return optset, outputs

    def _described(self, files: list[list[_File]]) -> Particles:
        """Particles at the centres of their boxes."""
        particles = self.optset.particles
        changes: dict[str, object] = {
            "image_files": tuple(str(group[0].path.absolute()) for group in files),
            "ctf_files": () if self.options.stack2d else tuple(str(group[1].path.absolute()) for group in files),
            "visible": (),
        }
        if self.options.stack2d:
            tilts = {series.name: series.n_tilts for series in self.optset.series}
            changes["visible"] = tuple(
                np.isin(np.arange(tilts[name]), seen)
                for name, seen in zip(particles.tomogram, self.visible, strict=True)
            )
        if self.options.apply_offsets:
            pixel = np.array([images_of(self.source, p).series.pixel_size_angstrom for p in range(len(particles))])
            changes["coordinate_px"] = particles.coordinate_px + self.displacement / pixel[:, None]
            changes["origin_angstrom"] = np.zeros_like(particles.origin_angstrom)
        if self.options.apply_orientations:
            changes["subtomogram_angles_deg"] = matrix_to_euler(self.rotation)
            changes["angles_deg"] = np.zeros_like(particles.angles_deg)
            if particles.prior_angles_deg is not None:
                self.job.warn("the prior angles of the particles are those of the frame before --apply-orientations")
        return replace(particles, **changes)  # type: ignore[arg-type]


def run(options: ExtractOptions, job: Job, progress: Progress) -> ExtractResult:
    """Extract the images of all particles.

    Raises
    ------
    ConfigError, DataError
        if the set cannot be used, or no particle is seen.
    OutputError
        if the disk has no room.
    """
    return Extraction(options, job, progress).run()


def _source(options: ExtractOptions, optset: OptimisationSet) -> ParticleSource:
    return ParticleSource(
        optset,
        box_px=options.box,
        crop_px=options.map_size,
        binning=options.binning,
        diameter_angstrom=None,
        max_dose=options.max_dose,
    )


def _refuse_same_names(optset: OptimisationSet) -> None:
    particles = optset.particles
    names = list(zip(particles.tomogram, particles.name, strict=True))
    if len(set(names)) < len(names):
        twice = next(name for i, name in enumerate(names) if name in names[:i])
        raise ConfigError(
            "particles of one name would share their files",
            where=optset.paths.get("particles"),
            found=f"{twice[1]} of {twice[0]} twice",
            fix="give every particle a name of its own in rlnTomoParticleName",
        )


def _write(file: _File, array: NDArray[np.float32], *, half: bool) -> int:
    """1 if the file should have been in half precision and is not."""
    if half:
        try:
            write_map(file.path, array, file.pixel_size, "float16")
        except DataError:
            pass
        else:
            return 0
    write_map(file.path, array, file.pixel_size)
    return int(half)
