"""Optics group: what is common to all images of one microscope session."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


def _none() -> NDArray[np.float64]:
    return np.zeros(0)


@dataclass(frozen=True, slots=True)
class OpticsGroup:
    """One row of `data_optics`.

    Five fields from `image_pixel_size_angstrom` on describe extracted images (2D stacks or pseudo-subtomograms) and
    are None when the particles have none.  Zernike coefficients are in the order of RELION's rlnEvenZernike and
    rlnOddZernike, in radians, with frequencies in 1/Å.
    """

    number: int
    name: str
    voltage_kv: float
    spherical_aberration_mm: float
    amplitude_contrast: float
    pixel_size_angstrom: float
    even_zernike: NDArray[np.float64] = field(default_factory=_none)
    odd_zernike: NDArray[np.float64] = field(default_factory=_none)
    image_pixel_size_angstrom: float | None = None
    image_size: int | None = None
    image_dimensionality: int | None = None
    binning: float | None = None
    ctf_premultiplied: bool | None = None
    split_from: int | None = None
    """number of the group of the file that it is a part of, if it is one"""
