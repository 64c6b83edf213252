"""Real ribosomes from foreign, CTF-premultiplied 2D stacks: reconstruction and recovery of perturbed poses.

    python bench/real_70s.py DATA OUT

DATA is the folder of the 40 Mycoplasma 70S particles (12 Å/px, box 32, no half sets in the file); the map that
comes with it is the z-mirror of what its poses give.  Prints the half-map FSC at 29.5 Å over 20 random
splits, the FSC to the mirrored map, and, after poses are perturbed by 10° and 15 Å and refined back, their
median error and the same FSC.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from tiltwise.em import reconstruct, refine
from tiltwise.em.options import ReconstructOptions, RefineOptions
from tiltwise.em.results import with_poses
from tiltwise.extract.source import Poses
from tiltwise.geometry.rotations import angular_distance_deg
from tiltwise.io.mrc import read_map, write_map
from tiltwise.io.optimisation_set import load_optimisation_set, write_optimisation_set
from tiltwise.io.write_particles import write_particles
from tiltwise.jobs.job import FolderJob
from tiltwise.jobs.progress import SilentProgress
from tiltwise.spectral.fsc import fsc
from tiltwise.spectral.masks import soft_sphere

BINNING = 7.19856
"""unbinned pixels per unit of the coordinates in the file"""
SHELL = 13
"""32 px x 12 Å / 29.5 Å"""


def main(data: Path, out: Path) -> None:
    """Run both parts; results land in `out`."""
    optset_file = next(data.glob("*_optimisation_set.star"))
    supplied, pixel_size = read_map(next(data.glob("*_reconstruct.mrc")))
    truth = np.roll(supplied[::-1], 1, axis=0)
    mask = soft_sphere(32, 15.5, 5.0).astype(np.float32)  # falls from 10.5 to 15.5 px: half at 13 px
    optset = load_optimisation_set(optset_file, need_images=False, coordinate_binning=BINNING)

    common = {"box": 32, "crop": 32, "coordinate_binning": BINNING, "split": "random"}
    curves = []
    for seed in range(20):
        options = ReconstructOptions(input=optset_file, output=out / "reconstruct", redo=True, seed=seed, **common)
        with FolderJob(options, [], SilentProgress()) as job:
            result = reconstruct.run(options, job, SilentProgress())
        curves.append(fsc(*result.halves, mask))
    values = np.array(curves)[:, SHELL]
    print(f"half-map FSC at 29.5 Å over 20 splits: {values.mean():.3f} +- {values.std():.3f}")
    print(f"FSC to the mirrored map at 29.5 Å: {fsc(result.map, truth, mask)[SHELL]:.3f}")

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
    write_map(out / "reference.mrc", truth, pixel_size)
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
        box=32,
        crop=32,
        coordinate_binning=BINNING,
        split="keep",
    )
    with FolderJob(options, [], SilentProgress()) as job:
        refined = refine.run(options, job, SilentProgress())
    found = Poses.of(refined.optset)
    for label, poses in (("perturbed", start), ("refined", found)):
        angle = angular_distance_deg(poses.rotation, true.rotation)
        shift = np.linalg.norm(poses.displacement_angstrom - true.displacement_angstrom, axis=1)
        print(f"{label}: median {np.median(angle):.2f} deg, {np.median(shift):.2f} Å from the poses of the file")
    print(f"half-map FSC at 29.5 Å: {fsc(*refined.halves, mask)[SHELL]:.3f} (halves of one split)")
    print(f"FSC to the mirrored map at 29.5 Å: {fsc(refined.map, truth, mask)[SHELL]:.3f}")
    print(refined.stop_reason)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
