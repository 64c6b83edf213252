"""Viewing directions on a HEALPix grid: how many particles are seen from where."""

from __future__ import annotations

import healpix
import numpy as np
from numpy.typing import NDArray

from tiltwise.geometry.symmetry import canonical_direction


def direction_shares(
    order: int, angles_deg: NDArray[np.float64], symmetry: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Rot and tilt (D, 2) in degrees of the pixels of one asymmetric unit, and the share (D,) of the particles in each.

    `angles_deg` are (P, 2 or more), rot and tilt first; `symmetry` (G, 3, 3).  Pixels of HEALPix order `order`,
    NESTED; a particle counts at the mate of its pixel that is in the unit.  Shares sum to 1.
    """
    sides = 2**order
    tilt, rot = np.radians(angles_deg[:, 1]), np.radians(angles_deg[:, 0])
    inside = np.asarray(healpix.ang2pix(sides, np.abs(tilt), rot + np.pi * (tilt < 0), nest=True), dtype=np.int64)
    unit = np.arange(12 * sides**2)
    if len(symmetry) > 1:
        vectors = np.stack(healpix.pix2vec(sides, unit, nest=True), axis=-1)
        mates = np.asarray(healpix.vec2pix(sides, *canonical_direction(symmetry, vectors).T, nest=True))
        inside, unit = mates[inside], np.unique(mates)
    tilt, rot = healpix.pix2ang(sides, unit, nest=True)
    counts = np.bincount(np.searchsorted(unit, inside), minlength=len(unit))
    return np.degrees(np.stack([rot, tilt], axis=-1)), counts / max(len(angles_deg), 1)
