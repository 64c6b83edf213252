"""Does subtraction help a domain that rocks?  Its FSC to the truth: consensus, masked, and focused with subtraction.

    PYTHONPATH=python python bench/focus.py OUT [--seeds 1 2 3 4] [--hinge 8] [--snr 0.1] [--particles 160]

Particles bend by angles spread evenly over +-8 degrees.  The consensus is refined from poses with errors; the others
go on from it with a mask about the domain, without and with the rest of the particle taken off the images.  What there
is to gain is the map at the true poses of the domains, from the same images without the same rest (true poses).
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import affine_transform

from tiltwise.cli.main import main
from tiltwise.em.options import RefineOptions
from tiltwise.em.refine import Refinement
from tiltwise.em.results import with_poses
from tiltwise.extract.source import Poses
from tiltwise.io.mrc import read_map, write_map
from tiltwise.io.optimisation_set import load_optimisation_set
from tiltwise.jobs.job import FolderJob
from tiltwise.jobs.progress import SilentProgress
from tiltwise.maps.focus import Frame
from tiltwise.model import OptimisationSet
from tiltwise.model.poses import pixel_sizes, poses_of
from tiltwise.post.mask import widened
from tiltwise.sim.options import SimulateOptions
from tiltwise.sim.score import score_poses
from tiltwise.sim.simulate import SimulatedData, simulate
from tiltwise.spectral.filters import low_pass
from tiltwise.spectral.fsc import fsc

BOX, CROP, DIAMETER, PIXEL = 96, 80, 200.0, 4.0


def made(folder: Path, seed: int, given: argparse.Namespace) -> SimulatedData:
    """Two series of particles that bend."""
    return simulate(
        SimulateOptions(
            output=folder,
            particle_diameter=DIAMETER,
            tilt_series=2,
            particles=given.particles // 2,
            pixel_size=PIXEL,
            box=CROP,
            width_px=512,
            height_px=512,
            thickness=700.0,
            tilt_step=6.0,
            hinge=given.hinge,
            snr=given.snr,
            margin_px=40,
            error_orientation=3.0,
            error_position=3.0,
            reference_resolution=25.0,
            seed=seed,
            threads=1,
        )
    )


def refined(folder: Path, **options: object) -> None:
    """A local refinement into `folder`."""
    words: list[object] = ["refine", "--b", BOX, "--crop", CROP, "--particle-diameter", DIAMETER + 16, "--j", 1]
    words += ["--sigma-ang", 4, "--healpix-order", 3, "--auto-local-healpix-order", 3, "--offset-range-px", 3]
    words += ["--offset-step-px", 1, "--o", folder, "--quiet"]
    for name, value in options.items():
        flag = f"--{name.replace('_', '-')}"
        words += [flag] if value is True else [flag, value]
    assert main([str(word) for word in words]) == 0


def at_true_poses(folder: Path, options: dict[str, object], frame: Frame, data: SimulatedData) -> None:
    """Half maps of the domain as in a focused refinement, at the true poses."""
    given = RefineOptions(
        input=options["i"],
        reference=options["ref"],
        ini_high=options["ini_high"],
        focus=options["focus"],
        box=BOX,
        crop=CROP,
        particle_diameter=DIAMETER + 16,
        threads=1,
        skip_align=True,
        output=folder,
    )
    with FolderJob(given, ["tiltwise", "refine"], SilentProgress()) as job:
        one = Refinement(given, job, SilentProgress())
        truth = frame.particles(true_domains(data))
        row = {name: number for number, name in enumerate(truth.particles.name)}
        rows = np.array([row[name] for name in one.optset.particles.name])
        rotation, position = poses_of(replace(truth, particles=truth.particles.take(rows)))
        poses = Poses.of(one.optset)
        moved = position - poses.stored_px * pixel_sizes(one.optset)[:, None]
        one.optset = with_poses(one.optset, Poses(poses.stored_px, moved, rotation), one.halves)
        one.run()


def true_domains(data: SimulatedData) -> OptimisationSet:
    """The set at the true poses of the domains."""
    return load_optimisation_set(
        tomograms=data.truth.parent / "tomograms.star",
        particles=data.truth.parent / "domain_particles.star",
        need_images=False,
    )


def score(folder: Path, frame: Frame, data: SimulatedData) -> tuple[NDArray[np.float64], float, float]:
    """FSC of the domain to its truth, moved as its poses have moved, and median errors of these (degrees, Å)."""
    density, pixel = read_map(folder / "run_class001.mrc")
    truth, _ = read_map(data.truth.parent / "domain.mrc")
    found = load_optimisation_set(folder / "run_optimisation_set.star", need_images=False)
    errors = score_poses(found, frame.particles(true_domains(data)))
    matrix = errors.common_rotation.T[::-1, ::-1]
    centre = np.full(3, len(density) // 2, dtype=np.float64)
    offset = centre - matrix @ centre + errors.common_shift[::-1] / pixel
    moved = affine_transform(frame.moved(truth).astype(np.float64), matrix, offset, order=5).astype(np.float32)
    return fsc(density, moved, frame.mask), float(np.median(errors.angle_deg)), float(np.median(errors.distance))


def shell_at(curve: NDArray[np.float64], level: float) -> float:
    """Shell, interpolated, where a curve first falls below a level."""
    below = np.flatnonzero(curve[1:] < level)
    if not len(below):
        return float(len(curve) - 1)
    n = int(below[0]) + 1
    return n - 1 + float((curve[n - 1] - level) / (curve[n - 1] - curve[n]))


def run() -> None:
    """All seeds; the gain over the consensus, in shells."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4])
    parser.add_argument("--hinge", type=float, default=8.0)
    parser.add_argument("--snr", type=float, default=0.1)
    parser.add_argument("--particles", type=int, default=160)
    given = parser.parse_args()
    gains: dict[str, list[float]] = {}
    for seed in given.seeds:
        folder = given.out / f"seed{seed}"
        data = made(folder / "data", seed, given)
        truth, _ = read_map(data.truth.parent / "domain.mrc")
        smooth = low_pass(truth, PIXEL, 20.0)
        mask = widened(smooth > 0.15 * smooth.max(), 2.0, 5.0)
        write_map(folder / "focus.mrc", mask, PIXEL)
        whole = {"i": data.optimisation_set, "ref": data.reference, "ini_high": 25}
        consensus = folder / "consensus"
        part = {"i": consensus / "run_optimisation_set.star", "ref": consensus / "run_class001.mrc", "ini_high": 20}
        part["focus"] = folder / "focus.mrc"
        runs: dict[str, dict[str, object]] = {
            "consensus": whole,
            "masked": {**part, "no_subtract": True},
            "focused": part,
            "true poses": part,
        }
        first = 0.0
        for name, options in runs.items():
            began = time.monotonic()
            if name == "true poses":
                at_true_poses(folder / name, options, Frame.of(mask, PIXEL, "mask"), data)
            else:
                refined(folder / name, **options)
            seconds = time.monotonic() - began
            frame = Frame.of(mask, PIXEL, "box" if name == "consensus" else "mask")
            curve, angle, distance = score(folder / name, frame, data)
            half, low = shell_at(curve, 0.5), shell_at(curve, 0.143)
            first = half if name == "consensus" else first
            gains.setdefault(name, []).append(half - first)
            stated = json.loads((folder / name / "job.json").read_text())["metrics"]["resolution_angstrom"]
            print(
                f"seed {seed} {name:<10}: FSC to truth 0.5 at shell {half:.2f} ({CROP * PIXEL / half:.2f} Å), 0.143 "
                f"at {low:.2f}; half maps {stated:.2f} Å; poses of the domain {angle:.2f}° {distance:.2f} Å; "
                f"{seconds:.0f} s",
                flush=True,
            )
    for name, values in gains.items():
        print(f"{name:<10}: gain over the consensus {np.round(values, 2).tolist()} shells, least {min(values):.2f}")


if __name__ == "__main__":
    run()
