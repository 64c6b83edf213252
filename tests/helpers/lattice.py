"""Simulated hexagonal arrays, alignments of them, and what betrays that one is locked in on a neighbour."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiltwise.io.mrc import read_map
from tiltwise.io.optimisation_set import load_optimisation_set
from tiltwise.jobs.job import FolderJob
from tiltwise.jobs.progress import SilentProgress
from tiltwise.model import OptimisationSet
from tiltwise.model.poses import poses_of
from tiltwise.motion.align import Alignments, AlignResult
from tiltwise.motion.fits import Fits
from tiltwise.motion.objective import Evidence, Free
from tiltwise.motion.options import AlignOptions
from tiltwise.motion.series import SeriesData
from tiltwise.motion.state import Fitted
from tiltwise.sim.images import SeriesImager
from tiltwise.sim.models import load_model
from tiltwise.sim.options import SimulateOptions
from tiltwise.sim.simulate import SimulatedData, simulate

F64 = NDArray[np.float64]
PIXEL, SPACING = 5.0, 80.0


class OneLook(Fits):
    """Looks for shifts that particles share in the first round alone."""

    def rigid(self, data: SeriesData, evidence: Evidence, now: Fitted, free: Free, number: int | None = None) -> Fitted:
        return super().rigid(data, evidence, now, free, 0 if number == 0 else None)


def array_options(folder: Path, **changes: Any) -> SimulateOptions:
    """90 particles of 76 Å in a hexagonal array of 80 Å."""
    values: dict[str, Any] = {
        "tilt_series": 1,
        "particles": 90,
        "width_px": 240,
        "height_px": 240,
        "thickness": 200.0,
        "pixel_size": PIXEL,
        "box": 32,
        "particle_diameter": 76.0,
        "beads": 120,
        "tilt_step": 10.0,
        "snr": 0.05,
        "lattice": SPACING,
        "margin_px": 20,
        "error_shift": 20.0,
        "error_position": 8.0,
        "seed": 2,
        "threads": 1,
    }
    return SimulateOptions(output=folder, **(values | changes))


def simulated_array(folder: Path, **changes: Any) -> SimulatedData:
    return simulate(array_options(folder, **changes))


def aligned_array(data: SimulatedData, folder: Path, kind: type[Fits] = Fits, **changes: Any) -> AlignResult:
    """Aligned with a range beyond the spacing."""
    values: dict[str, Any] = {
        "input": data.optimisation_set,
        "box": 48,
        "crop": 32,
        "particle_diameter": SPACING,
        "fit_range": 90.0,
        "threads": 1,
        "force": True,
    }
    options = AlignOptions(output=folder, **(values | changes))
    with FolderJob(options, ["tiltwise", "align"], SilentProgress()) as job:
        one = Alignments(options, job, SilentProgress())
        one.fits = kind(options, one.free, one.halves, job.check_abort)
        return one.run()


@dataclass(frozen=True, slots=True)
class Locked:
    """Errors of an alignment of an array, less what all tilts or particles have in common."""

    rms_angstrom: float
    """of predicted positions in the images"""
    tilts: int
    """whose images are off by more than a quarter of the spacing"""
    particles: float
    """share that lie nearer to a neighbour in the plane of the array"""


def locked(data: SimulatedData, result: AlignResult) -> Locked:
    truth = load_optimisation_set(data.truth.parent / "optimisation_set.star")
    one = result.series[0]
    true, rank = truth.series[0].projection, one.data.rank
    points = np.einsum("fij,pj->pfi", true[:, :2, :3], truth.particles.coordinate_px) + true[:, :2, 3]
    error = ((one.specimen.cut_px + one.alignment.predict(one.specimen))[:, rank] - points) * PIXEL
    tilt = np.median(error, axis=0)
    tilt -= np.median(tilt, axis=0)
    moved = one.data.position_px + one.alignment.displacement_px - truth.particles.coordinate_px
    moved = (moved - np.median(moved, axis=0)) * PIXEL
    off = np.linalg.norm(tilt, axis=1) > SPACING / 4
    share = np.mean(np.linalg.norm(moved[:, :2], axis=1) > SPACING / 2)
    return Locked(float(np.sqrt((error**2).sum(axis=2).mean())), int(off.sum()), float(share))


def ghosts(options: SimulateOptions, data: SimulatedData, optset: OptimisationSet) -> float:
    """Autocorrelation at the lattice vectors, in standard deviations, of the images less the true map at a geometry.

    About 0 +- 1 if every particle is where it is; particles that are missed and those predicted where none is stand a
    lattice vector apart.
    """
    stack, _ = read_map(data.folder / "tilt_series" / "TS_01.mrcs")
    truth = load_optimisation_set(data.truth.parent / "optimisation_set.star")
    series = optset.series[0]
    still = np.zeros((series.n_tilts, len(optset.particles), 3))
    turned, position = poses_of(optset)
    imager = SeriesImager.create(load_model(options), series, position / PIXEL, still, turned)
    directions = np.radians([0.0, 60.0, 120.0])
    vectors = SPACING / PIXEL * np.stack([np.cos(directions), np.sin(directions), 0.0 * directions], axis=-1)
    scores = []
    for tilt, image in enumerate(stack):
        residual = image - imager.image(tilt)
        residual -= residual.mean()
        power = np.abs(np.fft.fft2(residual)) ** 2
        correlation = np.fft.ifft2(power).real
        for x, y in np.rint(vectors @ truth.series[0].projection[tilt, :2, :3].T).astype(int):
            scores.append(correlation[y, x] / correlation[0, 0] * np.sqrt(residual.size))
    return float(np.sum(scores) / np.sqrt(len(scores)))
