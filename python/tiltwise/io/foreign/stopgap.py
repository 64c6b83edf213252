"""STOPGAP's motive list and wedge list, STAR files without RELION's labels.

Position: orig_x/y/z plus x/y/z_shift, voxels of the tomogram, counted from 1 as in MATLAB.  Orientation: phi, psi,
the in degrees; reference to tomogram is Rz(psi) Rx(the) Rz(phi).  In a wedge list defocus is in µm, angles in degrees,
exposure in e/Å^2, sizes in unbinned voxels.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tiltwise.errors import FormatError
from tiltwise.io.foreign.text import read_text
from tiltwise.io.star import StarBlock, parse_star


@dataclass(frozen=True, slots=True)
class StopgapMotives:
    """P particles."""

    path: str
    motive_index: NDArray[np.int64]
    tomogram_number: NDArray[np.int64]
    object_number: NDArray[np.int64]
    subtomogram_number: NDArray[np.int64]
    half_set: tuple[str, ...] | None
    """(P,) "A" or "B"; None for lists of versions without"""
    coordinate: NDArray[np.float64]
    """(P, 3) orig_x, orig_y, orig_z from 1"""
    shift: NDArray[np.float64]
    """(P, 3)"""
    angles_deg: NDArray[np.float64]
    """(P, 3) phi, psi, the"""
    score: NDArray[np.float64]
    class_number: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class StopgapWedges:
    """F tilts of any number of tomograms."""

    path: str
    tomogram_number: NDArray[np.int64]
    pixel_size_angstrom: NDArray[np.float64]
    tomogram_size: NDArray[np.float64]
    """(F, 3)"""
    z_shift: NDArray[np.float64]
    tilt_deg: NDArray[np.float64]
    defocus_um: NDArray[np.float64] | None
    """(F,) mean defocus, or of the first axis"""
    exposure: NDArray[np.float64] | None
    """(F,) cumulative dose"""
    voltage_kv: NDArray[np.float64] | None
    amplitude_contrast: NDArray[np.float64] | None
    spherical_aberration_mm: NDArray[np.float64] | None


def read_motives(path: str | os.PathLike[str]) -> StopgapMotives:
    """Read a STOPGAP motive list.

    Raises
    ------
    FormatError
        if the file is not such a list, lacks a column, or a value is not a finite number.
    """
    block = _block(path, "stopgap_motivelist")
    half_set = tuple(block.text("halfset")) if "halfset" in block else None
    for row, half in enumerate(half_set or ()):
        if half not in ("A", "B"):
            raise FormatError(
                "a half set cannot be read",
                where=block.where(row, "halfset"),
                expected="A or B",
                found=half,
                fix="write A or B, or take the column out",
            )
    return StopgapMotives(
        path=block.path,
        motive_index=block.integers("motl_idx"),
        tomogram_number=block.integers("tomo_num"),
        object_number=block.integers("object"),
        subtomogram_number=block.integers("subtomo_num"),
        half_set=half_set,
        coordinate=_columns(block, "orig_x", "orig_y", "orig_z"),
        shift=_columns(block, "x_shift", "y_shift", "z_shift"),
        angles_deg=_columns(block, "phi", "psi", "the"),
        score=block.floats("score"),
        class_number=block.integers("class"),
    )


def read_wedges(path: str | os.PathLike[str]) -> StopgapWedges:
    """Read a STOPGAP wedge list.

    Raises
    ------
    FormatError
        as `read_motives`.
    """
    block = _block(path, "stopgap_wedgelist")

    def optional(*labels: str) -> NDArray[np.float64] | None:
        return next((block.floats(label) for label in labels if label in block), None)

    return StopgapWedges(
        path=block.path,
        tomogram_number=block.integers("tomo_num"),
        pixel_size_angstrom=block.floats("pixelsize"),
        tomogram_size=_columns(block, "tomo_x", "tomo_y", "tomo_z"),
        z_shift=block.floats("z_shift"),
        tilt_deg=block.floats("tilt_angle"),
        defocus_um=optional("defocus", "defocus1"),
        exposure=optional("exposure"),
        voltage_kv=optional("voltage"),
        amplitude_contrast=optional("amp_contrast"),
        spherical_aberration_mm=optional("cs"),
    )


def _block(path: str | os.PathLike[str], name: str) -> StarBlock:
    file = read_text(path)
    lines = list(file.lines)
    # STOPGAP leaves a blank line between the labels and the rows.
    document = parse_star("\n".join(lines) + "\n", file.path)
    block = document[name]
    if not len(block):
        raise file.empty(f"rows of data_{name}")
    return block


def _columns(block: StarBlock, *labels: str) -> NDArray[np.float64]:
    return np.stack([block.floats(label) for label in labels], axis=1)
