"""The loop over rounds: what changes the tilt series is kept when held-out data support it, and everything is measured.

A round reconstructs from the present poses, refines CTFs and geometry in the chosen order, reconstructs after each, and
refines poses again.  Every step is a job of its own in a folder of its own: a cycle that is stopped goes on with the
step it was at.  Nothing outside the folder of the cycle is changed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiltwise.config import OutputOptions
from tiltwise.ctf.options import RefineCtfOptions
from tiltwise.cycle.ablation_options import AblateOptions
from tiltwise.cycle.options import CycleOptions
from tiltwise.cycle.project import newest_set
from tiltwise.cycle.table import CycleResult, State, Step, verdicts
from tiltwise.em.options import ReconstructOptions, RefineOptions
from tiltwise.errors import ConfigError, DataError, ResourceError
from tiltwise.exec import Job, Progress
from tiltwise.files import write_text
from tiltwise.io.mrc import read_map, write_map
from tiltwise.io.optimisation_set import load_optimisation_set, write_optimisation_set
from tiltwise.maps.masks import pixel_size_unset, read_mask
from tiltwise.model import OptimisationSet
from tiltwise.motion.options import AlignOptions
from tiltwise.post.half_maps import read_cube
from tiltwise.post.options import MaskOptions, PostprocessOptions
from tiltwise.spectral.fsc import resolution_angstrom
from tiltwise.spectral.randomised import masked_fsc

THRESHOLD = 0.143
NEAR_NYQUIST = 1.25
"""A resolution of less than this times Nyquist asks for finer pixels."""
JOINED = 40.0
"""Å; what the halves of a refinement share."""
MORE_SHELLS = 4
"""Of half maps beyond those that they share, for poses to start from."""
INITIAL_LOW_PASS = 1.5
"""Times the resolution: low-pass filter of a map to start from."""
WORSE = 1.0
"""Shells by which a round may make the resolution worse before it is taken back."""


Steps = Callable[[OutputOptions], Mapping[str, Any]]
"""Runs the command that options belong to, or takes the results of a run that is finished; returns its manifest."""


class Cycle:
    """Options of one run and its folder."""

    def __init__(self, options: CycleOptions, job: Job, progress: Progress, step: Steps) -> None:
        self.options, self.job, self.progress, self.run_step = options, job, progress, step
        self.start = self.first_set = self._input()
        self.pixel_size = self.load(self.start).series[0].pixel_size_angstrom
        self.masks: dict[float, Path] = {}
        self.common: dict[str, Any] = {
            name: getattr(options, name) for name in ("symmetry", "particle_diameter", "threads", "memory", "backend")
        }
        self.light: dict[str, Any] = {"threads": options.threads, "redo": options.redo}
        self.common |= {name: getattr(options, name) for name in ("seed", "coordinate_binning", "redo")}

    def load(self, path: Path) -> OptimisationSet:
        """A set, without its images."""
        return load_optimisation_set(path, need_images=False, coordinate_binning=self.options.coordinate_binning)

    def step(self, options: OutputOptions) -> Mapping[str, Any]:
        """Run one command, unless the cycle is to stop."""
        self.job.check_abort()
        return self.run_step(options)

    # ---- options of the steps -------------------------------------------------------------------------------

    def boxes(self, binning: float) -> dict[str, Any]:
        """--b, --crop and --bin of the same field of view at a binning; even sizes."""
        box, crop = self.options.box, self.options.map_size
        return {"box": _even(box / binning), "crop": _even(crop / binning), "binning": binning}

    def binning_of(self, number: int, present: float, resolution: float) -> float:
        """Of round `number`, from 0: as given, or finer where the resolution comes near Nyquist."""
        given = self.options.binnings
        if given:
            return given[min(number, len(given) - 1)]
        if present > 1 and resolution < NEAR_NYQUIST * 2.0 * self.pixel_size * present:
            return max(1.0, present / 2)
        return present

    def images(self, optset: Path, binning: float) -> dict[str, Any]:
        """Options that all commands on images share.  Half sets are drawn once: later steps find them in their set."""
        chosen = {**self.common, **self.boxes(binning), "input": optset}
        if optset == self.start:
            chosen |= {"split": self.options.split, "split_distance": self.options.split_distance}
        return chosen

    # ---- steps ----------------------------------------------------------------------------------------------

    def reconstruct(self, number: int, name: str, optset: Path, binning: float) -> tuple[Path, Mapping[str, Any]]:
        """Half maps from the poses of a set; their folder."""
        folder = self.job.path(f"round{number}") / name
        mask = self.given_mask(binning)
        return folder, self.step(ReconstructOptions(output=folder, mask=mask, **self.images(optset, binning)))

    def given_mask(self, binning: float) -> Path | None:
        """`--mask` on the grid of the maps at a binning; None if masks are to be found."""
        path = self.options.mask
        if path is None or binning in self.masks:
            return self.masks.get(binning)
        size, pixel = _even(self.options.map_size / binning), self.pixel_size * binning
        mask, own = read_map(path)
        if mask.shape == (size,) * 3:
            self.masks[binning] = path
            return path
        # A mask for rounds of several binnings may be on the grid of any of them.
        grids = {1.0, self.options.binning, *self.options.binnings, binning}
        if all(pixel_size_unset(own, self.pixel_size * one) for one in grids):
            self.progress.note(f"--mask {path} has no pixel size: it is taken to be as wide as the maps")
            own = self.options.map_size * self.pixel_size / len(mask)
        values = read_mask(path, size, pixel, note=self.progress.note, believed=own)
        self.masks[binning] = resampled = self.job.path(f"mask_bin{binning:g}.mrc")
        # Steps that are finished look at the time of their inputs: the same mask stays as it is.
        if not (resampled.exists() and np.array_equal(read_map(resampled)[0], values)):
            write_map(resampled, values, pixel)
        return resampled

    def first(self) -> State:
        """Half maps to start with: from a refinement of its own, or from the poses in the file."""
        options, given = self.options, self.options.binnings
        binning = given[0] if given else options.binning
        start = self.start
        if options.reference is None:
            maps, manifest = self.reconstruct(0, "reconstruct", start, binning)
            state = State(
                start, maps, binning, float(manifest["metrics"]["resolution_angstrom"]), self.given_mask(binning)
            )
            self._record(state, 0, "reconstruct", maps, binning, manifest, "poses as they are in the file")
            return state
        folder = self.job.path("round0") / "refine"
        manifest = self.step(
            RefineOptions(
                output=folder,
                reference=options.reference,
                ini_high=options.ini_high,
                healpix_order=options.healpix_order,
                auto_local_healpix_order=options.auto_local_healpix_order,
                offset_range_px=options.offset_range_px,
                folds=options.folds,
                mask=self.given_mask(binning),
                **self.images(start, binning),
            )
        )
        resolution = float(manifest["metrics"]["resolution_angstrom"])
        state = State(folder / "run_optimisation_set.star", folder, binning, resolution, self.given_mask(binning))
        self._record(state, 0, "refine", folder, binning, manifest, str(manifest["metrics"].get("stop_reason", "")))
        return state

    def round(self, number: int, state: State) -> bool:
        """One round; False if it brought neither a correction nor finer pixels, and poses were not refined."""
        binning = self.binning_of(number, state.binning, state.resolution)
        optset = state.optimisation_set
        before, manifest = self.reconstruct(number, "before", optset, binning)
        state.mask = self.given_mask(binning)
        if state.mask is None:
            state.mask = self.job.path(f"round{number}") / "mask" / "mask.mrc"
            self.step(MaskOptions(input=before, output=state.mask.parent, **self.light))
        self._measured(state, number, "before", before, binning, [manifest], "poses of the last refinement", 0)
        changed = 0
        for name in self.options.order.split(","):
            folder, began = self.job.path(f"round{number}") / name, monotonic()
            try:
                found = self.step(self._correction(name, folder, optset, binning, state.mask))
            except (ConfigError, DataError) as error:
                # As where half maps agree to 35 Å and phases are fitted from 30 Å on: later rounds may have more.
                words, own = str(error).splitlines()[0], {"wall_s": monotonic() - began, "peak_memory_gb": 0.0}
                self.job.warn(f"round {number}, {name}: {words}; left out")
                self._measured(state, number, name, before, binning, [own], f"not possible: {words}", 0, folder)
                continue
            words, applied = verdicts(folder / ("ctf.json" if name == "ctf" else "align.json"))
            changed += applied
            optset = folder / "optimisation_set.star"
            after, maps = self.reconstruct(number, f"{name}_map", optset, binning)
            self._measured(state, number, name, after, binning, [found, maps], words, applied, folder)
            before = after
        if not changed and binning == state.binning:
            return False
        folder = self.job.path(f"round{number}") / "refine"
        manifest = self.step(
            RefineOptions(
                output=folder,
                auto_local_healpix_order=self.options.auto_local_healpix_order,
                offset_range_px=self.options.offset_range_px,
                folds=self.options.folds,
                mask=self.given_mask(binning),
                **self.beginning(before / "merged.mrc", state),
                **self.images(optset, binning),
            )
        )
        state.optimisation_set, state.maps, state.binning = folder / "run_optimisation_set.star", folder, binning
        state.resolution = float(manifest["metrics"]["resolution_angstrom"])
        reason = str(manifest["metrics"].get("stop_reason", ""))
        self._measured(state, number, "refine", folder, binning, [manifest], reason, 0)
        return True

    def beginning(self, density: Path, state: State) -> dict[str, Any]:
        """What a round's refinement starts from: the poses, unless half maps agree in little more than they share."""
        box, last = self.options.map_size * self.pixel_size, state.steps[-1].resolution_angstrom
        if last is not None and box / last > box / JOINED + MORE_SHELLS:
            return {}
        low_pass = float(np.ceil(INITIAL_LOW_PASS * state.resolution))
        return {"reference": density, "ini_high": low_pass, "healpix_order": self.options.auto_local_healpix_order}

    def _correction(
        self, name: str, folder: Path, optset: Path, binning: float, mask: Path | None
    ) -> RefineCtfOptions | AlignOptions:
        images, options = self.images(optset, binning), self.options
        if name == "ctf":
            images |= {"even_order": options.even_order, "odd_order": options.odd_order}
            return RefineCtfOptions(output=folder, mask=mask, **images)
        return AlignOptions(output=folder, mask=mask, motion=options.motion, deformation=options.deformation, **images)

    # ---- the loop -------------------------------------------------------------------------------------------

    def run(self) -> CycleResult:
        """All rounds, post-processing, and the table."""
        options = self.options
        state = self.first()
        self.first_set = state.optimisation_set
        reason, taken_back = (
            f"all of {options.rounds} rounds done" if options.rounds > 1 else "the one round is done",
            False,
        )
        for number in range(1, options.rounds + 1):
            kept = State(state.optimisation_set, state.maps, state.binning, state.resolution, state.mask)
            if not self.round(number, state):
                reason = f"held-out data support no change in round {number}"
                break
            shell = options.map_size * self.pixel_size / state.resolution
            if options.map_size * self.pixel_size / kept.resolution - shell > WORSE:
                reason = f"round {number} made the map worse ({kept.resolution:.1f} to {state.resolution:.1f} Å)"
                self.job.warn(f"{reason}: the results are those of the round before")
                steps = state.steps
                state, taken_back = kept, True
                state.steps = steps
                break
        return self._conclude(state, reason, taken_back)

    def _conclude(self, state: State, reason: str, taken_back: bool) -> CycleResult:
        job = self.job
        folder = job.path("postprocess")
        manifest = self.step(
            PostprocessOptions(input=state.maps, output=folder, mask=self.given_mask(state.binning), **self.light)
        )
        resolution = float(manifest["metrics"]["resolution_angstrom"])
        self._record(state, state.steps[-1].round, "postprocess", folder, state.binning, manifest, "", resolution)
        bought = self.ablation(state) if self.options.ablation else None
        final, start = self.load(state.optimisation_set), self.load(self.start)
        outputs = {
            "optimisation_set": job.path("optimisation_set.star"),
            "before": job.path("before_optimisation_set.star"),
            "table": job.path("cycle.json"),
        }
        write_optimisation_set(outputs["optimisation_set"], **_files(final.paths))
        write_optimisation_set(outputs["before"], **_files(start.paths))
        table = {
            "reason": reason,
            "taken_back": taken_back,
            "resolution_angstrom": resolution,
            "steps": [one.plain() for one in state.steps],
            "ablation": bought,
        }
        write_text(outputs["table"], json.dumps(table, indent=1, allow_nan=False) + "\n")
        job.add_output(outputs["optimisation_set"], "TomoOptimisationSet.star.relion.refine3d")
        job.add_output(folder / "postprocess.mrc", "DensityMap.mrc.relion.postprocess")
        for key in ("before", "table"):
            job.add_output(outputs[key])
        job.metric("resolution_angstrom", resolution)
        job.metric("reason", reason)
        return CycleResult(state.steps, reason, taken_back, resolution, outputs, state.maps, bought)

    def ablation(self, state: State) -> dict[str, Any] | None:
        """What every correction of the rounds bought, and the first refinement, from `ablation.json`.

        None, with a warning, where half maps are too poor: the results of the cycle are none the worse for it.
        """
        folder, first = self.job.path("ablation"), self.options.reference is not None
        options = AblateOptions(
            output=folder,
            before=self.first_set,
            first_poses=self.start if first else None,
            mask=state.mask,
            **self.images(state.optimisation_set, state.binning),
        )
        try:
            manifest = self.step(options)
        except (DataError, ResourceError) as error:
            self.job.warn(f"ablation: {str(error).splitlines()[0]}; left out")
            return None
        self._record(state, state.steps[-1].round, "ablation", folder, state.binning, manifest, "")
        content: dict[str, Any] = json.loads((folder / "ablation.json").read_text(encoding="utf-8"))
        return content

    # ---- records --------------------------------------------------------------------------------------------

    def _input(self) -> Path:
        """The set to start from, in one file."""
        options = self.options
        if options.input is not None and not (options.particles or options.tomograms or options.trajectories):
            return newest_set(options.input) if options.input.is_dir() else options.input
        named = load_optimisation_set(
            options.input,
            tomograms=options.tomograms,
            particles=options.particles,
            trajectories=options.trajectories,
            need_images=False,
            coordinate_binning=options.coordinate_binning,
        )
        path, new = self.job.path("start_optimisation_set.star"), self.job.path("start_new.star")
        write_optimisation_set(new, **_files(named.paths))
        # Steps that are finished look at the time of their inputs: the same set stays as it is.
        if path.exists() and path.read_bytes() == new.read_bytes():
            new.unlink()
        else:
            new.replace(path)
        return path

    def _measured(
        self,
        state: State,
        number: int,
        name: str,
        maps: Path,
        binning: float,
        manifests: Sequence[Mapping[str, Any]],
        words: str,
        applied: int,
        folder: Path | None = None,
    ) -> None:
        """Records a step with the FSC of half maps inside the mask of the round."""
        halves = [read_cube(next(maps / n for n in names if (maps / n).exists())) for names in HALF_FILES]
        (first, pixel), (second, _) = halves
        assert state.mask is not None  # every round begins with one
        curve = masked_fsc(first, second, read_mask(state.mask, len(first), pixel)).corrected
        self._record(
            state,
            number,
            name,
            folder or maps,
            binning,
            {
                "wall_s": sum(one["wall_s"] for one in manifests),
                "peak_memory_gb": max(one["peak_memory_gb"] for one in manifests),
            },
            words,
            resolution_angstrom(curve, len(first), pixel, THRESHOLD),
            curve,
            applied,
        )

    def _record(
        self,
        state: State,
        number: int,
        name: str,
        folder: Path,
        binning: float,
        manifest: Mapping[str, Any],
        words: str,
        resolution: float | None = None,
        curve: NDArray[np.float64] | None = None,
        applied: int = 0,
    ) -> None:
        if resolution is None:
            resolution = manifest.get("metrics", {}).get("resolution_angstrom")
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        step = Step(
            round=number,
            name=name,
            folder=folder,
            binning=binning,
            wall_s=round(float(manifest["wall_s"] or 0.0), 2),
            peak_memory_gb=float(manifest["peak_memory_gb"] or 0.0),
            disk_gb=round(size / 1e9, 4),
            words=words,
            applied=applied,
            resolution_angstrom=None if resolution is None else round(float(resolution), 3),
            mean_fsc=None if curve is None else round(float(curve[1:].mean()), 4),
            curve=curve,
        )
        state.steps.append(step)
        self.job.iteration(
            {
                "round": number,
                "step": name,
                "bin": binning,
                "resolution_angstrom": step.resolution_angstrom,
                "mean_fsc": step.mean_fsc,
                "series_changed": applied,
                "wall_s": step.wall_s,
            }
        )


HALF_FILES = (("half1.mrc", "run_half1_class001_unfil.mrc"), ("half2.mrc", "run_half2_class001_unfil.mrc"))


def run(options: CycleOptions, job: Job, progress: Progress, step: Steps) -> CycleResult:
    """Run the cycle; `step` runs one command as a job of its own.

    Raises
    ------
    TiltwiseError
        of the step that cannot go on.
    """
    progress.title(options.command, {"rounds": options.rounds, "order": options.order, "box_px": options.box})
    return Cycle(options, job, progress, step).run()


def _even(size: float) -> int:
    return max(4, 2 * round(size / 2))


def _files(paths: Mapping[str, str]) -> dict[str, str]:
    return {key: path for key, path in paths.items() if key != "optimisation_set"}
