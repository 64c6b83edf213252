"""Density of a model in the frame of a map."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tiltwise.errors import DataError, ShapeError
from tiltwise.post.half_maps import read_cube
from tiltwise.sim.density import sample_map
from tiltwise.sim.models import read_atoms
from tiltwise.sim.options import is_map_file


def model_map(path: Path, bfactor_angstrom2: float, box: int, pixel_size: float) -> NDArray[np.float32]:
    """Density `(box, box, box)` of a model: a map as it is, or atoms (PDB, mmCIF) as electrons see them.

    Coordinates of atoms are those of programs that fit models: the first voxel of the map is at (0, 0, 0) Å.

    Raises
    ------
    ConfigError
        if gemmi is not installed.
    FormatError, DataError
        if the file cannot be read, or the atoms lie outside the map.
    ShapeError
        if a map has another size.
    """
    if is_map_file(path):
        density, own_pixel_size = read_cube(path, pixel_size)
        if density.shape != (box,) * 3:
            raise ShapeError(
                "model map and half maps differ in size",
                where=f"--model {path}",
                expected=f"{box} voxels of {pixel_size:g} Å along each side",
                found=f"{len(density)} of {own_pixel_size:g} Å",
                fix="resample it to the grid of the half maps",
            )
        return density
    origin = np.full(3, box // 2 * pixel_size)
    atoms = read_atoms(path, bfactor_angstrom2, origin)
    if 2 * atoms.radius_angstrom > box * pixel_size:
        low, high = (f(atoms.position_angstrom + origin, axis=0) for f in (np.min, np.max))
        raise DataError(
            "the model does not lie inside the map",
            where=f"--model {path}",
            expected=f"atoms in the sphere that fits the box, {box * pixel_size:g} Å wide from (0, 0, 0)",
            found=f"atoms from {np.round(low, 1).tolist()} to {np.round(high, 1).tolist()} Å",
            fix="fit the model into the map and save its coordinates relative to the map",
        )
    return sample_map(atoms, box, pixel_size)
