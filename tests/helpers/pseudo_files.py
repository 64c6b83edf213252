"""Pseudo-subtomograms of a particle set as RELION stores them: data, and weights with the multiplicity behind them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import mrcfile
import numpy as np
from numpy.typing import NDArray

from tiltwise.extract.pseudo import pseudo_subtomogram
from tiltwise.extract.source import ParticleSource
from tiltwise.geometry.rotations import matrix_to_euler
from tiltwise.io.mrc import write_map
from tiltwise.io.optimisation_set import write_particles
from tiltwise.model import OptimisationSet
from tiltwise.model.poses import pixel_sizes, poses_of


def write_weights(path: Path, ctf2: NDArray[np.float32], multiplicity: NDArray[np.float32] | None) -> None:
    """(N, N, N // 2 + 1) each, one behind the other along z."""
    parts = [ctf2] if multiplicity is None else [ctf2, multiplicity]
    with mrcfile.new(path, np.concatenate(parts).astype(np.float32), overwrite=True):
        pass


def write_pseudo_subtomograms(
    folder: Path, optset: OptimisationSet, box: int, crop: int, frames: NDArray[np.float64], *, relion: bool = True
) -> Path:
    """Extracts all particles where they are, in frames (P, 3, 3); returns the particle file."""
    folder.mkdir(parents=True)
    source = ParticleSource(optset, box_px=box, crop_px=crop, binning=1.0, diameter_angstrom=None)
    rotation, position = poses_of(optset)
    position = position / pixel_sizes(optset)[:, None]
    data, weights = [], []
    for i, frame in enumerate(frames):
        found = pseudo_subtomogram(source.loader(i), position[i], None, frame, relion_compatible=relion)
        data.append(str(folder / f"{i}_data.mrc"))
        weights.append(str(folder / f"{i}_weights.mrc"))
        write_map(data[-1], found.data, found.pixel_size_angstrom)
        assert found.multiplicity is not None
        write_weights(Path(weights[-1]), found.ctf2, found.multiplicity)
    particles = replace(
        optset.particles,
        coordinate_px=position,
        origin_angstrom=np.zeros_like(position),
        subtomogram_angles_deg=matrix_to_euler(frames),
        angles_deg=matrix_to_euler(np.swapaxes(frames, 1, 2) @ rotation),
        image_files=tuple(data),
        ctf_files=tuple(weights),
    )
    optics = tuple(
        replace(o, image_pixel_size_angstrom=source.pixel_size, image_size=crop, image_dimensionality=3, binning=1.0)
        for o in optset.optics
    )
    path = folder / "particles.star"
    write_particles(path, replace(optset, particles=particles, optics=optics, stacks_are_2d=False))
    return path
