"""The particle to simulate: phantom, map or atomic model, and the projector that suits it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiltwise.errors import ConfigError, FormatError
from tiltwise.io.mrc import read_map
from tiltwise.sim.density import Density, GaussianDensity, VoxelDensity, sample_map
from tiltwise.sim.hinge import Hinge
from tiltwise.sim.options import PHANTOM, SimulateOptions, is_map_file
from tiltwise.sim.phantom import build_phantom
from tiltwise.sim.projector import GaussianProjector, Projector, SplineProjector

_PHANTOM_DIAMETER = 180.0


@dataclass(frozen=True, slots=True)
class Model:
    """A particle, scaled so that its map has the maximum 1."""

    density: Density
    projector: Projector
    map: NDArray[np.float32]
    """(box, box, box) the true map"""
    diameter_angstrom: float
    bent: Bent | None = None
    """of a phantom that bends; density, projector and map are then those of the phantom at rest"""


@dataclass(frozen=True, slots=True)
class Bent:
    """The rigid parts of a phantom that bends, as models in the frame and grey scale of the whole."""

    hinge: Hinge
    still: Model
    domain: Model


def load_model(options: SimulateOptions) -> Model:
    """Model of the options.

    Raises
    ------
    ConfigError
        if the model does not fit the box, or a package that reads it is missing.
    FormatError
        if its file cannot be read.
    """
    density: GaussianDensity | VoxelDensity
    if options.model == PHANTOM:
        diameter = options.particle_diameter or _PHANTOM_DIAMETER
        density = build_phantom(diameter, options.beads, options.symmetry, options.phantom_seed)
    else:
        density = _density_of_file(Path(options.model), options.atomic_bfactor)
        diameter = options.particle_diameter or 2 * density.radius_angstrom
    truth = sample_map(density, options.box, options.pixel_size)
    peak = float(truth.max())
    if not peak > 0:
        raise FormatError(
            "the model has no density",
            where=options.model,
            expected="positive values",
            fix="multiply the map by -1 if its density is negative",
        )
    density, truth = density.scaled(1 / peak), truth / np.float32(peak)
    projector: Projector
    if options.model == PHANTOM and isinstance(density, GaussianDensity):
        projector = GaussianProjector(density)
    else:
        projector = SplineProjector(density, 0.5 / options.pixel_size)
    whole = Model(density, projector, truth, diameter)
    if not options.hinge or not isinstance(density, GaussianDensity):
        return whole
    hinge = Hinge.of(density)
    still, domain = (
        Model(part, GaussianProjector(part), sample_map(part, options.box, options.pixel_size), diameter)
        for part in (hinge.still, hinge.domain)
    )
    return replace(whole, bent=Bent(hinge, still, domain))


def _density_of_file(path: Path, bfactor: float) -> GaussianDensity | VoxelDensity:
    if not path.is_file():
        raise FormatError(
            "the model is missing", where=str(path), expected=f"`{PHANTOM}`, or a file", fix="check the path of --model"
        )
    if not is_map_file(path):
        return read_atoms(path, bfactor)
    values, voxel_size = read_map(path)
    if not voxel_size > 0:
        raise FormatError(
            "the map has no pixel size",
            where=str(path),
            expected="a cell in the header",
            fix="set it with another program",
        )
    if len(set(values.shape)) != 1:
        raise FormatError(
            "a model map must be cubic",
            where=str(path),
            found=" x ".join(map(str, values.shape[::-1])),
            fix="pad the map to a cube",
        )
    return VoxelDensity.create(values, voxel_size)


def read_atoms(
    path: str | Path, bfactor_angstrom2: float, origin_angstrom: NDArray[np.float64] | None = None
) -> GaussianDensity:
    """Atoms of a PDB or mmCIF file as electron scatterers.

    The origin of the density is the centre of their scattering, or `origin_angstrom` (x, y, z) in the file's frame.

    Scattering factors are the five Gaussians per element of the International Tables (C, 4.3.2.2), widened
    by one B-factor for all atoms; those of the file are not used.  There is no solvent, so low frequencies
    are stronger than in ice.  Of a file with several models the first is read; of alternative positions
    each counts with its occupancy.

    Raises
    ------
    ConfigError
        if gemmi is not installed.
    FormatError
        if the file cannot be read or holds no atoms.
    """
    try:
        import gemmi
    except ImportError:
        raise ConfigError(
            "atomic models need the package gemmi", where=str(path), fix='pip install "tiltwise[models]"'
        ) from None
    try:
        structure: Any = gemmi.read_structure(str(path))
    except (OSError, RuntimeError, ValueError) as error:
        raise FormatError(
            "the atomic model cannot be read",
            where=str(path),
            expected="PDB or mmCIF",
            found=str(error),
            fix="give a PDB or mmCIF file",
        ) from error
    atoms = [one.atom for one in structure[0].all()] if len(structure) else []
    if not atoms:
        raise FormatError(
            "the atomic model holds no atoms", where=str(path), fix="give a PDB or mmCIF file with coordinates"
        )
    elements = sorted({atom.element.atomic_number for atom in atoms})
    if elements[0] == 0 or any(gemmi.Element(number).c4322 is None for number in elements):
        raise FormatError(
            "the atomic model has atoms of unknown element", where=str(path), fix="correct its element names"
        )
    row = {number: i for i, number in enumerate(elements)}
    tables = [gemmi.Element(number).c4322 for number in elements]
    amplitude = np.array([table.a for table in tables])
    kind = np.array([row[atom.element.atomic_number] for atom in atoms])
    weight = np.array([atom.occ for atom in atoms], np.float64)
    position = np.array([atom.pos.tolist() for atom in atoms], np.float64)
    if origin_angstrom is None:
        scattering = weight * amplitude.sum(axis=1)[kind]
        origin_angstrom = scattering @ position / scattering.sum()
    return GaussianDensity(
        position_angstrom=position - origin_angstrom,
        weight=weight,
        kind=kind,
        amplitude=amplitude,
        bfactor_angstrom2=np.array([table.b for table in tables]) + bfactor_angstrom2,
    )
