"""A protein-like phantom: right-handed helices packed into lobes, joined by loops; chiral, and of any point group.

Nothing of it comes from a data bank, and it looks like a protein at every resolution of interest: a shape
of unequal lobes at 60 Å, rods at 20 Å, the pitch of helices beyond.  The whole is scaled to the diameter
asked for, so rods are as far apart as the diameter and the number of beads make them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tiltwise.errors import ConfigError
from tiltwise.geometry.symmetry import symmetry_matrices
from tiltwise.sim.density import GaussianDensity

F64 = NDArray[np.float64]

# The alpha helix in Å: radius and rise of the C-alpha trace, turn per residue.
_HELIX_RADIUS, _HELIX_RISE, _HELIX_TURN_DEG = 2.3, 1.5, 100.0
_BEAD_DISTANCE = 5.0
"""Smallest distance between beads of different helices, Å: rods about 10 Å apart."""
_LOOP_STEP = 3.8
_VOLUME_PER_BEAD = 330.0
"""Å^3 of lobe per bead that random packing fills without getting stuck."""
_SIGMA = 1.7
"""Standard deviation of a bead in Å: neighbours along the chain merge."""

# Lobes in units of the subunit's radius: radius, then centre; along a right-handed spiral, of unequal size.
_LOBES = np.array(
    [
        [0.58, 0.38, -0.05, -0.14],
        [0.48, -0.10, 0.48, 0.10],
        [0.42, -0.42, -0.22, 0.32],
        [0.34, 0.05, -0.52, -0.38],
        [0.26, 0.30, 0.30, 0.60],
    ]
)


def build_phantom(diameter_angstrom: float, n_beads: int = 900, symmetry: str = "C1", seed: int = 1) -> GaussianDensity:
    """Phantom of `n_beads` equal Gaussians inside a sphere of the given diameter.

    Parameters
    ----------
    diameter_angstrom
        of the sphere about the origin that holds every bead with two standard deviations.
    n_beads
        in all; rounded down to a multiple of the order of the point group.
    symmetry
        `C1` (centre of mass at the origin), `Cn` about z: a ring of n subunits, or any point group: a shell of them.
    seed
        of the fold; the same seed gives the same phantom.

    Raises
    ------
    ConfigError
        for an unknown symmetry, too few beads, or a diameter that is not positive.
    """
    group = symmetry_matrices(symmetry)
    order = len(group)
    per_subunit = n_beads // order
    if per_subunit < 20 or not diameter_angstrom > 0:
        raise ConfigError(
            "no phantom of this size",
            expected=f"a positive diameter, at least {20 * order} beads",
            found=f"{diameter_angstrom:g} Å, {n_beads} beads",
            fix="give a larger --particle-diameter, or more --beads",
        )
    beads, sigma = _fold(per_subunit, np.random.default_rng(seed))
    beads -= beads.mean(axis=0)
    if order > 1:
        # Neighbours touch: the distance of their centres is 3 times the rms extent along the ring.
        extent = np.sqrt((beads[:, 1] ** 2).mean())
        direction = _roomiest_direction(group)
        beads += direction * (3.0 * extent / _distance_to_mates(group, direction[None])[0])
        beads = np.concatenate([beads @ turn.T for turn in group])
    unit = diameter_angstrom / 2 / (np.linalg.norm(beads, axis=1).max() + 2 * sigma)
    return GaussianDensity(
        position_angstrom=beads * unit,
        weight=np.ones(len(beads)),
        kind=np.zeros(len(beads), np.int64),
        amplitude=np.ones((1, 1)),
        bfactor_angstrom2=np.full((1, 1), 8 * np.pi**2 * (sigma * unit) ** 2),
    )


def _roomiest_direction(group: F64) -> F64:
    """(3,) unit vector whose symmetry mates are farthest apart, x for rotations about z."""
    n = 4000
    z = 1.0 - (2.0 * np.arange(n) + 1.0) / n
    azimuth = np.arange(n) * (np.pi * (3.0 - np.sqrt(5.0)))
    ring = np.sqrt(1.0 - z * z)
    spiral = np.stack([ring * np.cos(azimuth), ring * np.sin(azimuth), z], axis=1)
    directions = np.concatenate([[[1.0, 0.0, 0.0]], spiral])
    return np.asarray(directions[np.argmax(np.round(_distance_to_mates(group, directions), 9))])


def _distance_to_mates(group: F64, directions: F64) -> F64:
    """(n,) distance of unit vectors (n, 3) from the nearest of their mates."""
    mates = np.einsum("gij,nj->gni", group[1:], directions)
    return np.asarray(np.linalg.norm(mates - directions, axis=-1).min(axis=0))


def _fold(n_beads: int, rng: np.random.Generator) -> tuple[F64, float]:
    """Positions of the beads in Å at the scale of a real protein, and their standard deviation."""
    samples = rng.uniform(-1, 1, (20000, 3))
    filling = float(_inside(samples, 1.0).mean()) * 8
    radius = (n_beads * _VOLUME_PER_BEAD / filling) ** (1 / 3)
    chain = np.empty((0, 3))
    end = _LOBES[0, 1:] * radius
    stuck = 0
    while len(chain) < n_beads:
        piece = _next_helix(chain, end, radius, rng)
        if piece is not None:
            chain = np.concatenate([chain, piece])
            end, stuck = piece[-1], 0
            continue
        # The chain ends here; another one starts elsewhere, in a little more room each time.
        stuck += 1
        radius *= 1.01
        lobe = _LOBES[rng.integers(len(_LOBES))]
        end = (lobe[1:] + lobe[0] * rng.uniform(-0.7, 0.7, 3)) * radius
    return chain[:n_beads], _SIGMA


def _next_helix(chain: F64, end: F64, radius: float, rng: np.random.Generator) -> F64 | None:
    """Loop and helix that follow `end`, inside the lobes and clear of the chain; None if none was found."""
    for _ in range(12):
        length = int(rng.integers(9, 22))
        start = end + _directions(64, rng) * rng.uniform(5.0, 13.0, (64, 1))
        beads = start[:, None] + _helices(_directions(64, rng), length, rng)
        good = _inside(beads, radius).all(axis=1)
        for helix in beads[good]:
            gap = helix[0] - end
            steps = int(np.linalg.norm(gap) // _LOOP_STEP)
            loop = end + gap * (np.arange(1, steps + 1) / (steps + 1))[:, None]
            piece = np.concatenate([loop, helix])
            # The bead just before is a neighbour along the chain and may be near.
            if len(chain) < 2 or _distance(piece[steps:], chain[:-1]) >= _BEAD_DISTANCE:
                return piece
    return None


def _helices(axes: F64, length: int, rng: np.random.Generator) -> F64:
    """Right-handed helices `(n, length, 3)` that start at the origin and run along `axes` (n, 3)."""
    aside = np.cross(axes, _directions(len(axes), rng))
    aside /= np.linalg.norm(aside, axis=1, keepdims=True)
    third = np.cross(axes, aside)
    step = np.arange(length)
    angle = np.radians(_HELIX_TURN_DEG * step)[:, None]
    circle = np.cos(angle) * aside[:, None] + np.sin(angle) * third[:, None] - aside[:, None]
    return np.asarray(_HELIX_RADIUS * circle + (_HELIX_RISE * step)[:, None] * axes[:, None])


def _directions(n: int, rng: np.random.Generator) -> F64:
    vectors = rng.standard_normal((n, 3))
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def _inside(points: F64, radius: float) -> NDArray[np.bool_]:
    """Whether points `(..., 3)` lie in a lobe of a subunit of the given radius."""
    offsets = points[..., None, :] - _LOBES[:, 1:] * radius
    return np.asarray((np.square(offsets).sum(axis=-1) < (_LOBES[:, 0] * radius) ** 2).any(axis=-1))


def _distance(a: F64, b: F64) -> float:
    return float(np.sqrt(np.square(a[:, None] - b).sum(axis=-1).min()))
