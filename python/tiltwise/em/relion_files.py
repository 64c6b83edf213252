"""Files of single iterations, and model, sampling and optimiser files, under the names relion_refine gives them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tiltwise.em.estimates import PoseEstimate
from tiltwise.em.options import RefineOptions
from tiltwise.em.results import posterior_columns, with_poses
from tiltwise.em.state import HALVES, State
from tiltwise.exec import Job
from tiltwise.geometry.directions import direction_shares
from tiltwise.geometry.grids import angular_step_deg
from tiltwise.io.mrc import write_map
from tiltwise.io.optimisation_set import write_particles
from tiltwise.io.paths import path_text
from tiltwise.io.refine_files import Model, Sampling, ShellTable, write_model, write_optimiser, write_sampling
from tiltwise.maps.spectra import MIN_PRIOR_SHELL, prior_from_fsc
from tiltwise.maps.volumes import Accumulator, padded_shells, shell_means
from tiltwise.model import OptimisationSet
from tiltwise.model.poses import series_index

_ITERATION_FILE = re.compile(r"run_it(\d{3,})_(data|sampling|optimiser|half[12]_(model|class001))\.(star|mrc)")
_MASK_EDGE_PX = 5


def shell_table(accumulator: Accumulator, half_fsc: NDArray[np.float64], snr_fsc: NDArray[np.float64]) -> ShellTable:
    """Signal, noise and completeness in every shell of a completed accumulator.

    `half_fsc` (N // 2 + 1,) is reported; `snr_fsc`, which the prior of the map was made with, is the share of the
    power that is signal: SNR = c / (1 - c), noise = 1 / mean weight, tau^2 = SNR x noise.  A voxel of the box is as
    many voxels of the padded volume as share its weight.
    """
    clipped = np.clip(snr_fsc, 1e-3, 0.999)
    ratio = clipped / (1.0 - clipped)
    finer = (accumulator.padded / accumulator.box) ** 3
    means = shell_means(accumulator)
    noise = np.divide(1.0 / finer, means, out=np.zeros_like(means), where=means > 0)
    shells = padded_shells(accumulator.box, accumulator.padded).ravel()
    count = len(ratio)
    needed = np.full(int(shells.max()) + 1, np.inf)
    needed[:count] = prior_from_fsc(accumulator, snr_fsc)
    needed[:MIN_PRIOR_SHELL] = 0.0
    complete = (accumulator.weight.ravel() >= needed[shells]) & (accumulator.weight.ravel() > 0)
    members = np.bincount(shells, minlength=count)[:count]
    completeness = np.bincount(shells, complete, minlength=count)[:count] / np.maximum(members, 1)
    return ShellTable(half_fsc, ratio, ratio * noise, noise, completeness)


@dataclass(frozen=True, slots=True)
class Progressed:
    """Numbers of the last iteration that went before the files are written."""

    resolution_angstrom: float
    radius: float
    accuracy_deg: float
    accuracy_angstrom: float
    change_deg: float
    change_angstrom: float

    @classmethod
    def of(cls, history: Sequence[Mapping[str, float]], resolution_angstrom: float, radius: float) -> Progressed:
        """From the rows of all iterations so far; zeros where there has been none."""
        last = history[-1] if history else {}
        names = ("accuracy_deg", "accuracy_angstrom", "change_deg", "change_angstrom")
        return cls(resolution_angstrom, radius, *(float(last.get(name, 0.0)) for name in names))


@dataclass(slots=True)
class RelionFiles:
    """Writes the files; each is complete as soon as it has its name."""

    job: Job
    options: RefineOptions
    optset: OptimisationSet
    halves: NDArray[np.int64]
    symmetry: NDArray[np.float64]
    diameter_angstrom: float
    pixel_size: float

    def clear(self, before: int | None = None) -> None:
        """Removes files of iterations, or only of those before `before`."""
        for path in self.job.folder.iterdir():
            match = _ITERATION_FILE.fullmatch(path.name)
            if match and (before is None or int(match[1]) < before):
                with suppress(FileNotFoundError):
                    path.unlink()

    def iteration_files(self) -> list[Path]:
        """Files of iterations that are there."""
        return sorted(path for path in self.job.folder.iterdir() if _ITERATION_FILE.fullmatch(path.name))

    def iteration(
        self,
        state: State,
        accumulators: Mapping[int, Accumulator],
        estimates: Sequence[PoseEstimate],
        progressed: Progressed,
    ) -> None:
        """Files of the iteration that `state` is at, as `--write-iterations` asks; its FSC is an event of the job."""
        curve = np.round(state.curve, 5).tolist()
        self.job.event("fsc", iteration=state.iteration, pixel_size_angstrom=self.pixel_size, curve=curve)
        if self.options.write_iterations == "none":
            return
        root = f"run_it{state.iteration:03d}"
        optset = with_poses(self.optset, state.poses, self.halves)
        write_particles(self.job.path(f"{root}_data.star"), optset, extra_columns=posterior_columns(optset, estimates))
        shares = self._sampling(root, state, optset)
        for half in HALVES:
            density = self.job.path(f"{root}_half{half}_class001.mrc")
            write_map(density, state.maps[half], self.pixel_size)
            chosen = [e for e, own in zip(estimates, self.halves, strict=True) if own == half]
            table = shell_table(accumulators[half], state.curve, state.curve)
            self._model(f"{root}_half{half}", density, table, state, optset, chosen, progressed, shares, half)
        self._optimiser(root, state, progressed, final=False)
        if self.options.write_iterations == "last":
            self.clear(before=state.iteration)

    def final(
        self,
        state: State,
        optset: OptimisationSet,
        estimates: Sequence[PoseEstimate],
        table: ShellTable,
        density: Path,
        progressed: Progressed,
    ) -> dict[str, Path]:
        """`run_model.star`, `run_sampling.star` and `run_optimiser.star`."""
        shares = self._sampling("run", state, optset)
        self._model("run", density, table, state, optset, estimates, progressed, shares, None)
        self._optimiser("run", state, progressed, final=True)
        written = {name: self.job.path(f"run_{name}.star") for name in ("model", "sampling", "optimiser")}
        for name, path in written.items():
            self.job.add_output(path, "OptimiserData.star.relion.refine3d" if name == "optimiser" else None)
        for path in self.iteration_files():
            self.job.add_output(path)
        return written

    def _sampling(self, root: str, state: State, optset: OptimisationSet) -> NDArray[np.float64]:
        schedule = state.schedule
        directions, shares = direction_shares(schedule.order, optset.particles.angles_deg, self.symmetry)
        sampling = Sampling(
            order=schedule.order,
            first_order=self.options.healpix_order,
            symmetry=self.options.symmetry,
            psi_step_deg=angular_step_deg(schedule.order),
            offset_range_angstrom=schedule.offset_range_angstrom,
            offset_step_angstrom=schedule.offset_step_angstrom,
            directions_deg=directions,
        )
        write_sampling(self.job.path(f"{root}_sampling.star"), sampling)
        return shares

    def _model(
        self,
        root: str,
        density: Path,
        table: ShellTable,
        state: State,
        optset: OptimisationSet,
        estimates: Sequence[PoseEstimate],
        progressed: Progressed,
        shares: NDArray[np.float64],
        half: int | None,
    ) -> None:
        box = len(table.fsc) * 2 - 2
        series = series_index(optset)
        counted = series if half is None else series[self.halves == half]
        groups = optset.particles.optics_index
        schedule = state.schedule
        model = Model(
            map=density,
            box=box,
            pixel_size_angstrom=self.pixel_size,
            resolution_angstrom=progressed.resolution_angstrom,
            radius_shells=int(progressed.radius),
            padding=2.0,
            tau2_fudge=self.options.tau2_fudge,
            offset_sigma_angstrom=state.offset_sigma_angstrom,
            angular_sigma_deg=schedule.angular_sigma_deg() if schedule.local else None,
            log_likelihood=float(np.sum([e.log_evidence for e in estimates if np.isfinite(e.log_evidence)])),
            max_probability=float(np.mean([e.max_probability for e in estimates])),
            accuracy_deg=progressed.accuracy_deg,
            accuracy_angstrom=progressed.accuracy_angstrom,
            shells=table,
            series=[one.name for one in optset.series],
            particles=np.bincount(counted, minlength=len(optset.series)).tolist(),
            scale=state.contrast.tolist(),
            noise_power=state.noise,
            optics=[np.unique(series[groups == number]) for number in range(len(optset.optics))],
            direction_share=shares,
        )
        write_model(self.job.path(f"{root}_model.star"), model)

    def _optimiser(self, root: str, state: State, progressed: Progressed, *, final: bool) -> None:
        options, schedule, paths = self.options, state.schedule, self.optset.paths
        path = self.job.path(f"{root}_optimiser.star")

        def name(file: Path | str) -> str:
            return path_text(file, path)

        models = [self.job.path(f"{root}_model.star")]
        if not final:
            models = [self.job.path(f"{root}_half{half}_model.star") for half in HALVES]
        values: dict[str, str | float] = {
            "rlnOutputRootName": name(self.job.path("run")),
            "rlnModelStarFile": name(models[0]),
            "rlnModelStarFile2": "None" if final else name(models[1]),
            "rlnExperimentalDataStarFile": name(self.job.path(f"{root}_data.star")),
            "rlnTomoTomogramsFile": name(paths["tomograms"]),
            "rlnTomoTrajectoriesFile": name(paths["trajectories"]) if "trajectories" in paths else "",
            "rlnOrientSamplingStarFile": name(self.job.path(f"{root}_sampling.star")),
            # relion_refine writes -1 after convergence
            "rlnCurrentIteration": -1 if final else state.iteration,
            "rlnNumberOfIterations": options.iterations,
            "rlnDoSplitRandomHalves": int(not final),
            "rlnJoinHalvesUntilThisResolution": options.low_resol_join_halves,
            "rlnAdaptiveOversampleOrder": options.oversampling,
            "rlnRandomSeed": options.seed,
            "rlnParticleDiameter": self.diameter_angstrom,
            "rlnWidthMaskEdge": _MASK_EDGE_PX,
            "rlnDoZeroMask": int(options.zero_mask),
            "rlnDoSolventFlattening": int(options.flatten_solvent),
            "rlnDoSolventFscCorrection": int(options.solvent_correct_fsc),
            "rlnSolventMaskName": "None" if options.mask is None else name(options.mask),
            "rlnIncrementImageSize": schedule.incr_size,
            "rlnAutoLocalSearchesHealpixOrder": options.auto_local_healpix_order,
            "rlnNumberOfIterWithoutResolutionGain": schedule.stalled,
            "rlnBestResolutionThusFar": 1.0 / progressed.resolution_angstrom,
            "rlnOverallAccuracyRotations": progressed.accuracy_deg,
            "rlnOverallAccuracyTranslationsAngst": progressed.accuracy_angstrom,
            "rlnChangesOptimalOrientations": progressed.change_deg,
            "rlnChangesOptimalOffsets": progressed.change_angstrom,
            "rlnDoCorrectScale": int(options.scale),
            "rlnDoSkipAlign": int(options.skip_align),
            "rlnHasConverged": int(final),
        }
        write_optimiser(path, values)
