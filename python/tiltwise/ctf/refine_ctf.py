"""`tiltwise refine-ctf`: CTFs of all tilts from the particles they show (Appendix 1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tiltwise.ctf.aberrations import GroupEvidence, add_series, fit_aberration
from tiltwise.ctf.evidence import FOR_ODD, FOR_PHASES, collect
from tiltwise.ctf.held_out import compare
from tiltwise.ctf.memory import EvidenceMemory, allowed_bytes, pixels_within
from tiltwise.ctf.optics_groups import WHOLE, joined, split
from tiltwise.ctf.options import RefineCtfOptions
from tiltwise.ctf.reference_check import SAMPLE, refuse_inverted, refuse_wrong_hand
from tiltwise.ctf.references import References, cross_fitted, given_maps
from tiltwise.ctf.results import (
    GroupResult,
    SeriesResult,
    applied,
    fit_slabs,
    share_contrast,
    with_aberrations,
    write_results,
)
from tiltwise.ctf.series import SeriesModel, Settings
from tiltwise.errors import ConfigError, DataError
from tiltwise.exec import Job, Progress
from tiltwise.exec.threads import blas_threads
from tiltwise.extract.source import Poses
from tiltwise.geometry.symmetry import symmetry_matrices
from tiltwise.kernels.select import load_backend
from tiltwise.kernels.threads import default_threads
from tiltwise.maps.cross_fit import HALVES, affordable_folds, assign_folds
from tiltwise.maps.fit_poses import Partition, fit_poses
from tiltwise.maps.half_sets import half_sets
from tiltwise.maps.inputs import read_set, record, source_of
from tiltwise.maps.masks import focus_mask
from tiltwise.model import OptimisationSet
from tiltwise.optics.ctf import electron_wavelength_angstrom
from tiltwise.spectral.disc import FourierDisc
from tiltwise.spectral.fsc import resolution_angstrom

SHARE_OF_FOLDS = 0.6
"""Of the memory, for the sums of the folds; references and evidence take the rest."""


@dataclass(frozen=True, slots=True)
class RefineCtfResult:
    """New CTFs, and how they were found."""

    optset: OptimisationSet
    """the set that was read, with the CTFs that were applied"""
    series: list[SeriesResult]
    aberrations: list[GroupResult]
    references: References
    mask: NDArray[np.float32]
    resolution_angstrom: float
    """of the half maps"""
    used_angstrom: float
    """up to which images were compared"""
    pixel_size: float
    outputs: Mapping[str, Path]


class CtfRefinement:
    """Data and options of one run."""

    def __init__(self, options: RefineCtfOptions, job: Job, progress: Progress) -> None:
        self.options, self.job, self.progress = options, job, progress
        self.optset = read_set(options, need_images=True)
        record(self.optset, job, progress)
        self.read = self.optset
        if options.split_optics != WHOLE:
            self.optset = split(self.optset, options.split_optics)
        self.halves = half_sets(self.optset, options, job)
        self.poses = Poses.of(self.optset)
        if options.spherical_aberration:
            refuse_mixed_optics(self.optset)
        # the contrast of series against each other is one more thing that may be accepted by chance
        self.families = options.families + int(options.scale and len(self.optset.series) > 1)
        self.threads = options.threads or default_threads()
        self.memory = allowed_bytes(options.memory)
        self.backend = load_backend(options.backend)
        self.source = source_of(options, self.optset)
        self.visible = self.source.visible(self.poses.displacement_angstrom)
        if not self.visible.any():
            raise DataError(
                "no particle lies inside a tilt image",
                where=", ".join(series.name for series in self.optset.series[:5]),
                fix="check units, binning and origin of the coordinates, or use a smaller --crop",
            )
        self.mask = focus_mask(
            options.mask, options.particle_diameter, self.source.box, self.source.pixel_size, progress.note
        )
        progress.title(
            "refine-ctf",
            {
                "particles": int(self.visible.sum()),
                "tilt series": len(self.optset.series),
                "box_px": options.box,
                "pixel_size_angstrom": self.source.pixel_size,
                "symmetry": options.symmetry,
            },
        )

    def references(self) -> References:
        """Cross-fitted references, or the given maps."""
        options = self.options
        if options.ref1 is not None and options.ref2 is not None:
            whose = "the other half map" if options.opposite_half else "the half map that contains it"
            self.progress.note(
                f"every particle is predicted from {whose}: such references are biased towards the present CTFs"
                if not options.opposite_half
                else f"every particle is predicted from {whose}"
            )
            self.memory_plan = self.plan_memory(1)
            return given_maps(
                self.source, (options.ref1, options.ref2), self.halves, self.mask, opposite=options.opposite_half
            )
        count = affordable_folds(self.source.box, options.folds, int(SHARE_OF_FOLDS * self.memory))
        self.memory_plan = self.plan_memory(count)
        distance = options.size_of_particle(self.source.pixel_size)
        folds = assign_folds(self.optset, self.halves, count, distance, options.seed)
        if options.leave_out == "series":
            self.refuse_few_series()
        partition = Partition.create(self.optset, folds, count, options.leave_out)
        with self.progress.task("references", int(self.visible.sum())) as task:
            fit = fit_poses(
                self.source,
                self.poses,
                self.halves,
                folds,
                partition,
                self.mask,
                symmetry_matrices(options.symmetry),
                self.backend,
                self.threads,
                task.advance,
            )
            return cross_fitted(fit, self.source, self.halves, folds, partition, self.threads)

    def refuse_mirrored(self, references: References, disc: FourierDisc, settings: Settings) -> None:
        """Raises DataError where mirror images of given maps predict images far better than the maps themselves."""
        counts = np.bincount(self.source.series_of[self.visible], minlength=len(self.optset.series))
        number = int(np.argmax(counts))
        members = np.flatnonzero((self.source.series_of == number) & self.visible)
        chosen = members[:: max(1, len(members) // SAMPLE)][:SAMPLE]

        def evidence(volumes: References) -> SeriesModel:
            found = collect(
                self.source,
                self.poses,
                number,
                chosen,
                volumes,
                disc,
                self.backend,
                self.threads,
                lambda count: None,
                judged=1,
                terms=self.memory_plan.terms,
            )
            return SeriesModel(self.optset.series[number], found, settings, self.backend, self.threads)

        refuse_wrong_hand(references, evidence)

    def refuse_few_series(self) -> None:
        """Raises ConfigError where nothing is left of a half set without one tilt series."""
        present = {half: set(self.source.series_of[(self.halves == half) & self.visible].tolist()) for half in HALVES}
        fewest = min(len(series) for series in present.values())
        if fewest < 2:
            raise ConfigError(
                "too few tilt series to leave one out",
                where="--leave-out series",
                expected="particles of two tilt series in each half set",
                found=f"{fewest}",
                fix="leave out tilts (the default), or divide halves otherwise with --split",
            )

    @property
    def coarsest(self) -> float:
        """Radius from which on phases are fitted, cycles per large box."""
        return self.options.box * self.source.pixel_size / self.options.kmin

    @property
    def finest(self) -> float:
        """Largest radius that options allow."""
        box, pixel = self.options.box, self.source.pixel_size
        return box / 2 if self.options.resolution is None else min(box / 2, box * pixel / self.options.resolution)

    def plan_memory(self, folds: int) -> EvidenceMemory:
        """Of the evidence, `folds` in each half set; tells how much it is, refuses what cannot fit at all."""
        voxels = 2 * self.source.box * (2 * self.source.box) * (self.source.box + 1)
        groups = set(zip(self.source.series_of.tolist(), self.optset.particles.optics_index.tolist(), strict=True))
        plan = EvidenceMemory(
            max(series.n_tilts for series in self.optset.series),
            folds,
            int(np.bincount([number for number, _ in groups]).max()),
            FOR_ODD if self.options.aberrations else FOR_PHASES,
            2 * folds * voxels * 8,
            self.memory,
        )
        plan.judged(pixels_within(self.coarsest + 2))
        most = plan.needed(pixels_within(self.finest), folds)
        self.progress.note(f"memory: at most {most / 1e9:.1f} GB, of {self.memory / 1e9:.1f} GB allowed")
        return plan

    def pixels(self, references: References) -> FourierDisc:
        """Fourier pixels of the large box that the references reach."""
        box, crop, pixel = self.options.box, self.source.box, self.source.pixel_size
        radius = min((references.shell + 0.5) * box / crop, self.finest)
        if radius < self.coarsest + 2:
            raise ConfigError(
                "there is nothing to fit phases with",
                where="--kmin",
                expected="a resolution well below that of the half maps",
                found=f"--kmin {self.options.kmin:g} Å; the half maps agree to {box * pixel / radius:.1f} Å",
                fix="refine the poses further, or raise --kmin",
            )
        return FourierDisc.create(box, radius)

    def run(self) -> RefineCtfResult:
        """References, one pass over the images, fits, verdicts, files."""
        options = self.options
        with self.job.timing("references"):
            references = self.references()
        disc = self.pixels(references)
        judged = self.memory_plan.judged(len(disc))
        if judged < self.memory_plan.folds:
            self.job.warn(
                f"memory for {judged} instead of {self.memory_plan.folds} blocks of particles that are judged by "
                "themselves: less may be called improved; see --memory"
            )
        settings = Settings(
            defocus=options.defocus,
            scale=options.scale,
            kmin_angstrom=options.kmin,
            scale_kmin_angstrom=max(options.scale_kmin, options.kmin),
            range_angstrom=(options.d0, options.d1),
            sigma_defocus=options.sigma_defocus,
            sigma_astigmatism=options.sigma_astigmatism,
            phase_shift=options.phase_shift,
            sigma_phase_shift=options.sigma_phase_shift,
            lambert=options.scale_model != "tilt",
        )
        if options.ref1 is not None:
            self.refuse_mirrored(references, disc, settings)
        results = []
        groups: dict[int, GroupEvidence] = {}
        with self.progress.task("evidence", int(self.visible.sum())) as task:
            for number, series in enumerate(self.optset.series):
                self.job.check_abort()
                members = np.flatnonzero((self.source.series_of == number) & self.visible)
                if not len(members):
                    results.append(SeriesResult.without_evidence(series))
                    continue
                with self.job.timing("evidence"):
                    evidence = collect(
                        self.source,
                        self.poses,
                        number,
                        members,
                        references,
                        disc,
                        self.backend,
                        self.threads,
                        task.advance,
                        judged=judged,
                        terms=self.memory_plan.terms,
                    )
                with self.job.timing("fits"):
                    model = SeriesModel(series, evidence, settings, self.backend, self.threads)
                    refuse_inverted(model)
                    fit = model.fit(model.total, measure_noise=True)
                    held_out = compare(model, self.families, force=options.force)
                    shifted = fit if options.phase_shift else None
                    phase = held_out.phase_shift
                    if phase is not None and not (options.force or phase.improved):
                        fit = model.fit(model.total, phase_shift=False)
                    if options.aberrations:
                        verdict = held_out.defocus
                        moved = verdict is not None and (options.force or verdict.improved)
                        add_series(groups, model, fit, moved=moved)
                    results.append(SeriesResult.of(series, model, fit, held_out, shifted))
                found = {name: verdict.verdict for name, verdict in results[-1].verdicts().items()}
                self.job.event("series", name=series.name, particles=len(members), **found)
        if options.scale:
            share_contrast(results, self.families)
            fit_slabs(self.optset.series, results, common=options.scale_model == "lambert-global")
        with self.job.timing("fits"):
            aberrations = self.aberrations(groups)
        new = applied(self.optset, results, force=options.force, lambert=settings.lambert)
        new = with_aberrations(new, results, aberrations, force=options.force)
        if not any(any(group.applied.values()) for group in aberrations):
            new = joined(new, self.read)
        outputs = write_results(self.job, self.optset, new, results, aberrations, slabs=settings.lambert)
        box, pixel = self.source.box, self.source.pixel_size
        resolution = resolution_angstrom(references.curve, box, pixel, 0.143)
        self.job.metric("resolution_angstrom", resolution)
        used = options.box * pixel / disc.radius
        return RefineCtfResult(new, results, aberrations, references, self.mask, resolution, used, pixel, outputs)

    def aberrations(self, groups: dict[int, GroupEvidence]) -> list[GroupResult]:
        """Aberrations of every optics group with evidence."""
        options, results = self.options, []
        for index, group in sorted(groups.items()):
            wavelength = None
            if options.spherical_aberration:
                wavelength = electron_wavelength_angstrom(self.optset.optics[index].voltage_kv)
            fits = {
                parity: fit_aberration(
                    group,
                    order,
                    even=parity == "even",
                    families=self.families,
                    backend=self.backend,
                    threads=self.threads,
                    wavelength=wavelength if parity == "even" else None,
                )
                for parity, order in (("even", options.even_order), ("odd", options.odd_order))
                if order or (parity == "even" and wavelength is not None)
            }
            results.append(GroupResult(index, self.optset.optics[index].name, group, fits))
        return results


def refuse_mixed_optics(optset: OptimisationSet) -> None:
    """Raises ConfigError for a tilt series with particles of several optics groups, which share its one Cs."""
    pairs = set(zip(optset.particles.tomogram, optset.particles.optics_index.tolist(), strict=True))
    names = [name for name, _ in pairs]
    mixed = sorted({name for name in names if names.count(name) > 1})
    if mixed:
        raise ConfigError(
            "a tilt series has one spherical aberration, and its particles several optics groups",
            where=", ".join(mixed[:5]),
            expected="one optics group for all particles of a tilt series",
            fix="use --even-order 4, which is fitted to every optics group, in place of --cs",
        )


def run(options: RefineCtfOptions, job: Job, progress: Progress) -> RefineCtfResult:
    """Refine CTFs; the entry point of `tiltwise refine-ctf` and of Python scripts."""
    with blas_threads(1):
        return CtfRefinement(options, job, progress).run()
