"""Real ribosomes from foreign, CTF-premultiplied 2D stacks: reconstruction and recovery of perturbed poses.

    PYTHONPATH=python:tests python bench/real_70s.py DATA OUT

DATA is the folder of the 40 Mycoplasma 70S particles (`helpers.real_70s`).  Prints the half-map FSC at 29.5 Å
over 20 random splits, the FSC to the mirrored map, and, after poses are perturbed by 10° and 15 Å and refined
back, their median error and the same FSC.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from helpers.real_70s import IMAGES, SPLITS, Ribosomes
from tiltwise.em import refine
from tiltwise.em.options import RefineOptions
from tiltwise.em.results import with_poses
from tiltwise.extract.source import Poses
from tiltwise.geometry.rotations import angular_distance_deg
from tiltwise.io.mrc import write_map
from tiltwise.io.optimisation_set import load_optimisation_set, write_optimisation_set
from tiltwise.io.write_particles import write_particles
from tiltwise.jobs.job import FolderJob
from tiltwise.jobs.progress import SilentProgress


def main(data: Path, out: Path) -> None:
    """Run both parts; results land in `out`."""
    ribosomes = Ribosomes.open(data)
    results = [ribosomes.reconstruct(out / "reconstruct", seed) for seed in range(SPLITS)]
    values = [ribosomes.agreement(*result.halves) for result in results]
    print(f"half-map FSC at 29.5 Å over {SPLITS} splits: {np.mean(values):.3f} +- {np.std(values):.3f}")
    agreement = ribosomes.agreement(results[-1].map, ribosomes.mirrored)
    print(f"FSC to the mirrored map at 29.5 Å: {agreement:.3f}")

    optset = load_optimisation_set(
        ribosomes.optimisation_set, need_images=False, coordinate_binning=IMAGES["coordinate_binning"]
    )
    rng = np.random.default_rng(1)
    true = Poses.of(optset)
    axes = rng.normal(size=(len(optset.particles), 3))
    turn = Rotation.from_rotvec(np.radians(10.0) * axes / np.linalg.norm(axes, axis=1)[:, None])
    move = rng.normal(size=axes.shape)
    start = Poses(
        true.stored_px,
        true.displacement_angstrom + 15.0 * move / np.linalg.norm(move, axis=1)[:, None],
        turn.as_matrix() @ true.rotation,
    )
    out.mkdir(parents=True, exist_ok=True)
    halves = 1 + np.arange(len(optset.particles)) % 2
    write_particles(out / "perturbed.star", with_poses(optset, start, halves))
    write_optimisation_set(
        out / "perturbed_set.star", particles=out / "perturbed.star", tomograms=optset.paths["tomograms"]
    )
    write_map(out / "reference.mrc", ribosomes.mirrored, ribosomes.pixel_size)
    options = RefineOptions(
        input=out / "perturbed_set.star",
        output=out / "refine",
        redo=True,
        reference=out / "reference.mrc",
        ini_high=60.0,
        particle_diameter=280.0,
        healpix_order=3,
        auto_local_healpix_order=3,
        sigma_ang=7.5,
        offset_range_px=2.0,
        offset_step_px=1.0,
        split="keep",
        **IMAGES,
    )
    with FolderJob(options, [], SilentProgress()) as job:
        refined = refine.run(options, job, SilentProgress())
    found = Poses.of(refined.optset)
    for label, poses in (("perturbed", start), ("refined", found)):
        angle = angular_distance_deg(poses.rotation, true.rotation)
        shift = np.linalg.norm(poses.displacement_angstrom - true.displacement_angstrom, axis=1)
        print(f"{label}: median {np.median(angle):.2f} deg, {np.median(shift):.2f} Å from the poses of the file")
    print(f"half-map FSC at 29.5 Å: {ribosomes.agreement(*refined.halves):.3f} (halves of one split)")
    print(f"FSC to the mirrored map at 29.5 Å: {ribosomes.agreement(refined.map, ribosomes.mirrored):.3f}")
    print(refined.stop_reason)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
