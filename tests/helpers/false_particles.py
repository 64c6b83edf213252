"""Lattices with false particles planted among the true ones, as files without images."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from helpers.particles import particles_at, tilt_series
from tiltwise.geometry.rotations import matrix_to_euler, rotation_z
from tiltwise.io.optimisation_set import write_optimisation_set, write_particles, write_tomograms
from tiltwise.model import OpticsGroup, OptimisationSet
from tiltwise.model.poses import poses_of
from tiltwise.sim.specimen import random_rotations, rotation_from_vector

F64 = NDArray[np.float64]
PIXEL = 5.0


@dataclass(frozen=True)
class Planted:
    """Files of a set, and which of its particles are true."""

    optimisation_set: Path
    true: NDArray[np.bool_]
    """(P,)"""
    kind: NDArray[np.str_]
    """(P,) `true`, `anywhere`, `turned`, `between` or `copy`"""


def set_of(position_angstrom: F64, rotation: F64, size: tuple[int, int, int] = (400, 400, 200)) -> OptimisationSet:
    """Particles of one series without images at given poses; half sets by turns."""
    series = replace(tilt_series(13, PIXEL), tomogram_size=size)
    particles = replace(
        particles_at(position_angstrom / PIXEL),
        angles_deg=matrix_to_euler(rotation),
        half_set=np.arange(len(rotation)) % 2 + 1,
    )
    optics = OpticsGroup(
        number=1,
        name="og",
        voltage_kv=300.0,
        spherical_aberration_mm=2.7,
        amplitude_contrast=0.1,
        pixel_size_angstrom=PIXEL,
    )
    return OptimisationSet((series,), particles, (optics,), {}, True, None, {})


def tube(rows: int, around: int, spacing: float, radius: float) -> tuple[F64, F64]:
    """Positions (n, 3) Å and rotations of a helical lattice on a cylinder along y: z outwards, y along the tube."""
    i, j = (grid.ravel() for grid in np.meshgrid(np.arange(rows), np.arange(around), indexing="ij"))
    angle = 2.0 * np.pi * (j + 0.37 * i) / around
    along = spacing * (i + 0.25 * j / around - 0.5 * rows)
    outwards = np.stack([np.sin(angle), 0.0 * angle, np.cos(angle)], axis=-1)
    y = np.broadcast_to([0.0, 1.0, 0.0], outwards.shape)
    rotation = np.stack([np.cross(y, outwards), y, outwards], axis=-1)
    middle = np.array([1000.0, 1000.0, 500.0])
    return middle + radius * outwards + along[:, None] * y, rotation


def planted(
    optset: OptimisationSet,
    folder: Path,
    *,
    anywhere: int = 0,
    turned: int = 0,
    between: int = 0,
    copies: int = 0,
    error_angstrom: float = 0.0,
    error_deg: float = 0.0,
    spacing: float = 80.0,
    seed: int = 1,
    tomograms: Path | None = None,
) -> Planted:
    """Writes a set with errors of the true poses, and with false particles mixed into it.

    `anywhere` are particles at random in the box that holds the true ones, `turned` are true ones with another
    orientation in place of their own, `between` are moved by 40 % of the spacing, `copies` are second copies of true
    ones, up to 5 Å away, with a lower score and in the other half set.
    """
    rng = np.random.default_rng(seed)
    rotation, position = poses_of(optset)
    n = len(position)
    kind = np.full(n, "true", dtype="U8")
    wrong = rng.permutation(n)[: turned + between]
    kind[wrong[:turned]], kind[wrong[turned:]] = "turned", "between"
    rotation = rotation @ rotation_from_vector(np.radians(error_deg) / np.sqrt(3.0) * rng.standard_normal((n, 3)))
    position = position + error_angstrom * rng.standard_normal((n, 3))
    rotation[wrong[:turned]] = random_rotations(turned, rng)
    away = rng.standard_normal((between, 3))
    position[wrong[turned:]] += 0.4 * spacing * away / np.linalg.norm(away, axis=1, keepdims=True)
    of = rng.choice(np.flatnonzero(kind == "true"), copies, replace=False)
    low, high = position.min(axis=0) - 20.0, position.max(axis=0) + 20.0
    strays, second = rng.uniform(low, high, (anywhere, 3)), position[of] + rng.uniform(-2, 2, (copies, 3))
    position = np.concatenate([position, strays, second])
    rotation = np.concatenate([rotation, random_rotations(anywhere, rng), rotation[of]])
    kind = np.concatenate([kind, np.full(anywhere, "anywhere"), np.full(copies, "copy")])
    series = np.array([*optset.particles.tomogram, *rng.choice(optset.particles.tomogram, anywhere)])
    series = np.concatenate([series, np.array(optset.particles.tomogram)[of]])
    order = rng.permutation(len(position))
    pixel = optset.series[0].pixel_size_angstrom
    particles = replace(
        particles_at(position[order] / pixel),
        name=tuple(f"{name}/{i + 1}" for i, name in enumerate(series[order])),
        tomogram=tuple(series[order].tolist()),
        angles_deg=matrix_to_euler(rotation[order]),
    )
    halves = np.concatenate([np.arange(n + anywhere) % 2 + 1, 2 - of % 2])[order]
    result = replace(optset, particles=replace(particles, half_set=halves), documents=None)
    folder.mkdir(parents=True, exist_ok=True)
    if tomograms is None:
        tomograms = folder / "tomograms.star"
        write_tomograms(tomograms, result)
    score = np.where(kind == "copy", 0.4, 0.6)[order] + 0.1 * rng.random(len(order))
    columns = {"rlnMaxValueProbDistribution": score, "someColumn": [f"value {i}" for i in range(len(order))]}
    write_particles(folder / "particles.star", result, extra_columns=columns)
    path = folder / "optimisation_set.star"
    write_optimisation_set(path, particles=folder / "particles.star", tomograms=tomograms)
    return Planted(path, kind[order] == "true", kind[order])


def sheet(side: int, spacing: float, turn_deg: float = 0.0) -> tuple[F64, F64]:
    """Positions (n, 3) Å and rotations of a flat hexagonal lattice."""
    i, j = (grid.ravel() - side // 2 for grid in np.meshgrid(np.arange(side), np.arange(side), indexing="ij"))
    flat = spacing * np.stack([i + 0.5 * j, np.sqrt(0.75) * j, 0.0 * i], axis=-1)
    rotation = np.broadcast_to(rotation_z(turn_deg), (len(flat), 3, 3))
    return flat @ rotation_z(turn_deg).T + np.array([1000.0, 1000.0, 500.0]), rotation
